"""One planned run in a separate process."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NoReturn

from filelock import Timeout
from rich.console import Console

from mtrl_transfer.agents.runs.compare.planned import PlannedRun, is_finished
from mtrl_transfer.agents.runs.config.loading import load_config
from mtrl_transfer.agents.runs.errors import InputError
from mtrl_transfer.agents.runs.exit_codes import exit_code
from mtrl_transfer.agents.runs.run_folder import CONFIG_FILE, lock_of
from mtrl_transfer.agents.runs.train import train

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
        with lock_of(run.run_dir).acquire(timeout=PATIENCE):  # which `train` takes again
            _run(run, console)
    except Timeout:
        raise InputError(f"{run.run_dir} is being trained by another process") from None


def _run(run: PlannedRun, console: Console) -> None:
    if is_finished(run):
        return
    begun = (run.run_dir / CONFIG_FILE).is_file()
    train(run.resolved.model_copy(update={"resume": begun}), console)


def run_in_process(config_file: Path, log_file: Path, parent: Connection) -> NoReturn:
    """Train by a config file in a process of the local engine, and exit as ``mtrl-train`` would.

    Args:
        config_file: the resolved config of a planned run.
        log_file: takes what the run prints, after what it holds already.
        parent: a pipe; when its other end closes, the run stops as by Ctrl-C.
    """
    os.setsid()  # the terminal's Ctrl-C is the parent's to pass on
    parent = _above_the_standard_streams(parent)
    _print_into(log_file)
    threading.Thread(target=_stop_with, args=(parent,), daemon=True).start()
    sys.argv[0] = "mtrl-train"  # by which a stopped run could be continued by hand, as its log says
    sys.exit(exit_code("run", lambda: _run_config(config_file)))


def _above_the_standard_streams(connection: Connection) -> Connection:
    """The connection under another number, should a command without standard streams have left it one of theirs."""
    number = os.dup(connection.fileno())
    while number <= 2:
        number = os.dup(number)
    return Connection(number, writable=False)


def _print_into(log_file: Path) -> None:
    log = os.open(log_file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    for number in (1, 2):
        os.dup2(log, number)
    if log > 2:
        os.close(log)
    # A command without standard streams has None for them.
    sys.stdout = sys.stdout or os.fdopen(1, "w", encoding="utf-8", closefd=False)
    sys.stderr = sys.stderr or os.fdopen(2, "w", encoding="utf-8", closefd=False)


def _stop_with(parent: Connection) -> None:
    with contextlib.suppress(EOFError):
        parent.recv()
    os.kill(os.getpid(), signal.SIGINT)


def _run_config(config_file: Path) -> None:
    config = load_config(str(config_file))
    assert config.run_dir is not None
    run_or_resume(PlannedRun(Path(config.run_dir).name, config, Path(config.run_dir)), Console())
