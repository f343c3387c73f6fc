"""Soak: memory, open files and processes of a long training."""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import psutil
from pydantic import Field
from rich.console import Console
from stable_baselines3.common.callbacks import BaseCallback, CallbackList

from mtrl_transfer.agents.runs.callbacks import CheckpointEvery
from mtrl_transfer.agents.runs.config.loading import load_config, section
from mtrl_transfer.agents.runs.config.schema import Count, RunConfig, Section
from mtrl_transfer.agents.runs.session import open_session

WARM_UP = 0.25
"""Part of the time after which memory counts; before, allocators grow."""
PRESETS = {"Point-7": ("point", 14_000), "MT10": ("mt10_quick", 40_000)}
"""Preset, and transitions of replay and between checkpoints: a long run saves, and forgets."""


class Options(Section):
    """Options of a soak."""

    minutes: float = Field(60.0, gt=0)
    """Duration of training."""
    env: Literal["Point-7", "MT10"] = "Point-7"
    """The preset ``point``, or ``mt10_quick``."""
    n_procs: Count = 1
    """Processes that step environments; Point has one."""


class Sample(NamedTuple):
    """State of this process: seconds since the first sample, resident megabytes, open files, children."""

    seconds: float
    megabytes: float
    files: int
    children: int


class Watch(BaseCallback):
    """Sample this process every 200th of ``seconds``, and end training after them."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.samples: list[Sample] = []
        self._seconds = seconds
        self._process, self._start = psutil.Process(), time.perf_counter()

    def _on_step(self) -> bool:
        now, process = time.perf_counter() - self._start, self._process
        if not self.samples or now >= min(self.samples[-1].seconds + self._seconds / 200, self._seconds):
            children = len(process.children(recursive=True))
            self.samples.append(Sample(now, process.memory_info().rss / 1e6, process.num_fds(), children))
        return now < self._seconds


def run(overrides: Sequence[str], console: Console) -> None:
    """Train for some minutes and print what became of memory, open files and processes."""
    options = section(Options, overrides)
    preset, size = PRESETS[options.env]
    settings = [f"agent.buffer_size={size}", f"checkpoint.every={size}", f"env.n_procs={options.n_procs}"]
    transitions, samples = train_for(load_config(preset, settings), 60 * options.minutes)
    slope, begin, end = judge(samples)
    console.print(
        f"{options.env}: {transitions:,} transitions in {end.seconds / 60:.1f} min. After {begin.seconds:.0f} s "
        f"of warm-up memory went from {begin.megabytes:,.1f} to {end.megabytes:,.1f} MB (a line: {slope:+.1f} "
        f"MB an hour), open files from {begin.files} to {end.files}, child processes from {begin.children} to "
        f"{end.children}",
        highlight=False,
    )


def train_for(config: RunConfig, seconds: float) -> tuple[int, list[Sample]]:
    """Train as a run does, with evaluations, log files and checkpoints, in a temporary folder.

    Args:
        config: what to train; its ``run_dir``, ``total_timesteps`` and ``log.progress`` do not count.
        seconds: duration.

    Returns:
        Transitions, and samples of this process.
    """
    with tempfile.TemporaryDirectory() as folder:
        config = config.model_copy(update={"run_dir": str(Path(folder) / "run"), "total_timesteps": sys.maxsize})
        session = open_session(config, None)
        for column in session.model.replay_buffer.storage:
            column.fill_(0.0)  # zeros take no memory until they are written; it should be taken from the start
        watch = Watch(seconds)
        callbacks: list[BaseCallback] = [*session.callbacks, watch]
        if config.checkpoint.every is not None:
            callbacks.append(CheckpointEvery(config.checkpoint.every, session.save))
        try:
            session.model.learn(sys.maxsize, CallbackList(callbacks), sys.maxsize)
        finally:
            session.close()
        return session.model.num_timesteps, watch.samples


def judge(samples: list[Sample]) -> tuple[float, Sample, Sample]:
    """Return the slope of memory in MB an hour after warm-up, the first sample after it, and the last."""
    counted = [sample for sample in samples if sample.seconds >= WARM_UP * samples[-1].seconds]
    hours, megabytes = np.array([(sample.seconds / 3600, sample.megabytes) for sample in counted]).T
    return float(np.polyfit(hours, megabytes, 1)[0]), counted[0], counted[-1]
