"""``mtrl-push`` and ``MTSAC.from_hub``; a local folder stands in for the hub."""

from __future__ import annotations

import shutil
import sys
import zipfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import yaml

from mtrl_transfer.agents import MTSAC, Evaluation, load_actor
from mtrl_transfer.agents.runs import cli, run_folder
from mtrl_transfer.agents.runs.build import training_env
from mtrl_transfer.agents.runs.config.loading import load_config
from mtrl_transfer.agents.runs.protocol import run_protocol
from mtrl_transfer.agents.runs.tables import evaluation_json
from mtrl_transfer.envs import make_vec_env, protocol_card

TASKS = ("point-a0", "point-b0", "noise")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A finished run's files."""
    config = load_config("point", ["env.id=Point-3", "agent.batch_size=24", "seed=5", f"run_dir={tmp_path / 'run'}"])
    env = training_env(config)
    folder = run_folder.create(config, run_protocol(config, protocol_card(env), 50, "cpu"))
    MTSAC("MultiTaskPolicy", env, buffer_size=30, policy_kwargs={"net_arch": [4]}, seed=0).save(folder / "agent.zip")
    scores = Evaluation(
        TASKS, np.array([1.0, 0.5, 0.0]), np.array([-1.0, -2.0, -3.0]), 2, np.array([True, True, False])
    )
    run_folder.write_text(folder / "evaluation.json", run_folder.to_json(evaluation_json(scores, step=900)))
    return folder


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that plays the hub."""
    root = tmp_path / "hub"

    class HfApi:
        def create_repo(self, repo: str, private: bool, exist_ok: bool) -> None:
            if repo == "taken/name":
                raise PermissionError("403 Forbidden")
            (root / repo).mkdir(parents=True, exist_ok=exist_ok)

        def upload_folder(self, repo_id: str, folder_path: str, commit_message: str) -> None:
            shutil.copytree(folder_path, root / repo_id, dirs_exist_ok=True)

    def download(repo: str, filename: str, revision: str | None) -> str:
        return str(root / repo / filename)

    monkeypatch.setitem(sys.modules, "huggingface_hub", SimpleNamespace(HfApi=HfApi, hf_hub_download=download))
    return root


def test_a_pushed_agent_plays_as_before(run: Path, hub: Path):
    assert cli.push(["me/agent", str(run)]) == 0
    agent = MTSAC.load(run / "agent.zip")
    observations = make_vec_env("Point-3", seed=1).reset()
    expected, _ = agent.predict(observations, deterministic=True)
    np.testing.assert_array_equal(MTSAC.from_hub("me/agent").predict(observations, deterministic=True)[0], expected)
    np.testing.assert_allclose(load_actor(hub / "me/agent/actor.safetensors").predict(observations)[0], expected, 1e-5)


def test_the_repository_can_be_evaluated_as_a_run(run: Path, hub: Path, capsys: pytest.CaptureFixture[str]):
    assert cli.push(["me/agent", str(run)]) == 0
    assert cli.evaluate([str(hub / "me" / "agent"), "episodes=1"]) == 0
    assert "Mean success" in capsys.readouterr().out


def test_no_file_is_a_pickle_or_names_local_folders(run: Path, hub: Path, tmp_path: Path):
    assert cli.push(["me/agent", str(run)]) == 0
    files = {path.name: path.read_bytes() for path in (hub / "me" / "agent").iterdir()}
    assert set(files) == {
        "README.md", "actor.safetensors", "agent.zip", "config.yaml", "evaluation.json", "protocol.json"
    }  # fmt: skip
    with zipfile.ZipFile(run / "agent.zip") as archive:
        assert {Path(name).suffix for name in archive.namelist()} <= {".json", ".safetensors"}
    assert not [name for name, content in files.items() if str(tmp_path).encode() in content]


def test_the_card_has_protocol_scores_and_command(run: Path, hub: Path):
    assert cli.push(["me/agent", str(run)]) == 0
    _, front, text = (hub / "me" / "agent" / "README.md").read_text("utf-8").split("---\n", 2)
    (entry,) = yaml.safe_load(front)["model-index"]
    assert entry["results"][0]["metrics"][0]["value"] == 0.75
    for line in (
        "| point-a0 | 1.00 | -1.0 | 2 |",
        "| policy | deterministic |",
        "| seeds | run 5, evaluation 10000 |",
        "    mtrl-train config.yaml",
        'MTSAC.from_hub("me/agent")',
        'make_vec_env("Point-3", seed=1)',
        "**0.750** over the tasks that can be solved",
    ):
        assert line in text


def test_an_unfinished_run_is_refused(run: Path, hub: Path, capsys: pytest.CaptureFixture[str]):
    (run / "evaluation.json").unlink()
    assert cli.push(["me/agent", str(run)]) == 2
    assert "evaluation.json missing" in capsys.readouterr().err
    assert not hub.exists()


def test_the_hubs_refusal_is_told(run: Path, hub: Path, capsys: pytest.CaptureFixture[str]):
    assert cli.push(["taken/name", str(run)]) == 1
    assert "cannot push to taken/name: PermissionError: 403 Forbidden" in capsys.readouterr().err


def test_without_huggingface_hub_both_say_what_to_install(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    assert cli.push(["me/agent", str(run)]) == 2
    assert "mtrl-transfer[hub]" in capsys.readouterr().err
    with pytest.raises(ImportError, match=r"mtrl-transfer\[hub\]"):
        MTSAC.from_hub("me/agent")
