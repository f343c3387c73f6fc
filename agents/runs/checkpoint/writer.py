"""Writes checkpoints while training goes on."""

from __future__ import annotations

import copy
import io
import math
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import safetensors.torch
from torch import Tensor

from mtrl_transfer.agents import MTSAC
from mtrl_transfer.agents.runs.checkpoint.checkpoints import AGENT, CHECKPOINTS, TRAINING, folders, replay_folder
from mtrl_transfer.agents.runs.checkpoint.manifest import (
    SEGMENT_NAME,
    Damaged,
    Manifest,
    Segment,
    read_manifest,
    write_manifest,
)
from mtrl_transfer.agents.storage.agent_archive import agent_to_archive
from mtrl_transfer.agents.storage.archive import copies, flatten, write_archive
from mtrl_transfer.agents.storage.durable import Stamp, sync_file, sync_folder, write_durably

Archive = tuple[dict[str, Any], dict[str, Tensor]]
PART = 1 / 16
"""Largest share of replay's capacity in one file; a file is deleted once no checkpoint needs it."""
SMALL = 1 << 20
"""Bytes of transitions that are not worth another file."""


class _Snapshot(NamedTuple):
    """Copies of all that a checkpoint holds; training may go on."""

    step: int
    archives: dict[str, Archive]
    first: int
    rows: dict[str, Tensor]
    oldest: int
    added: int
    capacity: int
    appended: dict[str, int]


class CheckpointWriter:
    """Copies a run's state between two updates and writes it in the background, whole or not at all.

    Of replay only the steps since the last checkpoint are copied and written. After a failure, such as a full disk, the
    user gets a line, training goes on, older checkpoints stay, and the next one contains the missing steps.

    Args:
        run_folder: the run's.
        keep: how many of the newest are kept.
        tell: takes one line for the user.
        config: of the run, as JSON; written into every manifest.

    Attributes:
        failure: error of the last checkpoint; None if it was written.
        last_step: of the newest whole one, in transitions; None before the first.
    """

    def __init__(
        self, run_folder: Path, keep: int, tell: Callable[[str], None], config: dict[str, Any] | None = None
    ) -> None:
        self._run_folder, self._keep, self._tell, self._config = run_folder, keep, tell, config
        self._segments: tuple[Segment, ...] = ()
        self._thread: threading.Thread | None = None
        self.failure: str | None = None
        self.last_step: int | None = None

    def continue_from(self, manifest: Manifest) -> None:
        """Add to what the run has written already."""
        self._segments, self.last_step = manifest.segments, manifest.step

    def save(self, model: MTSAC, training: dict[str, Any], appended: dict[str, int]) -> None:
        """Begin to write a checkpoint; waits for the one before.

        Args:
            model: its agent and replay are copied.
            training: nested dicts and lists of other state of the training; copied.
            appended: name -> size of the run's files that only grow.
        """
        self.wait()
        try:
            snapshot = self._copy(model, training, appended)
        except ValueError as error:  # a state that cannot be stored
            self._note_failure(model.num_timesteps, error)
            return
        self._thread = threading.Thread(target=self._write, args=(snapshot,), name="checkpoint")
        self._thread.start()

    def wait(self) -> None:
        """Wait until what was begun is written."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _copy(self, model: MTSAC, training: dict[str, Any], appended: dict[str, int]) -> _Snapshot:
        replay = model.replay_buffer
        oldest = replay.added - replay.size()
        first = max(self._segments[-1].last if self._segments else 0, oldest)
        archives = {AGENT: agent_to_archive(model), TRAINING: flatten(training, "training")}
        archives[TRAINING] = ({"training": archives[TRAINING][0]}, archives[TRAINING][1])
        return _Snapshot(
            step=model.num_timesteps,
            archives={name: (copy.deepcopy(data), copies(tensors)) for name, (data, tensors) in archives.items()},
            first=first,
            rows=replay.rows(first, replay.added),
            oldest=oldest,
            added=replay.added,
            capacity=replay.buffer_size,
            appended=appended,
        )

    def _write(self, snapshot: _Snapshot) -> None:
        parent = self._run_folder / CHECKPOINTS
        temporary = parent / f".{snapshot.step}.partial"
        try:
            self._write_whole(snapshot, temporary, parent / str(snapshot.step))
            self.failure, self.last_step = None, snapshot.step
            self._forget_old()
        except Exception as error:
            shutil.rmtree(temporary, ignore_errors=True)
            self._note_failure(snapshot.step, error)

    def _note_failure(self, step: int, error: Exception) -> None:
        self.failure = str(error)
        kept = folders(self._run_folder) if (self._run_folder / CHECKPOINTS).is_dir() else []
        last = f"the newest is {kept[-1]}" if kept else "there is none yet"
        self._tell(f"CHECKPOINT NOT WRITTEN at {step:,} transitions: {error}. Training goes on; {last}.")

    def _write_whole(self, snapshot: _Snapshot, temporary: Path, final: Path) -> None:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        segments = self._with_new_rows(snapshot)
        files = {name: _write_archive(temporary / name, one) for name, one in snapshot.archives.items()}
        for name in snapshot.appended:
            sync_file(self._run_folder / name)
        manifest = Manifest(snapshot.step, files, segments, snapshot.added, snapshot.appended, self._config)
        write_manifest(temporary, manifest)
        shutil.rmtree(final, ignore_errors=True)
        temporary.rename(final)
        sync_folder(final.parent)
        self._segments = segments

    def _with_new_rows(self, snapshot: _Snapshot) -> tuple[Segment, ...]:
        segments = tuple(segment for segment in self._segments if segment.last > snapshot.oldest)
        if snapshot.first == snapshot.added:
            return segments
        folder = replay_folder(self._run_folder)
        folder.mkdir(exist_ok=True)
        return (*segments, *(_write_rows(folder, *part) for part in _parts(snapshot)))

    def _forget_old(self) -> None:
        """Remove checkpoints beyond ``keep``, and files of replay that none needs any more."""
        for old in folders(self._run_folder)[: -self._keep]:
            shutil.rmtree(old)
        needed = {segment.file for folder in folders(self._run_folder) for segment in _segments_of(folder)}
        for path in replay_folder(self._run_folder).glob("*.safetensors"):
            if SEGMENT_NAME.fullmatch(path.name) and path.name not in needed:
                path.unlink()


def _parts(snapshot: _Snapshot) -> Iterator[tuple[int, dict[str, Tensor]]]:
    """New rows in pieces of a size to be forgotten, each with the number of its first step."""
    size = sum(values.nbytes for values in snapshot.rows.values()) / (snapshot.added - snapshot.first)
    steps = math.ceil(max(PART * snapshot.capacity, SMALL / size))
    for start in range(0, snapshot.added - snapshot.first, steps):
        yield snapshot.first + start, {name: rows[start : start + steps] for name, rows in snapshot.rows.items()}


def _write_rows(folder: Path, first: int, rows: dict[str, Tensor]) -> Segment:
    steps = len(next(iter(rows.values())))
    name = f"{first:012}-{first + steps:012}.safetensors"
    return Segment(name, first, steps, write_durably(folder / name, safetensors.torch.save(rows)))


def _segments_of(folder: Path) -> tuple[Segment, ...]:
    try:
        return read_manifest(folder).segments
    except Damaged:
        return ()


def _write_archive(path: Path, archive: Archive) -> Stamp:
    payload = io.BytesIO()
    write_archive(payload, *archive)
    return write_durably(path, payload.getvalue())
