"""A file that grows by whole pieces, even on a full disk."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path


class AppendingFile:
    """Appends pieces to a file, each whole or not at all.

    A piece that cannot be written waits in memory and goes before the next one. The file is opened for each, so a
    file system that was away for a while is found again.

    Args:
        path: the file; created if missing.
        end: bytes of it that count, if not all; the rest is cut off before the first piece.

    Attributes:
        waiting: bytes that are not on the disk yet.
    """

    def __init__(self, path: str | os.PathLike[str], end: int | None = None) -> None:
        self.path = Path(path)
        self.waiting = b""
        self._end = end

    def append(self, piece: bytes, instead_of: int = 0) -> None:
        """Write the waiting bytes and a piece.

        Args:
            piece: the new bytes.
            instead_of: size of the last piece, if this one takes its place; 0: it is added.

        Raises:
            OSError: if they cannot be written; the file still ends with a whole piece, if it can be truncated.
        """
        if instead_of <= len(self.waiting):
            self.waiting = self.waiting[: len(self.waiting) - instead_of]
        else:
            self._end = self.path.stat().st_size - instead_of
        self.waiting += piece
        with self.path.open("ab", buffering=0) as file:
            there = os.fstat(file.fileno()).st_size
            self._end = there if self._end is None else min(self._end, there)
            if self._end < there:
                file.truncate(self._end)
            try:
                rest = memoryview(self.waiting)
                while rest:
                    rest = rest[file.write(rest) :]
            except OSError:
                with contextlib.suppress(OSError):  # then it is truncated before the next piece
                    file.truncate(self._end)
                raise
        self.waiting, self._end = b"", None
