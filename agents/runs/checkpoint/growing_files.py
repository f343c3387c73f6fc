"""The files of a run that only grow: metrics, records and TensorBoard's events.

A checkpoint notes their sizes. Continuing from it cuts them back to these sizes, because the run writes what came after
the checkpoint a second time.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from mtrl_transfer import Recording
from mtrl_transfer.agents.runs.errors import InputError
from mtrl_transfer.agents.runs.logs.event_file import EVENTS
from mtrl_transfer.agents.runs.logs.metrics import METRICS_FILE
from mtrl_transfer.agents.runs.run_folder import RECORD_FILE


def sizes(folder: Path) -> dict[str, int]:
    """Name -> size in bytes of each of these files."""
    return {path.name: path.stat().st_size for path in sorted(_found(folder))}


def check_records(folder: Path, task_names: Sequence[str]) -> None:
    """Refuse a file of records that a run cannot append to.

    Args:
        folder: the run's.
        task_names: of the run.

    Raises:
        InputError: if the file is there and holds something else than this run's records.
    """
    path = folder / RECORD_FILE
    if not path.exists():
        return
    try:
        recording = Recording(path)
        if recording.tasks != list(task_names):
            raise ValueError(f"it is of the tasks {', '.join(recording.tasks)}")
        if (np.diff(recording.steps, prepend=0) < 0).any():
            raise ValueError("its steps are in no order")
    except (OSError, ValueError) as error:
        raise InputError(f"{path} is damaged: {error}; delete it to continue without the records so far") from None


def cut_back(folder: Path, before: Mapping[str, int]) -> list[str]:
    """Cut the files back to sizes noted earlier, and remove those that were not there.

    Returns:
        Names of files that are shorter than they were: part of their content is lost.
    """
    for path in _found(folder):
        if path.name not in before:
            path.unlink()
        elif path.stat().st_size > before[path.name]:
            os.truncate(path, before[path.name])
    now = sizes(folder)
    return [name for name, size in before.items() if now.get(name, 0) < size]


def _found(folder: Path) -> list[Path]:
    return [
        path
        for path in folder.iterdir()
        if path.is_file() and (path.name in (METRICS_FILE, RECORD_FILE) or path.name.startswith(EVENTS))
    ]
