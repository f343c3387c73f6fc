"""Runs as processes on this machine, as many at a time as there are cores for."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any

from mtrl_transfer.agents.runs.compare.one_run import run_in_process
from mtrl_transfer.agents.runs.compare.overview import Overview
from mtrl_transfer.agents.runs.compare.planned import PlannedRun, is_finished
from mtrl_transfer.agents.runs.errors import Interrupted
from mtrl_transfer.envs.vec_env import available_cores
from mtrl_transfer.envs.workers.context import process_context

POLL_SECONDS = 0.25
PROCESS_SERVER_LOST = 255
"""Exit code that multiprocessing gives for a process whose forkserver died."""

PRELOAD = ("mtrl_transfer.agents.runs.compare.preloaded",)
"""Modules that the forkserver of the runs imports."""


def run_locally(runs: Sequence[PlannedRun], workers: int | None, overview: Overview) -> dict[str, str | None]:
    """Do all runs, each in a separate process.

    A process has as many threads of torch as its run's config says, and the next run starts only when its cores are
    free.

    Args:
        runs: unfinished runs.
        workers: runs at a time; None: as many as fit the cores.
        overview: told of starts, progress and ends.

    Returns:
        label -> error, None where the run is finished.

    Raises:
        Interrupted: after Ctrl-C, once the processes have saved.
    """
    waiting, running = deque(runs), list[_Process]()
    context = process_context(PRELOAD)
    errors: dict[str, str | None] = {}
    try:
        while waiting or running:
            while waiting and _room(waiting[0], running, workers):
                running.append(_Process(waiting.popleft(), context))
                overview.started(running[-1].run.label)
            for process in [one for one in running if one.ended()]:
                running.remove(process)
                errors[process.run.label] = process.error()
                overview.ended(process.run.label, errors[process.run.label])
            overview.refresh()
            time.sleep(POLL_SECONDS)
    except KeyboardInterrupt:
        overview.say("Stopping: the runs write their checkpoints; press Ctrl-C again to stop at once.")
        raise Interrupted("Stopped. Continue with the same command: only what is missing will run.") from None
    finally:
        _stop(running)
    return errors


def _room(run: PlannedRun, running: Sequence[_Process], workers: int | None) -> bool:
    if not running:
        return True
    if workers is not None:
        return len(running) < workers
    return sum(one.run.cores for one in running) + run.cores <= available_cores()


def _stop(running: Sequence[_Process]) -> None:
    """Stop running processes: gently, or at once after a second Ctrl-C."""
    for process in running:
        process.stop()
    try:
        for process in running:
            process.wait()
    except KeyboardInterrupt:
        for process in running:
            process.kill()


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """Set one thread for libraries that read it when a run or its workers import them; torch is set by the run."""
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(dict.fromkeys(names, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


class _Process:
    """Process of a run. It stops when the other end of its pipe closes, also because this process died."""

    def __init__(self, run: PlannedRun, context: Any) -> None:
        self.run = run
        with run.log_file.open("ab") as log:  # also for a process that dies before it opens it
            self._begin = log.tell()
        theirs, self._ours = context.Pipe(duplex=False)
        with theirs, _one_thread():
            self._process = context.Process(target=run_in_process, args=(run.config_file, run.log_file, theirs))
            self._process.start()

    def ended(self) -> bool:
        if self._process.is_alive():
            return False
        self.stop()  # no more than closing the pipe
        return True

    def error(self) -> str | None:
        """One line about a process that ended without finishing its run; None if it finished."""
        code = self._process.exitcode
        assert code is not None
        if code == 0 and is_finished(self.run):
            return None
        if code < 0:
            return f"killed by {signal.Signals(-code).name}"
        if code == PROCESS_SERVER_LOST:
            return "lost the process that it was forked from; the same command continues it"
        if code > 128:  # after SIGINT or SIGTERM, as a shell counts
            return "interrupted"
        return self._last_line() or f"ended with exit code {code}"

    def _last_line(self) -> str:
        with self.run.log_file.open("rb") as log:
            log.seek(self._begin)
            lines = log.read().decode(errors="replace").split("\n")
        return next((line.strip() for line in reversed(lines) if line.strip()), "")

    def stop(self) -> None:
        self._ours.close()

    def wait(self) -> None:
        self._process.join()

    def kill(self) -> None:
        self._process.kill()
