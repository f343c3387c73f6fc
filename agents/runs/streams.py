"""Standard output and error, which may be files on a full disk: a line that cannot be written is dropped."""

from __future__ import annotations

import contextlib
import sys
from typing import Any, TextIO

from rich.console import Console


class Unfailing:
    """Standard stream that drops what cannot be written.

    Args:
        name: ``stdout`` or ``stderr``.
    """

    def __init__(self, name: str) -> None:
        self._name = name

    def write(self, text: str) -> int:
        """Write, if possible. Returns the length."""
        stream = getattr(sys, self._name)
        with contextlib.suppress(OSError):
            try:
                stream.write(text)
            except UnicodeEncodeError:
                stream.write(text.encode("ascii", "replace").decode())
        return len(text)

    def flush(self) -> None:
        """Flush, if possible."""
        with contextlib.suppress(OSError):
            getattr(sys, self._name).flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(getattr(sys, self._name), name)


STDOUT: TextIO = Unfailing("stdout")  # type: ignore[assignment]
STDERR: TextIO = Unfailing("stderr")  # type: ignore[assignment]


def say(console: Console, text: str) -> None:
    """Print one line as it is: no colours, no markup, no breaks."""
    console.print(text, highlight=False, soft_wrap=True, markup=False)
