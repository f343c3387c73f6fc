"""Whole runs whose workers are stopped, and which are asked to end: real processes and signals."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from short_runs import Run

ROOT = Path(__file__).parents[3]
PATIENCE = 120.0
SMALL = (
    "mt10_quick",
    "env.id=[reach-v3,drawer-close-v3,window-open-v3]",
    "env.n_procs=2",
    "env.n_goals=2",
    "agent.learning_starts=60",
    "agent.policy_kwargs.net_arch=[8]",
    "agent.batch_size=24",
    "agent.buffer_size=20000",
    "evaluation.n_goals=1",
    "evaluation.final_n_goals=2",
    "evaluation.every=6000",
    "checkpoint.every=1500",
    "log.every=300",
    "log.record_every=null",
    "log.figures_every=null",
    "log.progress=false",
)


class Training:
    """A run of ``scripts/train.py`` in a process."""

    def __init__(self, folder: Path, *overrides: str) -> None:
        keys = [override.partition("=")[0] for override in overrides]
        kept = [line for line in SMALL if line.partition("=")[0] not in keys]
        self.folder, line = folder, [*kept, f"run_dir={folder}", *overrides]
        self.process = subprocess.Popen(
            [sys.executable, ROOT / "scripts" / "train.py", *line], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL
        )

    def step(self) -> int:
        """The last step that was logged."""
        if not (self.folder / "metrics.jsonl").exists() or not (metrics := Run(self.folder).metrics):
            return 0
        return metrics[-1]["step"]

    def workers(self) -> list[psutil.Process]:
        """The forkserver's children."""
        children = psutil.Process(self.process.pid).children()
        return [worker for child in children for worker in child.children()]

    def stop_workers(self) -> None:
        for worker in self.workers():
            worker.suspend()

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def wait_until(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + PATIENCE
        while not condition():
            assert self.process.poll() is None, "it has ended"
            assert time.monotonic() < deadline, "nothing happens"
            time.sleep(0.05)

    def wait_for_step(self, step: int) -> None:
        self.wait_until(lambda: self.step() >= step)

    def end(self) -> tuple[int, str]:
        """The exit code, and what was printed on standard error; no process is left then."""
        children = psutil.Process(self.process.pid).children(recursive=True)
        _, errors = self.process.communicate(timeout=PATIENCE)
        _, alive = psutil.wait_procs(children, timeout=5)
        assert not [child for child in alive if child.status() != psutil.STATUS_ZOMBIE]
        return self.process.returncode, errors.decode()


@contextlib.contextmanager
def training(folder: Path, *overrides: str) -> Iterator[Training]:
    run = Training(folder, *overrides)
    try:
        yield run
    finally:
        if run.process.poll() is None:
            for child in psutil.Process(run.process.pid).children(recursive=True):
                child.kill()
            run.process.kill()


@pytest.mark.slow
def test_stopped_workers_are_replaced_in_a_run(tmp_path: Path):
    with training(tmp_path / "a", "total_timesteps=300000", "env.worker_timeout=3") as run:
        run.wait_for_step(600)
        for _ in range(2):
            run.stop_workers()
            run.wait_for_step(run.step() + 600)
        run.stop_workers()
        run.signal(signal.SIGTERM)
        code, errors = run.end()
    assert code == 128 + signal.SIGTERM
    assert errors.count("another one is started") >= 2
    assert "resume=true" in errors


@pytest.mark.slow
def test_a_second_signal_ends_endless_waiting(tmp_path: Path):
    with training(tmp_path / "a", "total_timesteps=300000", "env.worker_timeout=null") as run:
        run.wait_for_step(600)
        run.stop_workers()
        run.signal(signal.SIGTERM)
        time.sleep(1.0)
        assert run.process.poll() is None
        run.signal(signal.SIGTERM)
        assert run.end()[0] == 128 + signal.SIGTERM


@pytest.mark.slow
def test_all_processes_get_a_signal_in_evaluation(tmp_path: Path):
    """As a cluster's scheduler sends it."""
    budget = ["total_timesteps=900", "evaluation.final_n_goals=40", "env.n_goals=40"]
    with training(tmp_path / "a", *budget) as run:
        run.wait_until((run.folder / "agent.zip").exists)
        time.sleep(1.0)
        for worker in run.workers():
            os.kill(worker.pid, signal.SIGTERM)
        run.signal(signal.SIGTERM)
        code, errors = run.end()
    assert code == 128 + signal.SIGTERM
    assert "Stopped at 900 transitions" in errors
    assert "resume=true" in errors
    assert Run(run.folder).checkpoints == ["900", "replay"]
