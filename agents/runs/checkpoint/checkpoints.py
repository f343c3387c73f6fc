"""Checkpoints of a run, as a reader finds them.

``checkpoints/<step>/`` holds the agent (``agent.zip``, what ``MTSAC.load`` opens), other state of the training
(``training.zip``) and a manifest with hashes. Replay lies beside in ``checkpoints/replay/``, in files that several
checkpoints share: each save adds what is new. A folder named by a number is always whole, for it is renamed last.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import NamedTuple

from safetensors import SafetensorError
from safetensors.torch import load_file

from mtrl_transfer.agents.mtsac.buffers import MultiTaskReplayBuffer
from mtrl_transfer.agents.runs.checkpoint.manifest import Damaged, Manifest, check_files, read_manifest
from mtrl_transfer.agents.runs.errors import InputError

CHECKPOINTS = "checkpoints"
REPLAY = "replay"
AGENT = "agent.zip"
TRAINING = "training.zip"
_STEP = re.compile(r"0|[1-9][0-9]{0,14}")


class Checkpoint(NamedTuple):
    """A whole checkpoint.

    - `folder`: its own.
    - `manifest`: what it consists of.
    - `damaged`: newer ones that are not whole, and why, one sentence each.
    """

    folder: Path
    manifest: Manifest
    damaged: tuple[str, ...] = ()

    @property
    def step(self) -> int:
        """Transitions at the checkpoint."""
        return self.manifest.step


def newest(run_folder: Path) -> Checkpoint | None:
    """The newest whole checkpoint of a run, every hash compared; None where a run has none at all.

    Raises:
        InputError: if there are checkpoints, and all are damaged.
    """
    damaged: list[str] = []
    for folder in reversed(folders(run_folder)):
        try:
            manifest = read_manifest(folder)
            check_files(manifest, folder, replay_folder(run_folder))
        except Damaged as error:
            damaged.append(f"checkpoint {folder} is damaged: {error}")
            continue
        return Checkpoint(folder, manifest, tuple(damaged))
    if damaged:
        raise InputError([*damaged, f"no whole checkpoint is left in {run_folder}; start anew in another folder"])
    return None


def folders(run_folder: Path) -> list[Path]:
    """Folders of checkpoints, oldest first."""
    parent = run_folder / CHECKPOINTS
    there = parent.iterdir() if parent.is_dir() else ()
    return sorted((path for path in there if _STEP.fullmatch(path.name) and path.is_dir()), key=lambda p: int(p.name))


def replay_folder(run_folder: Path) -> Path:
    """Folder of the files of replay."""
    return run_folder / CHECKPOINTS / REPLAY


def set_aside_newer(run_folder: Path, checkpoint: Checkpoint) -> None:
    """Rename folders of newer checkpoints, all of them damaged, to ``<step>.damaged``."""
    for folder in folders(run_folder):
        if int(folder.name) > checkpoint.step:
            place, number = folder.with_name(f"{folder.name}.damaged"), 1
            while place.exists():
                number += 1
                place = folder.with_name(f"{folder.name}.damaged{number}")
            folder.rename(place)


def clear_partial(run_folder: Path) -> None:
    """Remove half-written checkpoints of a run that was killed before its first whole one."""
    for folder in (run_folder / CHECKPOINTS).glob(".*.partial"):
        shutil.rmtree(folder)


def load_replay(run_folder: Path, manifest: Manifest, replay: MultiTaskReplayBuffer) -> None:
    """Fill a replay buffer as it was.

    Raises:
        InputError: if the files do not hold this replay.
    """
    try:
        for segment in manifest.segments:
            rows = load_file(replay_folder(run_folder) / segment.file)
            if any(len(values) != segment.steps for values in rows.values()):
                raise ValueError(f"{segment.file} does not hold {segment.steps} steps")
            first = max(manifest.added - replay.buffer_size, segment.first)
            replay.put_rows(first, {name: values[first - segment.first :] for name, values in rows.items()})
    except (SafetensorError, ValueError, RuntimeError) as error:
        raise InputError(f"replay of {run_folder} cannot be continued: {error}") from None
    replay.place_cursor(manifest.added)
