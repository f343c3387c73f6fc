"""Writes that may fail: a failure is told in one line and does not stop the run."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Tell = Callable[[str], object]
"""Takes one line for the user."""


class Outage:
    """Keeps failures of the disk from training: tells when they begin and when they are over.

    Args:
        what: what is being written, as the line begins.
        meanwhile: what becomes of it.
        tell: function that shows a line to the user.
    """

    def __init__(self, what: object, meanwhile: str, tell: Tell = warnings.warn) -> None:
        self._what, self._meanwhile, self._tell = what, meanwhile, tell
        self.lasts = False

    @contextmanager
    def bridged(self) -> Iterator[None]:
        """Context of an attempt to write: an OSError ends it, and goes no further."""
        try:
            yield
        except OSError as error:
            if not self.lasts:
                self._tell(f"{self._what} CANNOT BE WRITTEN: {error}. Training goes on; {self._meanwhile}.")
            self.lasts = True
        else:
            if self.lasts:
                self._tell(f"{self._what} is written again.")
            self.lasts = False

    def give_up(self, lost: bytes) -> None:
        """Tell at the end if something was never written."""
        if lost:
            self._tell(f"{self._what} IS INCOMPLETE: the last {len(lost):,} bytes could not be written.")
