"""What a `Transference` combiner saw and did, for logs and records."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from mtrl_transfer import measures, scales
from mtrl_transfer.selection import choose


class Decision(NamedTuple):
    """What a `Transference` combiner saw and did last; K candidates, T tasks.

    - `candidates`: `[K, T]` as they would be applied (after PCGrad and norm matching); row 0 is the full set.
    - `transference`: `[K, T]`; `scores`: `[K]`, total transference (smoothed, where asked for).
    - `choice`: `[]` long, the row applied (of a softmax mixture, the row with the largest share).
    - `weights`: `[T]`, returned to the caller; `step_size`: `[]`.
    - `fresh`: whether it was measured in this call; otherwise all but `weights` are the last measurement's.
    - `losses`: `[T]`, on the lookahead's rows before the step.
    - `divisor`: `[T]` or `[K, T]`, what the improvement was divided by.
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


def agrees_with_first_order(decision: Decision, gramian: Tensor) -> Tensor:
    """Whether first order would have chosen alike, at the same rows, step, candidates and scale.

    Args:
        decision: of a combiner that measured exactly.
        gramian: `[T giver, T receiver]`, inner products of the task gradients with gradients on the lookahead's rows.

    Returns:
        `[]` bool.
    """
    predicted = measures.first_order(decision.losses, gramian, decision.step_size).decrease(decision.candidates)
    scores = scales.divide(predicted, decision.divisor).sum(1)
    return choose(scores, decision.step_size) == choose(decision.transference.sum(1), decision.step_size)
