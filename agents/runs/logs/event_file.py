"""TensorBoard's event files, written so that a full disk ends nothing."""

from __future__ import annotations

import io
import itertools
import os
import socket
import time
from pathlib import Path
from typing import Any

from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.summary.writer.record_writer import RecordWriter
from torch.utils.tensorboard.writer import FileWriter, SummaryWriter

from mtrl_transfer.agents.storage.outage import Outage, Tell
from mtrl_transfer.appending import AppendingFile

EVENTS = "events.out.tfevents."
"""First part of the names of TensorBoard's files."""
WAITS = "what is logged waits in memory"


class EventFileWriter(SummaryWriter):
    """Torch's ``SummaryWriter`` on an `EventFile`.

    Args:
        folder: where the file is made.
        tell: takes a line for the user where it cannot be written.
    """

    file_writer: Any
    all_writers: Any

    def __init__(self, folder: Path, tell: Tell) -> None:
        self._tell = tell
        super().__init__(str(folder))

    def _get_file_writer(self) -> FileWriter:
        if self.file_writer is None:
            self.file_writer = _FileWriter(EventFile(Path(self.log_dir), self._tell))
            self.all_writers = {self.log_dir: self.file_writer}
        return self.file_writer


class _FileWriter(FileWriter):
    """Torch's, with another file behind it."""

    def __init__(self, events: EventFile) -> None:
        self.event_writer = events


class EventFile:
    """A file of TensorBoard's records, in place of its ``EventFileWriter``; written when flushed.

    Args:
        folder: where it is made, under the name that TensorBoard looks for.
        tell: takes a line for the user where it cannot be written; events then wait in memory.
    """

    _numbers = itertools.count()

    def __init__(self, folder: Path, tell: Tell) -> None:
        name = f"{EVENTS}{time.time():010.0f}.{socket.gethostname()}.{os.getpid()}.{next(self._numbers)}"
        self._file, self._outage = AppendingFile(folder / name), Outage(folder / name, WAITS, tell)
        self._records = io.BytesIO()
        self.add_event(Event(wall_time=time.time(), file_version="brain.Event:2"))
        self.flush()

    def get_logdir(self) -> str:
        """The folder."""
        return str(self._file.path.parent)

    def add_event(self, event: Event) -> None:
        """Keep a record until the next flush."""
        RecordWriter(self._records).write(event.SerializeToString())

    def flush(self) -> None:
        """Write what was kept."""
        piece = self._records.getvalue()
        self._records = io.BytesIO()
        with self._outage.bridged():
            self._file.append(piece)

    def close(self) -> None:
        """Write what was kept, or say that it is lost."""
        self.flush()
        self._outage.give_up(self._file.waiting)
