"""Standard output and error, which may be files on a full disk: what cannot be told is no reason to stop."""

from __future__ import annotations

import contextlib
import sys
from typing import Any, TextIO


class Unfailing:
    """One of the standard streams, by name; an OSError in writing to it is passed over.

    Args:
        name: ``stdout`` or ``stderr``.
    """

    def __init__(self, name: str) -> None:
        self._name = name

    def write(self, text: str) -> int:
        """Write if that works; returns the length."""
        with contextlib.suppress(OSError):
            getattr(sys, self._name).write(text)
        return len(text)

    def flush(self) -> None:
        """Flush if that works."""
        with contextlib.suppress(OSError):
            getattr(sys, self._name).flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(getattr(sys, self._name), name)


STDOUT: TextIO = Unfailing("stdout")  # type: ignore[assignment]
STDERR: TextIO = Unfailing("stderr")  # type: ignore[assignment]
