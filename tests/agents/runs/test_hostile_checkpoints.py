"""Sound hashes are no proof of a friend: a checkpoint that lies is refused in one message."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path
from typing import Any

import pytest
import torch
from short_runs import arguments, short_run

from mtrl_transfer.agents.runs import cli
from mtrl_transfer.agents.runs.checkpoint.checkpoints import TRAINING, newest
from mtrl_transfer.agents.runs.checkpoint.manifest import read_manifest, write_manifest
from mtrl_transfer.agents.storage.archive import read_archive, write_archive
from mtrl_transfer.agents.storage.durable import Stamp

QUICK = ("total_timesteps=150", "agent.learning_starts=30", "evaluation.every=null", "log.figures_every=null")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = short_run(tmp_path_factory.mktemp("run") / "a", *QUICK, "evaluation.final_n_goals=1")
    (run.folder / "evaluation.json").unlink()
    found = newest(run.folder)
    assert found is not None
    return found.folder


def forged(checkpoint: Path, content: bytes) -> None:
    (checkpoint / TRAINING).write_bytes(content)
    manifest = read_manifest(checkpoint)
    stamp = Stamp(len(content), hashlib.sha256(content).hexdigest())
    write_manifest(checkpoint, manifest._replace(files={**manifest.files, TRAINING: stamp}))


def swapped(tree: Any, path: str, value: Any) -> None:
    """Put a value at a place in a flattened tree, in which a dict is a list of pairs."""
    *parents, last = path.split(".")
    for name in parents:
        tree = dict(tree["dict"])[name]
    tree["dict"] = [[key, value if key == last else old] for key, old in tree["dict"]]


@pytest.mark.parametrize(
    ("path", "value", "told"),
    [
        ("seconds", None, "TypeError"),
        ("training", 3, "TypeError"),
        ("training.environment", {"dict": []}, "KeyError"),
        ("training.environment.positions", {"array": "nowhere"}, "KeyError: 'nowhere'"),
        ("training.generators.python", {"list": [3, {"list": []}, None]}, "state vector"),
        ("training.generators.torch", {"tensor": "short"}, "RuntimeError|TypeError"),
        ("training.replay_generator", "text", "AttributeError"),
        ("training.episode_infos", 3, "TypeError"),
        ("training", {"dict": [["a"]]}, "ValueError"),
    ],
)
def test_lies_are_refused(checkpoint: Path, path: str, value: Any, told: str, capsys: pytest.CaptureFixture[str]):
    sound = (checkpoint / TRAINING).read_bytes()
    data, tensors = read_archive(checkpoint / TRAINING)
    swapped(data["training"], path, value)
    stream = io.BytesIO()
    write_archive(stream, data, {**tensors, "short": torch.zeros(3, dtype=torch.uint8)})
    forged(checkpoint, stream.getvalue())
    try:
        code = cli.train([str(checkpoint.parents[1] / "config.yaml"), "resume=true", "total_timesteps=300"])
    finally:
        forged(checkpoint, sound)
    printed = capsys.readouterr().err
    assert code == 2
    assert f"cannot continue from {checkpoint}: " in printed
    assert any(part in printed for part in told.split("|")), printed
    assert "Traceback" not in printed


def test_it_goes_on_where_it_does_not_lie(checkpoint: Path):
    assert cli.train([str(checkpoint.parents[1] / "config.yaml"), "resume=true"]) == 0
    assert cli.train(arguments(checkpoint.parents[1])) == 2
