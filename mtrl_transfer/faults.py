"""Losses and gradients that are not finite: found, kept from doing harm, and counted, on the device."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from mtrl_transfer.gradients import TaskGradients, keep_finite


class NotFinite(Exception):
    """A task's loss or gradient was not finite for too many updates in a row; the message names tasks and updates."""


class Fault(NamedTuple):
    """One task's updates with a loss or gradient that was not finite, since the last report.

    - `task`: index.
    - `updates`: number of such updates.
    - `in_a_row`: up to the latest update, reports before included.
    """

    task: int
    updates: int
    in_a_row: int


class Faults:
    """Takes tasks whose loss or gradient is not finite out of an update.

    Their losses and gradients become 0, so the other tasks' step is as without them.

    Args:
        n_tasks: ``T``.
        device: of the counts.
    """

    def __init__(self, n_tasks: int, device: torch.device) -> None:
        self.count, self.in_a_row = (torch.zeros(n_tasks, dtype=torch.long, device=device) for _ in range(2))

    def mask(self, tasks: TaskGradients, gram: Tensor | None = None) -> tuple[TaskGradients, Tensor]:
        """Count the update; return gradients with those that are not finite replaced by 0, and the sound tasks `[T]`.

        Args:
            tasks: gradients of all tasks.
            gram: their Gramian `[T, T]`, if it is known.
        """
        kept, sound = keep_finite(tasks, gram)
        self.count += ~sound
        self.in_a_row.add_(1).mul_(~sound)
        return kept, sound

    def note_sound(self) -> None:
        """Count an update in which all was finite."""
        self.in_a_row.zero_()

    def report(self) -> list[Fault]:
        """Return the faults since the last report; waits for the device."""
        counts, rows = self.count.tolist(), self.in_a_row.tolist()
        self.count.zero_()
        return [Fault(task, n, rows[task]) for task, n in enumerate(counts) if n]

    def unsound(self) -> list[int]:
        """Tasks that were not finite in the latest update; waits for the device."""
        return self.in_a_row.nonzero().flatten().tolist()

    def state_dict(self) -> dict[str, Tensor]:
        """Counts ``[T]``."""
        return {"count": self.count, "in_a_row": self.in_a_row}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restore `state_dict`."""
        for name, value in state.items():
            getattr(self, name).copy_(value)


def describe(role: str, faults: Sequence[Fault], names: Sequence[str], n_updates: int) -> list[str]:
    """Return one sentence per task."""
    return [
        f"the {role}'s loss or gradient of {names[one.task]} was not finite in {one.updates} updates up to update "
        f"{n_updates}, the last {one.in_a_row} in a row; the task was left out of them"
        for one in faults
    ]
