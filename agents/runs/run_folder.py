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
from pydantic import ValidationError

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
BEST_FILE = "best_model.zip"

HARMLESS = (
    "run_dir",
    "resume",
    "threads",
    "env.n_procs",
    "env.worker_timeout",
    "agent.device",
    "checkpoint",
    "log",
    "measure",
)
"""Keys and sections that change nothing of what is learned from given data, except the last bits."""
MAY_CHANGE = (*HARMLESS, "total_timesteps", "evaluation.every")
"""Keys and sections that may differ when a run is continued. All others are refused by name."""


def load_run(argument: str, overrides: Sequence[str]) -> RunConfig:
    """Load the config of a training run; see `load_config`.

    Raises:
        InputError: also where the config of the run to resume is missing, and where a copied or moved run's config
            names another folder than its own.
    """
    path, given = Path(argument), parse_overrides(overrides)[0]
    folder = Path(str(given.get("run_dir", path.parent)))
    if given.get("resume") is True and (path.name == CONFIG_FILE or "run_dir" in given) and folder.is_dir():
        check_is_run(folder)
    config = load_config(argument, overrides)
    of_a_run = path.name == CONFIG_FILE and path.is_file() and (path.parent / PROTOCOL_FILE).is_file()
    if not (config.resume and of_a_run) or config.run_dir is None or "run_dir" in given:
        return config
    if Path(config.run_dir).resolve() == path.parent.resolve():
        return config
    raise InputError(
        f"{path} says run_dir={config.run_dir}, another folder than its own, as in a copied or moved run; to continue "
        f"the run here, add run_dir={path.parent}"
    )


def check_is_run(folder: Path) -> None:
    """Refuse to resume what holds no run.

    Raises:
        InputError: if its config is missing.
    """
    if not (folder / CONFIG_FILE).is_file():
        raise InputError(f"cannot resume {folder}: {CONFIG_FILE} is missing in it")


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
        check_is_run(folder)
    elif folder.is_dir() and any(path.suffix != ".partial" for path in folder.iterdir()):
        raise InputError(f"run_dir={config.run_dir} is not empty; choose another, or continue its run with resume=true")


def folder_problems(key: str, folder: Path) -> list[str]:
    """Problems of a folder, given as ``key``, that can be neither made nor written to."""
    there = next(path for path in (folder, *folder.resolve().parents) if path.exists())
    if not there.is_dir():
        return [f"{key}={folder}: {there} is a file, expected a folder"]
    if not os.access(there, os.W_OK | os.X_OK):
        return [f"{key}={folder}: {there} cannot be written to"]
    return []


def lock_of(folder: Path) -> FileLock:
    """Lock of the process that trains in a folder. One object per folder, so its holder may take it again."""
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
    """Make the folder of a run, if it is new, and write its config and protocol card.

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


def write_text(path: Path, text: str) -> None:
    """Write a text file, whole or not at all."""
    write_durably(path, text.encode())


def to_json(content: Mapping[str, Any]) -> str:
    """Format as indented JSON."""
    return json.dumps(content, indent=2) + "\n"


def _keep_config(config: RunConfig, folder: Path) -> None:
    """Write the config so that it can be given again: with its folder, without ``resume``."""
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


def check_same_run(config: RunConfig, folder: Path, trained: Mapping[str, Any] | None) -> None:
    """Refuse to continue a run with keys that may not change; see `MAY_CHANGE`.

    Args:
        config: to continue with.
        folder: the run's.
        trained: its config as in its checkpoint; None: as in its ``config.yaml``.

    Raises:
        InputError: naming each such key, its old and its new value.
    """
    try:
        before = load_config(str(folder / CONFIG_FILE)) if trained is None else RunConfig.model_validate(trained)
    except ValidationError as error:
        raise InputError(f"cannot resume {folder}: its checkpoint has a config of another version") from error
    changed = changed_keys(before, config, MAY_CHANGE)
    if changed:
        raise InputError([f"cannot resume {folder} with other values of", *changed])


def changed_keys(before: RunConfig, now: RunConfig, free: Sequence[str]) -> list[str]:
    """Phrases ``key was old, is new`` for keys that differ; ``free`` lists keys and sections that may."""
    old, new = flat(before), flat(now)
    return [
        f"{key} was {old.get(key)!r}, is {new.get(key)!r}"
        for key in sorted(old.keys() | new.keys())
        if old.get(key) != new.get(key) and not f"{key}.".startswith(tuple(f"{one}." for one in free))
    ]


def flat(config: RunConfig) -> dict[str, Any]:
    """Map each dotted key of a config to its value."""
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
