"""What a `Transference` combiner saw and did, for logs and records."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Decision(NamedTuple):
    """What a `Transference` combiner saw and did last; K candidates, T tasks.

    - `candidates`: `[K, T]` as they would be applied (after PCGrad and norm matching); row 0 is the full set.
    - `transference`: `[K, T]`; `scores`: `[K]`, total transference (smoothed, where asked for).
    - `choice`: `[]` long, the row applied.
    - `weights`: `[T]`, returned to the caller; `step_size`: `[]`.
    - `fresh`: whether it was measured in this call; otherwise all but `weights` are the last measurement's.
    - `losses`: `[T]`, on the lookahead's rows before the step.
    - `divisor`: `[T]`, what the improvement was divided by.
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
