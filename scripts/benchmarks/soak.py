"""Whether a long training keeps its memory, its open files and its processes."""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import psutil
from stable_baselines3.common.callbacks import BaseCallback, CallbackList

from mtrl_transfer.agents.runs.callbacks import CheckpointEvery
from mtrl_transfer.agents.runs.config.schema import RunConfig
from mtrl_transfer.agents.runs.session import open_session

WARM_UP = 0.25
"""Part of the time after which memory counts: before, allocators grow."""


class Sample(NamedTuple):
    """One look at this process: seconds since the first, resident megabytes, its open files and its children."""

    seconds: float
    megabytes: float
    files: int
    children: int


class Soaked(NamedTuple):
    """What a soak found.

    ``slope`` is that of a line through memory after warm-up, in MB an hour; ``begin`` is the first sample after
    warm-up, ``end`` the last.
    """

    transitions: int
    slope: float
    begin: Sample
    end: Sample


class Watch(BaseCallback):
    """Looks at this process once in ``every`` seconds, and ends training after ``seconds``."""

    def __init__(self, seconds: float, every: float) -> None:
        super().__init__()
        self.samples: list[Sample] = []
        self._seconds, self._every = seconds, every
        self._process, self._start = psutil.Process(), time.perf_counter()

    def _on_step(self) -> bool:
        now = time.perf_counter() - self._start
        if not self.samples or now >= self.samples[-1].seconds + self._every or now >= self._seconds:
            self.samples.append(self._sample(now))
        return now < self._seconds

    def _sample(self, now: float) -> Sample:
        memory, children = self._process.memory_info().rss / 1e6, self._process.children(recursive=True)
        return Sample(now, memory, self._process.num_fds(), len(children))


def soak(config: RunConfig, seconds: float) -> Soaked:
    """Train for ``seconds`` as a run does, with its evaluations, log files and checkpoints, in a temporary folder.

    Args:
        config: what to train; its ``run_dir``, ``total_timesteps`` and ``log.progress`` count for nothing.
        seconds: how long.
    """
    with tempfile.TemporaryDirectory() as folder:
        config = config.model_copy(update={"run_dir": str(Path(folder) / "run"), "total_timesteps": sys.maxsize})
        session = open_session(config, None)
        for column in session.model.replay_buffer.storage:
            column.fill_(0.0)  # zeros take no memory until they are written: it is to be there from the start
        watch = Watch(seconds, every=seconds / 200)
        callbacks: list[BaseCallback] = [*session.callbacks, watch]
        if config.checkpoint.every is not None:
            callbacks.append(CheckpointEvery(config.checkpoint.every, session.save))
        try:
            session.model.learn(sys.maxsize, CallbackList(callbacks), sys.maxsize)
        finally:
            session.close()
        return judge(watch.samples, session.model.num_timesteps)


def judge(samples: list[Sample], transitions: int) -> Soaked:
    """The slope of memory after warm-up, and what there was at begin and end."""
    counted = [sample for sample in samples if sample.seconds >= WARM_UP * samples[-1].seconds]
    hours, megabytes = np.array([(sample.seconds / 3600, sample.megabytes) for sample in counted]).T
    slope = float(np.polyfit(hours, megabytes, 1)[0])
    return Soaked(transitions, slope, counted[0], counted[-1])
