"""How long a checkpoint holds training up, and how much of the disk it takes."""

from __future__ import annotations

import tempfile
import time
from functools import partial
from pathlib import Path
from typing import NamedTuple

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from mtrl_transfer.agents import MTSAC
from mtrl_transfer.agents.runs.checkpoint.writer import CheckpointWriter
from mtrl_transfer.agents.storage.training_state import training_state
from mtrl_transfer.envs import make_vec_env

WIDTH, ACTIONS = 39, 4
"""Numbers of a Meta-World observation and action."""


class Saved(NamedTuple):
    """One save: transitions that were new, seconds that training waited, seconds until it was on the disk."""

    new: int
    stall_seconds: float
    written_seconds: float


class Result(NamedTuple):
    """Saves in turn, and bytes: of all checkpoints on the disk, and of the transitions themselves."""

    saves: list[Saved]
    bytes_on_disk: int
    bytes_of_transitions: int


def benchmark_checkpoint(n_tasks: int, transitions: int, every: int, rounds: int, folder: Path) -> Result:
    """Save a full replay at once, then what ``every`` transitions add, ``rounds`` times.

    Args:
        n_tasks: tasks of Meta-World's sizes.
        transitions: replay's capacity.
        every: transitions between saves.
        rounds: saves of new transitions.
        folder: where a temporary run folder is made; its disk is what is measured.
    """
    env = make_vec_env({f"task-{task}": partial(_Still) for task in range(n_tasks)})
    arch = {"net_arch": [400, 400, 400]}
    model = MTSAC("MultiTaskPolicy", env, combiner="mean", buffer_size=transitions, policy_kwargs=arch, seed=0)
    model.learn(n_tasks)
    replay = model.replay_buffer
    for column in replay.storage:
        column.normal_()
    replay.place_cursor(transitions // n_tasks)
    with tempfile.TemporaryDirectory(dir=folder) as run_folder:
        writer = CheckpointWriter(Path(run_folder), 1, print)
        saves = [_save(writer, model, transitions)]
        for _ in range(rounds):
            replay.place_cursor(replay.added + every // n_tasks)
            saves.append(_save(writer, model, every))
        on_disk = sum(path.stat().st_size for path in Path(run_folder).rglob("*") if path.is_file())
    stored = sum(column.numel() * column.element_size() for column in replay.storage)
    return Result(saves, on_disk, stored)


def _save(writer: CheckpointWriter, model: MTSAC, new: int) -> Saved:
    model.num_timesteps = model.replay_buffer.added * model.n_tasks
    start = time.perf_counter()
    writer.save(model, {"training": training_state(model)}, {})
    stalled = time.perf_counter() - start
    writer.wait()
    if writer.failure is not None:
        raise OSError(writer.failure)
    return Saved(new, stalled, time.perf_counter() - start)


class _Still(gym.Env[np.ndarray, np.ndarray]):
    """A task of Meta-World's sizes in which nothing happens."""

    observation_space = spaces.Box(-np.inf, np.inf, (WIDTH,), np.float32)
    action_space = spaces.Box(-1.0, 1.0, (ACTIONS,), np.float32)

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        return np.zeros(WIDTH, np.float32), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict]:
        return np.zeros(WIDTH, np.float32), 0.0, False, False, {}
