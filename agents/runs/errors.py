"""Exceptions that end a command: bad input, an interruption, a failure."""

from __future__ import annotations

import signal
from collections.abc import Sequence

from pydantic import ValidationError


class InputError(ValueError):
    """Bad input, found before any work was done: the command line prints it and exits with code 2.

    Args:
        problems: one sentence each; all of them are reported at once.
    """

    def __init__(self, problems: str | Sequence[str]) -> None:
        self.problems: tuple[str, ...] = (problems,) if isinstance(problems, str) else tuple(problems)
        super().__init__("\n".join(self.problems))


class Interrupted(Exception):
    """A run was stopped by a signal, and its state has been saved; the message says how to go on.

    Args:
        message: for the user.
        signal_number: of the signal that asked.
    """

    def __init__(self, message: str, signal_number: int = signal.SIGINT) -> None:
        super().__init__(message)
        self.signal_number = signal_number


class Failed(Exception):
    """Work cannot go on; the message says why, and what is saved."""


def first_problem(error: ValidationError) -> str:
    """First of pydantic's errors as one clause: ``tasks.reach-v3.success: should be a finite number``."""
    detail = error.errors(include_url=False, include_context=False, include_input=False)[0]
    text = detail["msg"].removeprefix("Value error, ").removeprefix("Input ")
    return ": ".join(part for part in (".".join(map(str, detail["loc"])), text) if part)
