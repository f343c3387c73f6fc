"""What a combiner may need beyond the Gramian."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor


class Lookahead(Protocol):
    """`lookahead(weights [K, T], step_size) -> losses [K, T]` at `θ − step_size Σ_t w_t g_t`."""

    def __call__(self, weights: Tensor, step_size: Tensor | float | None = None) -> Tensor:
        """`step_size=None` is the matched one (see `steps`)."""


@dataclass(kw_only=True)
class Context:
    """One update, as a combiner sees it. Nothing here may change parameters, gradients or foreign random streams.

    Attributes:
        losses: `[T]`, the tasks' losses on the rows that gave the gradients.
        scales: `[T]`, magnitude of each loss at this instant, for losses whose own value says little (the standard
            deviation over rows, for an actor). None: the absolute loss.
        signed: whether losses may be negative; ratios of losses then mean nothing.
        step_norm: `[]`, norm of the trunk's last real step; 0 before the first.
        lookahead: losses at the end of candidates' steps, on the rows the caller chose for it.
        held_out_gramian: `[T giver, T receiver]`, inner products of the task gradients with gradients on the
            lookahead's own rows. Called only by first-order transference on held-out rows.
        optimizer_lookahead: `weights [K, T] -> losses [1 + K, T]`, at `θ` and where the trunk's optimizer would go with
            each candidate's gradient (see `functional_step`).
        predict: `(weights [K, T], step_size []) -> predictions [K, T, ...]`, what `lookahead` would turn into losses.
        loss_of: losses `[T]` of predictions `[T, ...]` on the lookahead's rows, differentiable twice.
    """

    losses: Tensor
    scales: Tensor | None = None
    signed: bool = False
    step_norm: Tensor | None = None
    lookahead: Lookahead | None = None
    held_out_gramian: Callable[[], Tensor] | None = None
    optimizer_lookahead: Callable[[Tensor], Tensor] | None = None
    predict: Callable[[Tensor, Tensor], Tensor] | None = None
    loss_of: Callable[[Tensor], Tensor] | None = None
