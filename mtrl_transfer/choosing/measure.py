"""The base class of measures, and the losses that they return."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple, Protocol

import torch
from torch import Tensor

from mtrl_transfer.choices import check_choice, check_flag, check_number, check_whole
from mtrl_transfer.context import Context, Lookahead
from mtrl_transfer.scales import divide
from mtrl_transfer.steps import matched_step_size


class Losses(Protocol):
    """Losses at `θ` and at the ends of steps."""

    @property
    def before(self) -> Tensor:
        """`L_j(θ) [T]`."""

    def decrease(self, rows: Tensor) -> Tensor:
        """Return `L_j(θ) − L_j(θ_w)` as `[K, T]` for candidates `rows [K, T]`."""

    def lead_errors(self, rows: Tensor, divisor: Tensor) -> Tensor | None:
        """Return standard errors `[K]` of the candidates' total transference less the full set's; None: not known."""


class Table(NamedTuple):
    """Losses of listed candidates: `before [T]`, and after each candidate's step `after [K, T]`."""

    before: Tensor
    after: Tensor

    def decrease(self, rows: Tensor) -> Tensor:
        """Return `[K, T]`; `rows` are those that were listed."""
        return self.before - self.after

    def lead_errors(self, rows: Tensor, divisor: Tensor) -> None:
        """Return None: means of losses do not tell."""


class RowTable(NamedTuple):
    """Losses of listed candidates on single rows, `table [1 + K, T, rows]`: at `θ`, then after each step."""

    table: Tensor

    @property
    def before(self) -> Tensor:
        """`L_j(θ) [T]`."""
        return self.table[0].mean(-1)

    def decrease(self, rows: Tensor) -> Tensor:
        """Return `[K, T]`; `rows` are those that were listed."""
        return (self.table[:1] - self.table[1:]).mean(-1)

    def lead_errors(self, rows: Tensor, divisor: Tensor) -> Tensor:
        """Return standard errors `[K]` of the candidates' total transference less the full set's.

        Candidates are compared on the same rows: with `δ_jb` the loss of task `j` on row `b` after the full set's step
        less that after the candidate's, `error² = Σ_j Var_b(δ_jb) / (rows · divisor_j²)`.

        Args:
            rows: `[K, T]`, those that were listed.
            divisor: `[T]`; a task of divisor 0 does not count.
        """
        n_rows = self.table.shape[-1]
        if n_rows < 2:
            raise ValueError(f"rows={n_rows} a task gives no standard error; selector='significant' needs at least 2")
        ahead = self.table[1:2] - self.table[1:]
        return divide(ahead.std(-1) / n_rows**0.5, divisor).square().sum(1).sqrt()


@dataclass
class Measure:
    """Base class: the rows to look ahead on, and the length of the step.

    Args:
        rows: number of rows a task; None leaves it to the caller.
        held_out: take rows that the gradients have not seen; False: the gradients' own, where every candidate looks
            better than it is.
        step_size: `matched` to the trunk's last real step, or a fixed number.
    """

    rows: int | None = None
    held_out: bool = True
    step_size: str | float = "matched"

    STEPS: ClassVar[tuple[str, ...]] = ("matched",)
    sync_free: ClassVar[bool] = True
    """False where a measurement cannot be part of a captured update."""
    needs_last_gradients: ClassVar[bool] = False
    """True where the task gradients of the update before are needed; then each update is measured, `every=1`."""

    def __post_init__(self) -> None:
        if self.rows is not None:
            check_whole("rows", self.rows)
        check_flag("held_out", self.held_out)
        if self.step_size == "optimizer" and self.step_size not in self.STEPS:
            raise ValueError(
                f"step_size='optimizer' is not linear in the weights, as {type(self).__name__} needs it; "
                "choose 'matched', a number, or measure='lookahead_gradient'"
            )
        if isinstance(self.step_size, str):
            check_choice("step_size", self.step_size, self.STEPS)
        else:
            check_number("step_size", self.step_size, 0)
            if not self.step_size:
                raise ValueError("step_size=0 is no step; it must be positive, or 'matched'")

    def __call__(self, context: Context, gramian: Tensor, rows: Tensor, step_size: Tensor) -> Losses:
        """Return the losses at the ends of steps of `rows [K, T]`; a measure implements this."""
        raise NotImplementedError

    def by_row(self, context: Context, rows: Tensor, step_size: Tensor) -> RowTable:
        """Return the losses of single rows at the ends of steps of candidates `rows [K, T]`, by one forward each."""
        lookahead = self.look(context)
        if self.step_size == "optimizer":
            return RowTable(lookahead.rows_after_optimizer(rows))
        return RowTable(lookahead.row_losses(torch.cat([torch.zeros_like(rows[:1]), rows]), step_size))

    def step(self, context: Context, gramian: Tensor, full_set: Tensor) -> Tensor:
        """Return `η []`, given the full set's weights `[T]`; 1 for the optimizer's own step."""
        if self.step_size == "optimizer":
            return torch.ones_like(gramian[0, 0])
        if self.step_size == "matched":
            return matched_step_size(gramian, context.step_norm, full_set)
        return torch.full_like(gramian[0, 0], float(self.step_size))

    def look(self, context: Context) -> Lookahead:
        """Return the lookahead on this measure's rows."""
        if context.lookahead is None:
            raise ValueError(f"{self} needs context.lookahead, the losses at the end of a candidate's step")
        return context.lookahead.on(self.rows, self.held_out)
