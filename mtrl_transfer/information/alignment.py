"""A linear map per task before the shared trunk, and when it trains."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from mtrl_transfer.choices import check_choice

MODES = ("alternating", "joint")


def identities(*leading: int, width: int) -> Tensor:
    """Alignments that change nothing: identities `[*leading, width, width]`."""
    return torch.eye(width).expand(*leading, width, width).clone()


class TaskAlignment(nn.Module):
    """Alignment `X_t R_t` of each task's inputs or embedding (Wu, Zhang, Ré, arXiv 2005.00944, section 3, algorithm 1).

    `R_t` belongs to task `t` alone, as its head does: it takes its own task's gradient and has no part in the task
    gradients that a combiner sees. It starts as the identity.

    Args:
        n_tasks: `T`.
        width: `d`, width of the inputs.

    Attributes:
        weight: `[T, d, d]`.
    """

    def __init__(self, n_tasks: int, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(identities(n_tasks, width=width))

    def forward(self, x: Tensor, task: int | None = None) -> Tensor:
        """Align rows.

        Args:
            x: rows of every task, `[T, rows, d]`; or, with `task`, of that one, `[rows, d]`.
            task: whose rows; None: all tasks'.

        Returns:
            As `x`.
        """
        return x @ (self.weight if task is None else self.weight[task])


class Trains(NamedTuple):
    """The parts that train in an update besides the heads, which always do."""

    trunk: bool
    alignment: bool


@dataclass(frozen=True)
class AlignmentSchedule:
    """Turns of trunk and alignment.

    The paper aligns tasks to a trunk that is held fixed. In the `alternating` mode, trunk and alignment take turns of
    `period` updates, the trunk first: with half of the budget as the period, that is the paper's procedure after an
    ordinary multi-task training. In the `joint` mode both train in every update.

    Args:
        mode: `alternating` or `joint`.
        period: updates of a turn.

    Raises:
        ValueError: for an unknown mode or a period below 1.
    """

    mode: Literal["alternating", "joint"] = "alternating"
    period: int = 1_000

    def __post_init__(self) -> None:
        check_choice("alignment", self.mode, MODES)
        if self.period < 1:
            raise ValueError(f"alignment period={self.period} must be at least 1 update")

    def trains(self, step: int) -> Trains:
        """Return the parts that train in update `step`, counted from 0."""
        if self.mode == "joint":
            return Trains(trunk=True, alignment=True)
        aligning = step // self.period % 2 == 1
        return Trains(trunk=not aligning, alignment=aligning)
