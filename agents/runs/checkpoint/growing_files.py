"""The files of a run that only grow: metrics, records and TensorBoard's events.

A checkpoint notes their sizes. Continuing from it cuts them back to that: what was written after the checkpoint is
going to be written again, and is to be there once.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from mtrl_transfer.agents.runs.logs.event_file import EVENTS
from mtrl_transfer.agents.runs.logs.metrics import METRICS_FILE
from mtrl_transfer.agents.runs.run_folder import RECORD_FILE


def sizes(folder: Path) -> dict[str, int]:
    """Name -> size in bytes, of those that there are."""
    return {path.name: path.stat().st_size for path in sorted(_there(folder))}


def cut_back(folder: Path, before: Mapping[str, int]) -> list[str]:
    """Cut them back to sizes noted earlier, and remove those that were not there.

    Returns:
        Names of files that are shorter than they were: something of them is lost.
    """
    for path in _there(folder):
        if path.name not in before:
            path.unlink()
        elif path.stat().st_size > before[path.name]:
            os.truncate(path, before[path.name])
    now = sizes(folder)
    return [name for name, size in before.items() if now.get(name, 0) < size]


def _there(folder: Path) -> list[Path]:
    return [
        path for path in folder.iterdir() if path.name in (METRICS_FILE, RECORD_FILE) or path.name.startswith(EVENTS)
    ]
