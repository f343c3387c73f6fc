"""Checkpoints of a run: ``checkpoints/<step>/`` with agent, replay and the run's own counters."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any, NamedTuple

from agents import MTSAC

CHECKPOINTS = "checkpoints"
AGENT = "agent.zip"
REPLAY = "replay.safetensors"
STATE = "state.json"


class Checkpoint(NamedTuple):
    """A whole checkpoint: its folder, its step in transitions and what :func:`save` was given as ``state``."""

    folder: Path
    step: int
    state: dict[str, Any]


def save(run_folder: Path, model: MTSAC, state: dict[str, Any], keep: int) -> Path:
    """Write a checkpoint and forget the oldest beyond ``keep``.

    It is written under a temporary name and then renamed, so that a folder named by a number is always whole.
    """
    step = model.num_timesteps
    final = run_folder / CHECKPOINTS / str(step)
    temporary = final.with_name(f".{step}.partial")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    model.save(temporary / AGENT)
    model.save_replay_buffer(temporary / REPLAY)
    (temporary / STATE).write_text(json.dumps({"step": step, **state}, indent=2) + "\n", encoding="utf-8")
    shutil.rmtree(final, ignore_errors=True)
    temporary.rename(final)
    for old in _folders(run_folder)[:-keep]:
        shutil.rmtree(old)
    return final


def newest(run_folder: Path) -> Checkpoint | None:
    """The newest checkpoint of a run, or None."""
    folders = _folders(run_folder)
    if not folders:
        return None
    state = json.loads((folders[-1] / STATE).read_text(encoding="utf-8"))
    return Checkpoint(folders[-1], int(folders[-1].name), state)


def _folders(run_folder: Path) -> list[Path]:
    """Whole checkpoints, oldest first."""
    parent = run_folder / CHECKPOINTS
    found = [path for path in parent.iterdir() if path.name.isdecimal()] if parent.is_dir() else []
    return sorted(found, key=lambda path: int(path.name))
