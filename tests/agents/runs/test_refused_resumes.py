"""A run that cannot be continued is refused in one message, and its folder stays as it was."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from same_runs import assert_same_run
from short_runs import Run, arguments, short_run

from mtrl_transfer.agents.runs import cli
from mtrl_transfer.agents.runs.checkpoint.manifest import content_hash
from mtrl_transfer.agents.runs.stopping import StopBetweenUpdates

QUICK = (
    "total_timesteps=150",
    "agent.learning_starts=30",
    "evaluation.every=null",
    "evaluation.final_n_goals=1",
    "log.figures_every=null",
    "log.record_every=5",
)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return short_run(tmp_path_factory.mktemp("run") / "a", *QUICK).folder


@pytest.fixture
def folder(trained: Path, tmp_path: Path) -> Path:
    """Interrupted after its last checkpoint, at 150 transitions."""
    copied = shutil.copytree(trained, tmp_path / "run")
    config = (copied / "config.yaml").read_text("utf-8")
    (copied / "config.yaml").write_text(config.replace(str(trained), str(copied)), "utf-8")
    return copied


def resume(folder: Path, *overrides: str) -> int:
    return cli.train([str(folder / "config.yaml"), "resume=true", "total_timesteps=300", *overrides])


def content(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def check_refused(folder: Path, capsys: pytest.CaptureFixture[str], told: str, *overrides: str) -> None:
    before = content(folder)
    assert resume(folder, *overrides) == 2
    printed = capsys.readouterr().err
    assert told in printed
    assert "Traceback" not in printed
    assert content(folder) == before


def lie(folder: Path, **changes: Any) -> None:
    """Change entries of a manifest, hash included."""
    path = folder / "checkpoints" / "150" / "manifest.json"
    manifest = json.loads(path.read_bytes()) | changes
    del manifest["sha256"]
    path.write_text(json.dumps(manifest | {"sha256": content_hash(manifest)}), "utf-8")


STAMP = [3, "0" * 64]


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"files": ["agent.zip"]}, "files: "),
        ({"files": {}}, "files: "),
        ({"files": {"agent.zip": STAMP, "training.zip": STAMP, "../config.yaml": STAMP}}, "files.../config.yaml"),
        ({"files": {"agent.zip": STAMP, "training.zip": STAMP}}, "agent.zip has"),
        ({"appended": [1]}, "appended: "),
        ({"appended": {"metrics.jsonl": -3}}, "appended.metrics.jsonl: "),
        ({"appended": {"config.yaml": 3}}, "appended.config.yaml"),
        ({"segments": {"a": 1}}, "segments: "),
        ({"segments": [["0-1.safetensors", 0, float("inf"), STAMP]]}, "segments.0.2: "),
        ({"segments": []}, "added=50"),
        ({"segments": [["٠-١.safetensors", 0, 50, STAMP]]}, "segments.0.0: "),
        ({"added": -1}, "added: "),
        ({"step": float("nan")}, "step: "),
        ({"step": 140}, "step 140 in a folder named 150"),
        ({"config": 3}, "config: "),
        ({"more": 3}, "more: "),
    ],
)
def test_manifests_that_lie(folder: Path, changes: dict, told: str, capsys: pytest.CaptureFixture[str]):
    lie(folder, **changes)
    check_refused(folder, capsys, told)


def empty(path: Path) -> None:
    path.write_bytes(b"")


def garble(path: Path) -> None:
    path.write_bytes(b"\xff\x00" + path.read_bytes()[2:])


def of_other_tasks(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b"point-a0", b"point-x0", 1))


def with_odd_header(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b'"critic": ', b'"critic": -', 1))


def with_other_candidates(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b'"critic": 4', b'"critic": 5', 1))


@pytest.mark.parametrize("harm", [empty, garble, of_other_tasks, with_odd_header, with_other_candidates])
def test_damaged_records(folder: Path, harm, capsys: pytest.CaptureFixture[str]):
    path = folder / "transference.records"
    harm(path)
    check_refused(folder, capsys, f"{path} is damaged: ")
    path.unlink()
    assert resume(folder) == 0


@pytest.mark.parametrize(
    "change",
    [
        {"agent": {"reward_scaling": "max_reward"}},
        {"agent": {"clip_targets": True}},
        {"agent": {"train_freq": 2}},
        {"agent": {"overlap": True}},
        {"agent": {"policy_kwargs": {"net_arch": [9]}}},
        {"matmul_precision": "medium"},
        {"env": {"id": "Point-4"}, "agent": {"batch_size": 32}},
        {"combiner": {"name": "mean", "kwargs": {}}},
        {"evaluation": {"final_n_goals": 2}},
        {"seed": 6},
    ],
    ids=str,
)
def test_edited_keys_are_refused_by_name(folder: Path, change: dict, capsys: pytest.CaptureFixture[str]):
    edit(folder, change)
    (section, value), *_ = change.items()
    key = f"{section}.{next(iter(value))}" if isinstance(value, dict) else section
    check_refused(folder, capsys, f"\n  {key}")


def edit(folder: Path, change: dict) -> None:
    config = yaml.safe_load((folder / "config.yaml").read_text("utf-8"))
    for section, values in change.items():
        config[section] = config[section] | values if isinstance(values, dict) else values
    (folder / "config.yaml").write_text(yaml.safe_dump(config), "utf-8")


def test_old_and_new_value_are_told(folder: Path, capsys: pytest.CaptureFixture[str]):
    edit(folder, {"agent": {"gamma": 0.5}})
    check_refused(folder, capsys, "agent.gamma was 0.8, is 0.5")


def test_edited_keys_that_may_change_are_honoured(folder: Path):
    edit(folder, {"log": {"every": 30}, "evaluation": {"every": 60}, "checkpoint": {"every": 60, "keep": 1}})
    assert resume(folder) == 0
    rows = Run(folder).metrics
    assert [row["step"] for row in rows if row["step"] > 150] == [180, 210, 240, 270, 300]
    assert [row["step"] for row in rows if "success/mean" in row] == [180, 240, 300]
    assert Run(folder).checkpoints == ["300", "replay"]


def test_a_missing_config_is_named(folder: Path, capsys: pytest.CaptureFixture[str]):
    (folder / "config.yaml").unlink()
    check_refused(folder, capsys, f"cannot resume {folder}: config.yaml is missing")
    check_refused(folder, capsys, f"cannot resume {folder}: config.yaml is missing", f"run_dir={folder}")
    assert cli.train(["point", "env.id=Point-3", f"run_dir={folder}", "resume=true"]) == 2
    assert "config.yaml is missing" in capsys.readouterr().err


def test_a_run_without_checkpoint_starts_over(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    def killed(callback: StopBetweenUpdates) -> None:
        if callback.model.num_timesteps == 90:
            raise SystemExit(9)

    folder = tmp_path / "a"
    with monkeypatch.context() as patch:
        patch.setattr(StopBetweenUpdates, "_on_rollout_start", killed)
        assert cli.train(arguments(folder, *QUICK, "log.every=30")) == 9
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)
    (folder / "checkpoints" / ".60.partial").mkdir(parents=True)
    assert Run(folder).metrics
    assert cli.train([str(folder / "config.yaml"), "resume=true", "log.every=150"]) == 0
    assert f"{folder} has no checkpoint yet: the run starts over" in capsys.readouterr().out
    assert_same_run(Run(trained), Run(folder))
    assert Run(folder).checkpoints == ["150", "replay"]


def test_a_damaged_protocol_is_named(folder: Path, capsys: pytest.CaptureFixture[str]):
    (folder / "protocol.json").write_text('{"versions": []}', "utf-8")
    check_refused(folder, capsys, f"cannot resume {folder}: protocol.json cannot be read (versions: ")


def test_another_precision_is_noted(folder: Path, monkeypatch: pytest.MonkeyPatch):
    before = Run(folder).json("protocol.json")
    monkeypatch.setattr("mtrl_transfer.agents.runs.protocol.product_precision", lambda device: "bf16")
    assert resume(folder) == 0
    assert Run(folder).json("protocol.json") == before | {"precision": "float32, bf16"}


def test_a_finished_agent_is_not_cleared(folder: Path, capsys: pytest.CaptureFixture[str]):
    shutil.rmtree(folder / "checkpoints")
    check_refused(folder, capsys, "agent.zip but no checkpoint")


def test_what_is_not_ours_is_left_alone(folder: Path):
    parent = folder / "checkpoints"
    for name in ("١٨٠", "0200", "²", "200.old"):
        (parent / name).mkdir()
    for name in ("210", "notes.txt", "replay/notes.safetensors", "replay/١-٢.safetensors"):
        (parent / name).write_text("mine", "utf-8")
    (folder / "events.out.tfevents.folder").mkdir()
    before = {path for path in folder.rglob("*") if path.stat().st_size == 4 or path.is_dir()} - {parent / "150"}
    assert resume(folder) == 0
    assert before <= set(folder.rglob("*"))
    assert (parent / "300").is_dir()
