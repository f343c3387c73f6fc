"""The record of one decision of a `Transference` combiner, for logs and files."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Decision(NamedTuple):
    """The last decision of a `Transference` combiner; K candidates, T tasks.

    - `candidates`: `[K, T]` as they would be applied (after PCGrad and norm matching); row 0 is the full set.
    - `transference`: `[K, T]`; `scores`: `[K]`, total transference (smoothed, where asked for).
    - `choice`: `[]` long, the row applied.
    - `weights`: `[T]`, returned to the caller; `step_size`: `[]`.
    - `fresh`: True if it was measured in this call; otherwise all but `weights` are the last measurement's.
    - `losses`: `[T]`, on the lookahead's rows before the step.
    - `divisor`: `[T]`, divisor of each task's improvement.
    """

    candidates: Tensor
    transference: Tensor
    scores: Tensor
    choice: Tensor
    weights: Tensor
    step_size: Tensor
    fresh: bool
    losses: Tensor
    divisor: Tensor
