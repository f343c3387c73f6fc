"""A full disk costs lines of warning, neither the run nor a line of its logs."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
from same_runs import assert_same_run, events, learned
from short_runs import Run, arguments, short_run
from small_disks import fill, small_disk

from mtrl_transfer.agents import MTSAC, MultiTaskEvalCallback
from mtrl_transfer.agents.runs import cli
from mtrl_transfer.agents.runs.stopping import StopBetweenUpdates
from mtrl_transfer.envs import make_vec_env

QUICK = ("log.figures_every=null", "log.every=60", "log.record_every=5", "evaluation.every=120", "checkpoint.every=300")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return short_run(tmp_path_factory.mktemp("whole") / "a", *QUICK)


def train_while_full(folder: Path, monkeypatch: pytest.MonkeyPatch, full: int, free: int | None) -> int:
    """Train with a disk that is full from one step on until another; returns the exit code."""
    look = StopBetweenUpdates._on_rollout_start
    filler: list[Path] = []

    def filling(callback: StopBetweenUpdates) -> None:
        look(callback)
        if callback.num_timesteps == full:
            filler.append(fill(folder.parent))
        if callback.num_timesteps == free:
            filler.pop().unlink()

    with monkeypatch.context() as patch:
        patch.setattr(StopBetweenUpdates, "_on_rollout_start", filling)
        return cli.train(arguments(folder, *QUICK))


def told(printed: str) -> dict[str, list[str]]:
    """Messages about each file, in order."""
    lines = [line for line in printed.splitlines() if "WRITTEN" in line or "written again" in line]
    names = ("metrics.jsonl", "tfevents", "records", "best_model.zip", "CHECKPOINT")
    return {name: [line for line in lines if name in line] for name in names}


def test_training_goes_on_and_no_line_is_missing(
    whole: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    with small_disk(tmp_path / "disk", 900) as disk:
        assert train_while_full(disk / "a", monkeypatch, full=210, free=720) == 0
        assert_same_run(whole, Run(disk / "a"))
        printed = capsys.readouterr().err
        for name, lines in told(printed).items():
            ends = [("WRITTEN" in line, "No space left" in line) for line in lines]
            if name == "CHECKPOINT":
                assert ends == [(True, True), (True, True)]  # at 300 and 600
            elif name == "best_model.zip":
                assert len(lines) <= 2
            else:
                assert ends == [(True, True), (False, False)], (name, lines)  # once each
        assert not list(disk.rglob("*.tmp")) + list(disk.rglob("*.partial"))


def test_a_run_reaches_its_end_on_a_full_disk_and_the_end_can_be_repeated(
    whole: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    with small_disk(tmp_path / "disk", 900) as disk:
        assert train_while_full(disk / "a", monkeypatch, full=390, free=None) == 1
        captured = capsys.readouterr()
        assert "Mean success" in captured.out  # all that could be done was
        assert "Written to" not in captured.out
        for part in ("agent.zip could not be written", "evaluation.json could not be written", "resume=true"):
            assert part in captured.err
        assert "metrics.jsonl IS INCOMPLETE" in captured.err
        assert "Traceback" not in captured.err
        kept = (disk / "a" / "metrics.jsonl").read_text(encoding="utf-8")
        assert kept.endswith("}\n")  # whole lines
        steps = [json.loads(line)["step"] for line in kept.splitlines()]
        assert steps == [row["step"] for row in whole.metrics][: len(steps)]
        assert not (disk / "a" / "agent.zip").exists()
        (disk / "filler").unlink()
        assert cli.train([str(disk / "a" / "config.yaml"), "resume=true"]) == 0
        assert_same_run(whole, Run(disk / "a"))


def test_a_folder_that_is_read_only_is_bad_input(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    with small_disk(tmp_path / "disk", 100) as disk:
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        assert cli.train(arguments(disk / "a")) == 2
        assert f"{disk} cannot be written to" in capsys.readouterr().err
        subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)
        fill(disk)
        assert cli.train(arguments(disk / "a")) == 2
        assert "the run folder cannot be written: [Errno 28] No space left" in capsys.readouterr().err


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
def test_what_it_prints_may_go_to_a_full_disk(whole: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with contextlib.suppress(OSError), Path("/dev/full").open("w", encoding="utf-8") as full:
        for name in ("stdout", "stderr"):
            monkeypatch.setattr(sys, name, full)
        with pytest.raises(OSError, match="No space"):
            print("anything", flush=True)
        made = short_run(tmp_path / "a", *QUICK, "log.progress=true")
    assert learned(made) == learned(whole)
    assert events(made.folder) == events(whole.folder)
    assert made.json("evaluation.json")["tasks"] == whole.json("evaluation.json")["tasks"]


def test_the_best_agent_is_the_best_that_could_be_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    model = MTSAC("MultiTaskPolicy", make_vec_env("Point-3"), buffer_size=30, policy_kwargs={"net_arch": [4]})
    lines: list[str] = []
    watch = MultiTaskEvalCallback(make_vec_env("Point-3"), 1, 1, tmp_path / "best", tell=lines.append)
    watch.init_callback(model)
    results = [0.2, 0.9, 0.5, 0.4]

    def evaluated(success: float) -> None:
        watch.last = type("Result", (), {"score": (success, 0.0)})()  # type: ignore[assignment]
        watch._keep_best()

    evaluated(results[0])
    (tmp_path / "best").rename(tmp_path / "away")
    (tmp_path / "best").write_text("no folder", encoding="utf-8")
    evaluated(results[1])
    (tmp_path / "best").unlink()
    for success in results[2:]:
        evaluated(success)
    assert watch.best_score == (0.5, 0.0)
    assert (tmp_path / "best" / "best_model.zip").is_file()
    assert [line.split(":")[0] for line in lines] == [
        "best_model.zip CANNOT BE WRITTEN",
        "best_model.zip is written again.",
    ]
