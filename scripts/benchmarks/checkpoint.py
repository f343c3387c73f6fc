"""Benchmark of checkpoints: how long training waits for a save, and the space on disk."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from rich.console import Console

from mtrl_transfer.agents import MTSAC
from mtrl_transfer.agents.declarations import Count, Section
from mtrl_transfer.agents.runs.checkpoint.writer import CheckpointWriter
from mtrl_transfer.agents.runs.config.loading import section
from mtrl_transfer.agents.runs.errors import InputError
from mtrl_transfer.agents.storage.training_state import training_state
from mtrl_transfer.envs import make_vec_env

WIDTH, ACTIONS = 39, 4
"""Numbers of a Meta-World observation and action."""


class Options(Section):
    """Options of the benchmark of checkpoints."""

    tasks: Count = 10
    """Tasks of Meta-World's sizes."""
    transitions: Count = 1_000_000
    """Transitions that replay holds."""
    every: Count = 100_000
    """Transitions between saves."""
    rounds: Count = 3
    """Saves of new transitions."""
    folder: str = "."
    """A folder on the disk to measure; all that is written there is removed."""


def run(overrides: Sequence[str], console: Console) -> None:
    """Save a full replay at once, then several times what was added; print times and sizes."""
    options = section(Options, overrides)
    if not Path(options.folder).is_dir():
        raise InputError(f"folder={options.folder!r} is no folder")
    if options.transitions % options.tasks or options.every % options.tasks or options.every > options.transitions:
        raise InputError(f"transitions and every should be multiples of the {options.tasks} tasks, every the smaller")
    env = make_vec_env({f"task-{task}": partial(_Still) for task in range(options.tasks)})
    arch = {"net_arch": [400, 400, 400]}
    model = MTSAC("MultiTaskPolicy", env, combiner="mean", buffer_size=options.transitions, policy_kwargs=arch, seed=0)
    model.learn(options.tasks)
    for column in model.replay_buffer.storage:
        column.normal_()
    full = options.transitions // options.tasks
    with tempfile.TemporaryDirectory(dir=options.folder) as run_folder:
        writer = CheckpointWriter(Path(run_folder), 1, print)
        for turn in range(options.rounds + 1):
            model.replay_buffer.place_cursor(full + turn * options.every // options.tasks)
            waited, written = _save(writer, model)
            console.print(
                f"{options.every if turn else options.transitions:>10,} new transitions: training waited {waited:.2f} "
                f"s; on the disk after {written:.2f} s",
                highlight=False,
            )
        on_disk = sum(path.stat().st_size for path in Path(run_folder).rglob("*") if path.is_file())
    stored = sum(column.numel() * column.element_size() for column in model.replay_buffer.storage)
    console.print(
        f"On the disk: {on_disk / 1e6:,.0f} MB, {on_disk / stored:.2f} times the {stored / 1e6:,.0f} MB of transitions",
        highlight=False,
    )


def _save(writer: CheckpointWriter, model: MTSAC) -> tuple[float, float]:
    """Return seconds until training may go on, and until the checkpoint is on the disk."""
    model.num_timesteps = model.replay_buffer.added * model.n_tasks
    start = time.perf_counter()
    writer.save(model, {"training": training_state(model)}, {})
    waited = time.perf_counter() - start
    writer.wait()
    if writer.failure is not None:
        raise OSError(writer.failure)
    return waited, time.perf_counter() - start


class _Still(gym.Env[np.ndarray, np.ndarray]):
    """A task of Meta-World's sizes in which nothing happens."""

    observation_space = spaces.Box(-np.inf, np.inf, (WIDTH,), np.float32)
    action_space = spaces.Box(-1.0, 1.0, (ACTIONS,), np.float32)

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        return np.zeros(WIDTH, np.float32), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict]:
        return np.zeros(WIDTH, np.float32), 0.0, False, False, {}
