"""Callbacks that a config names by module and class."""

from __future__ import annotations

import pkgutil
import sys
from pathlib import Path

from stable_baselines3.common.callbacks import BaseCallback

from mtrl_transfer.agents.runs.config.schema import CallbackConfig, RunConfig
from mtrl_transfer.agents.runs.errors import InputError
from mtrl_transfer.agents.storage.archive import flatten


def own_callbacks(config: RunConfig) -> list[BaseCallback]:
    """Make the callbacks of a config. Modules are also looked up in the current folder.

    Raises:
        InputError: with a sentence for each that cannot be made, whatever its module or class raises, and for each
            whose state a checkpoint cannot hold.
    """
    made, problems = [], []
    for position, one in enumerate(config.callbacks):
        try:
            made.append(_make(one))
        except (Exception, SystemExit) as error:
            problems.append(f"callbacks[{position}]: {one.name}: {type(error).__name__}: {error}")
    if problems:
        raise InputError(problems)
    return made


def _make(config: CallbackConfig) -> BaseCallback:
    here = str(Path.cwd())
    sys.path.insert(0, here)
    try:
        callback = pkgutil.resolve_name(config.name)(**config.kwargs)
    finally:
        sys.path.remove(here)
    if not isinstance(callback, BaseCallback):
        raise TypeError("should be a class derived from stable_baselines3.common.callbacks.BaseCallback")
    if hasattr(callback, "load_state_dict"):
        flatten(callback.state_dict(), "state")
    return callback
