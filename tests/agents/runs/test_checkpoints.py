"""Checkpoints are whole or absent; what is not whole is found out, and the one before is used."""

from __future__ import annotations

import resource
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from small_disks import fill, small_disk

from mtrl_transfer.agents import MTSAC
from mtrl_transfer.agents.runs.checkpoint import writer as checkpoint_writer
from mtrl_transfer.agents.runs.checkpoint.checkpoints import (
    folders,
    load_replay,
    newest,
    replay_folder,
    set_aside_newer,
)
from mtrl_transfer.agents.runs.checkpoint.writer import CheckpointWriter
from mtrl_transfer.agents.runs.errors import InputError
from mtrl_transfer.agents.storage.training_state import training_state
from mtrl_transfer.envs import make_vec_env

STEPS = 40
BYTES_OF_A_STEP = 3 * 4 * (4 + 2 + 4 + 1 + 1 + 1)  # 3 tasks, float32: observation, action, next one, reward, two ends


@pytest.fixture
def model() -> MTSAC:
    made = MTSAC(
        "MultiTaskPolicy",
        make_vec_env("Point-3", seed=0),
        combiner="mean",
        buffer_size=3 * 100,
        learning_starts=3 * 35,
        batch_size=6,
        policy_kwargs={"net_arch": [4]},
        seed=0,
    )
    return made.learn(3 * STEPS)


def save(writer: CheckpointWriter, model: MTSAC) -> None:
    writer.save(model, {"training": training_state(model)}, {})
    writer.wait()


def go_on(model: MTSAC, steps: int = STEPS) -> None:
    model.learn(3 * steps, reset_num_timesteps=False)


@pytest.fixture
def told() -> list[str]:
    return []


@pytest.fixture
def writer(tmp_path: Path, model: MTSAC, told: list[str]) -> CheckpointWriter:
    """Has written checkpoints at 120 and 240 transitions."""
    made = CheckpointWriter(tmp_path, 2, told.append)
    save(made, model)
    go_on(model)
    save(made, model)
    assert (made.failure, told) == (None, [])
    return made


def found(folder: Path) -> tuple[int, tuple[str, ...]]:
    checkpoint = newest(folder)
    assert checkpoint is not None
    return checkpoint.step, checkpoint.damaged


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


@pytest.mark.parametrize("harm", [truncate, flip_a_bit, Path.unlink])
@pytest.mark.parametrize("name", ["agent.zip", "training.zip", "manifest.json", "replay"])
def test_a_damaged_newest_is_named_and_the_one_before_is_used(name, harm, writer: CheckpointWriter, tmp_path: Path):
    assert found(tmp_path) == (240, ())
    last = sorted(replay_folder(tmp_path).iterdir())[-1]
    path = last if name == "replay" else tmp_path / "checkpoints" / "240" / name
    harm(path)
    step, (damage,) = found(tmp_path)
    assert step == 120
    assert "checkpoints/240 is damaged" in damage
    assert path.name in damage


def test_what_is_damaged_is_set_aside_and_what_all_share_is_missed(writer: CheckpointWriter, tmp_path: Path):
    flip_a_bit(tmp_path / "checkpoints" / "240" / "agent.zip")
    checkpoint = newest(tmp_path)
    assert checkpoint is not None
    set_aside_newer(tmp_path, checkpoint)
    assert found(tmp_path) == (120, ())
    assert (tmp_path / "checkpoints" / "240.damaged" / "agent.zip").is_file()
    flip_a_bit(min(replay_folder(tmp_path).iterdir()))
    with pytest.raises(InputError, match=r"checkpoints/120 is damaged: 0{12}-0{10}40\.safetensors has changed"):
        newest(tmp_path)


def test_a_half_written_one_is_not_there(writer: CheckpointWriter, tmp_path: Path):
    (tmp_path / "checkpoints" / "240").rename(tmp_path / "checkpoints" / ".240.partial")
    assert found(tmp_path) == (120, ())


def test_only_new_transitions_are_written_and_no_more_kept_than_needed(
    writer: CheckpointWriter, model: MTSAC, tmp_path: Path
):
    files = sorted(replay_folder(tmp_path).iterdir())
    assert [len(load_file(path)["rewards"]) for path in files] == [STEPS, STEPS]
    before = files[1].stat().st_mtime_ns
    for _ in range(3):
        go_on(model)
        save(writer, model)
    assert [folder.name for folder in folders(tmp_path)] == ["480", "600"]
    # The ring holds 100 steps: at 480 transitions 60 to 160, at 600 transitions 100 to 200.
    files = sorted(replay_folder(tmp_path).iterdir())
    assert [path.name[:12] for path in files] == ["000000000040", "000000000080", "000000000120", "000000000160"]
    assert files[0].stat().st_mtime_ns == before
    assert sum(path.stat().st_size for path in files) < 4 * (STEPS * BYTES_OF_A_STEP + 600)


def test_replay_comes_back_to_its_slots(writer: CheckpointWriter, model: MTSAC, tmp_path: Path):
    go_on(model)
    save(writer, model)
    checkpoint = newest(tmp_path)
    assert checkpoint is not None
    replay = model.replay_buffer
    expected, cursor = [column.clone() for column in replay.storage], (replay.pos, replay.full, replay.added)
    assert cursor == (20, True, 120)
    for column in replay.storage:
        column.fill_(torch.nan)
    load_replay(tmp_path, checkpoint.manifest, replay)
    assert all(torch.equal(*pair) for pair in zip(replay.storage, expected, strict=True))
    assert (replay.pos, replay.full, replay.added) == cursor


def test_many_at_once_are_forgotten_in_parts(model: MTSAC, told: list[str], tmp_path: Path, monkeypatch):
    """After a full ring was saved at once, what lies on the disk stays near what the ring holds."""
    monkeypatch.setattr(checkpoint_writer, "SMALL", 0)  # the ring of 100 steps is saved in files of 7
    writer = CheckpointWriter(tmp_path, 1, told.append)
    go_on(model, 100)
    save(writer, model)
    files = sorted(replay_folder(tmp_path).iterdir())
    assert [path.name[:12] for path in files] == [f"{step:012}" for step in range(40, 140, 7)]
    for _ in range(3):
        go_on(model, 10)
        save(writer, model)
    lengths = [len(load_file(path)["rewards"]) for path in replay_folder(tmp_path).iterdir()]
    assert 100 <= sum(lengths) < 100 + 7
    checkpoint = newest(tmp_path)
    assert checkpoint is not None
    replay = model.replay_buffer
    expected = [column.clone() for column in replay.storage]
    for column in replay.storage:
        column.fill_(torch.nan)
    load_replay(tmp_path, checkpoint.manifest, replay)
    assert all(torch.equal(*pair) for pair in zip(replay.storage, expected, strict=True))


def check_that_training_survives(writer: CheckpointWriter, model: MTSAC, told: list[str], folder: Path) -> None:
    """Told loudly; the one before stays good; nothing half-written is left."""
    go_on(model)
    save(writer, model)
    assert len(told) == 1
    assert "CHECKPOINT NOT WRITTEN at 360" in told[0]
    assert "Training goes on; the newest is" in told[0]
    assert found(folder) == (240, ())
    assert not [path for path in folder.rglob("*") if "partial" in path.name]


def check_that_the_next_one_holds_all(writer: CheckpointWriter, model: MTSAC, folder: Path) -> None:
    go_on(model)
    save(writer, model)
    assert found(folder) == (480, ())
    checkpoint = newest(folder)
    assert checkpoint is not None
    assert [(one.first, one.last) for one in checkpoint.manifest.segments] == [(40, 80), (80, 160)]


def test_a_file_size_limit(writer: CheckpointWriter, model: MTSAC, told: list[str], tmp_path: Path):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (3000, limits[1]))
    try:
        check_that_training_survives(writer, model, told, tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    check_that_the_next_one_holds_all(writer, model, tmp_path)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "disk", 1024) as folder:
        yield folder


def test_a_full_disk_and_one_that_is_read_only(disk: Path, model: MTSAC, told: list[str]):
    writer = CheckpointWriter(disk, 2, told.append)
    save(writer, model)
    go_on(model)
    save(writer, model)
    filler = fill(disk)
    check_that_training_survives(writer, model, told, disk)
    assert "No space left" in told[0]
    filler.unlink()
    check_that_the_next_one_holds_all(writer, model, disk)
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    go_on(model)
    save(writer, model)
    assert "Read-only file system" in told[1]
    assert found(disk) == (480, ())


def test_a_state_that_cannot_be_stored_is_named(tmp_path: Path, model: MTSAC, told: list[str]):
    writer = CheckpointWriter(tmp_path, 1, told.append)
    for bad in ({1}, {(1, 2): 3}, np.array(["a"])):
        writer.save(model, {"callbacks": {"Mine": [bad]}}, {})
        problem = f"training.callbacks.Mine.0={bad!r} cannot be stored, a {type(bad).__name__}: "
        assert f"NOT WRITTEN at 120 transitions: {problem}" in told.pop()
    save(writer, model)
    assert (writer.failure, writer.last_step) == (None, 120)
