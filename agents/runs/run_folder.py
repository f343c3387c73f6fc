"""The run folder: its place and name, and the files that lie directly in it."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from mtrl_transfer.agents.runs.config.loading import load_config, to_yaml
from mtrl_transfer.agents.runs.config.schema import RunConfig
from mtrl_transfer.agents.runs.config.yaml_files import parse_overrides
from mtrl_transfer.agents.runs.errors import InputError
from mtrl_transfer.agents.storage.durable import write_durably

RUNS = Path("runs")
CONFIG_FILE = "config.yaml"
PROTOCOL_FILE = "protocol.json"
AGENT_FILE = "agent.zip"
EVALUATION_FILE = "evaluation.json"
RECORD_FILE = "transference.records"

MAY_CHANGE = (
    "run_dir",
    "resume",
    "total_timesteps",
    "threads",
    "env.n_procs",
    "env.worker_timeout",
    "agent.device",
    "checkpoint",
    "log",
)
"""Keys and sections that may differ when a run is continued: none of them changes what is learned, but for the last
bits on another device."""


def load_run(argument: str, overrides: Sequence[str]) -> RunConfig:
    """As :func:`~mtrl_transfer.agents.runs.config.loading.load_config`, for training.

    Raises:
        InputError: also where a copied or moved run's own config would continue the run that it names, another one.
    """
    config = load_config(argument, overrides)
    path, given = Path(argument), parse_overrides(overrides)[0]
    of_a_run = path.name == CONFIG_FILE and path.is_file() and (path.parent / PROTOCOL_FILE).is_file()
    if not (config.resume and of_a_run) or config.run_dir is None or "run_dir" in given:
        return config
    if Path(config.run_dir).resolve() == path.parent.resolve():
        return config
    raise InputError(
        f"{path} says run_dir={config.run_dir}, another folder than its own, as in a copied or moved run; to continue "
        f"the run here, add run_dir={path.parent}"
    )


def check_run_dir(config: RunConfig) -> None:
    """Refuse to write over a run, or to continue what is none.

    Raises:
        InputError: if ``run_dir`` does not fit ``resume``, or holds a run with another config.
    """
    if config.run_dir is None:
        if config.resume:
            raise InputError("resume=true needs run_dir=, the folder of the run to continue")
        return
    folder = Path(config.run_dir)
    if problems := folder_problems("run_dir", folder):
        raise InputError(problems)
    if config.resume:
        _check_same_run(config, folder)
    elif folder.is_dir() and any(folder.iterdir()):
        raise InputError(f"run_dir={config.run_dir} is not empty; choose another, or continue its run with resume=true")


def folder_problems(key: str, folder: Path) -> list[str]:
    """Why a folder, given as ``key``, can be neither made nor written to."""
    there = next(path for path in (folder, *folder.resolve().parents) if path.exists())
    if not there.is_dir():
        return [f"{key}={folder}: {there} is a file, expected a folder"]
    if not os.access(there, os.W_OK | os.X_OK):
        return [f"{key}={folder}: {there} cannot be written to"]
    return []


def lock_of(folder: Path) -> FileLock:
    """Held by the process that trains in the folder. One object per folder: who holds it may take it again."""
    whole = folder.resolve()
    return FileLock(whole.with_name(f".{whole.name}.lock"), is_singleton=True)


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Train in the folder alone.

    Raises:
        InputError: if another process trains in it, or if it cannot be locked.
    """
    lock = lock_of(folder)
    try:
        folder.resolve().parent.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout:
        raise InputError(f"{folder} is being trained by another process") from None
    except OSError as error:
        raise InputError(f"{folder} cannot be locked: {error}") from None
    try:
        yield
    finally:
        lock.release()


def create(config: RunConfig, protocol: Mapping[str, Any]) -> Path:
    """Make the folder of a new run, with its config and protocol card.

    Returns:
        ``run_dir``, or ``runs/<date-time>_<name>_s<seed>`` (numbered where that exists already).

    Raises:
        InputError: if it cannot be written.
    """
    try:
        folder = Path(config.run_dir) if config.run_dir is not None else _new_folder(config)
        folder.mkdir(parents=True, exist_ok=True)
        _keep_config(config, folder)
        write_text(folder / PROTOCOL_FILE, to_json(protocol))
    except OSError as error:
        raise InputError(f"the run folder cannot be written: {error}") from None
    return folder


def reopen(config: RunConfig) -> Path:
    """The folder of a run that is continued; its config is kept as it is from now on."""
    assert config.run_dir is not None
    try:
        _keep_config(config, Path(config.run_dir))
    except OSError as error:
        raise InputError(f"the run folder cannot be written: {error}") from None
    return Path(config.run_dir)


def write_text(path: Path, text: str) -> None:
    """Write whole or not at all."""
    write_durably(path, text.encode())


def to_json(content: Mapping[str, Any]) -> str:
    """JSON for people and programs."""
    return json.dumps(content, indent=2) + "\n"


def _keep_config(config: RunConfig, folder: Path) -> None:
    """As it can be given again: with the folder, and without the order to resume."""
    write_text(folder / CONFIG_FILE, to_yaml(config.model_copy(update={"run_dir": str(folder), "resume": False})))


def _new_folder(config: RunConfig) -> Path:
    name = f"{datetime.now():%Y%m%d-%H%M%S}_{config.name}_s{config.seed}"
    RUNS.mkdir(exist_ok=True)
    for number in range(1, 1000):
        folder = RUNS / (name if number == 1 else f"{name}_{number}")
        try:
            folder.mkdir()
        except FileExistsError:  # another run began in the same second
            continue
        return folder
    raise InputError(f"{RUNS / name} and a thousand more exist")


def _check_same_run(config: RunConfig, folder: Path) -> None:
    stored = folder / CONFIG_FILE
    if not stored.is_file():
        raise InputError(f"run_dir={config.run_dir} holds no run to resume: {CONFIG_FILE} is missing")
    changed = changed_keys(config, folder)
    if changed:
        raise InputError([f"cannot resume {folder} with another config; its own is {stored}", *changed])


def changed_keys(config: RunConfig, folder: Path) -> list[str]:
    """What a config would change about the run that lies in a folder, one phrase per key; see :data:`MAY_CHANGE`."""
    before, now = flat(load_config(str(folder / CONFIG_FILE))), flat(config)
    return [
        f"{key} was {before.get(key)!r}, is {now.get(key)!r}"
        for key in sorted(before.keys() | now.keys())
        if before.get(key) != now.get(key) and not f"{key}.".startswith(tuple(f"{free}." for free in MAY_CHANGE))
    ]


def flat(config: RunConfig) -> dict[str, Any]:
    """Dotted key -> value."""
    leaves: dict[str, Any] = {}
    pending = [("", config.model_dump(mode="json"))]
    while pending:
        prefix, tree = pending.pop()
        for key, value in tree.items():
            if isinstance(value, dict):
                pending.append((f"{prefix}{key}.", value))
            else:
                leaves[prefix + key] = value
    return leaves
