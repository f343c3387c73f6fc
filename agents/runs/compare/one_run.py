"""One planned run in a process of its own: ``python -m agents.runs.compare.one_run CONFIG``."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import threading
from pathlib import Path

from filelock import FileLock, Timeout
from rich.console import Console

from agents.runs import checkpoints
from agents.runs.compare.planned import PlannedRun, is_finished
from agents.runs.config import load_config
from agents.runs.errors import InputError
from agents.runs.exit_codes import exit_code
from agents.runs.train import train

PATIENCE = 120.0
"""Seconds to wait for a process of an earlier engine that is still writing its last checkpoint."""


def run_or_resume(run: PlannedRun, console: Console) -> None:
    """Bring a run to its end from wherever it is: not begun, interrupted, or finished already.

    Args:
        run: to be trained.
        console: where it is told.

    Raises:
        InputError: if another process trains in the folder, or the folder holds another run.
        Interrupted: after SIGINT, once a checkpoint is written.
    """
    run.run_dir.parent.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(run.lock_file, timeout=PATIENCE):
            _run(run, console)
    except Timeout:
        raise InputError(f"{run.run_dir} is being trained by another process") from None


def _run(run: PlannedRun, console: Console) -> None:
    if is_finished(run):
        return
    config = run.resolved
    if checkpoints.newest(run.run_dir) is not None:
        config = config.model_copy(update={"resume": True})
    elif run.run_dir.is_dir():
        shutil.rmtree(run.run_dir)  # it ended before its first checkpoint: there is nothing to continue from
    train(config, console)


def stop_with_parent() -> None:
    """Stop as by Ctrl-C when standard input ends: the parent holds its other end, however it dies."""

    def watch() -> None:
        os.read(sys.stdin.fileno(), 1)  # not sys.stdin.read(): its lock would be held when this process ends
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=watch, daemon=True).start()


def main() -> int:
    """Train what the config file says. Returns the exit code, as of ``mtrl-train``."""
    stop_with_parent()
    sys.argv[0] = "mtrl-train"  # by which a stopped run could be continued by hand, as its log says
    return exit_code("run", lambda: run_or_resume(_read(sys.argv[1]), Console()))


def _read(config_file: str) -> PlannedRun:
    config = load_config(config_file)
    assert config.run_dir is not None
    return PlannedRun(Path(config.run_dir).name, config, Path(config.run_dir))


if __name__ == "__main__":  # worker processes import this file
    raise SystemExit(main())
