"""From scores of candidates to what is applied."""

from __future__ import annotations

import torch
from torch import Tensor


def choose(scores: Tensor, step_size: Tensor, allowed: Tensor | None = None) -> Tensor:
    """Index `[]` of the best of `scores [K]`; 0, the full set, on a tie with it or where the step has no length.

    Args:
        scores: `[K]`; what is not finite is not chosen.
        step_size: `[]`.
        allowed: `[K]` bool.
    """
    return usable_scores(scores, step_size, allowed).argmax()


def usable_scores(scores: Tensor, step_size: Tensor, allowed: Tensor | None = None) -> Tensor:
    """`scores [K]` with minus infinity where a candidate must not be chosen; the full set alone if none may."""
    usable = scores.isfinite() & (step_size > 0)
    if allowed is not None:
        usable = usable & allowed
    scores = torch.where(usable, scores, -torch.inf)
    scores[0] = torch.where(usable.any(), scores[0], 0)
    return scores


def lets_return(members: Tensor, absence: Tensor, calls: int, max_absence: int) -> Tensor:
    """Which candidates keep every task's absence within bounds.

    Args:
        members: `[K, T]` bool.
        absence: `[T]`, calls in a row that a task was left out of so far.
        calls: how many calls the choice will stand for.
        max_absence: most calls in a row that a task may be left out of.

    Returns:
        `[K]` bool.
    """
    return (members | (absence + calls <= max_absence)).all(1)
