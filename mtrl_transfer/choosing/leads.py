"""Leads of candidates' scores over the full set's that are more than chance."""

from __future__ import annotations

import torch
from torch import Tensor

LEAST = 10
"""Independent updates that a running mean has to be worth before a lead is believed: a spread of fewer means little."""


def check_smoothing(smoothing: float, confidence: float) -> None:
    """Raise `ValueError` unless a running mean is worth `LEAST` independent updates in the long run."""
    updates = (1 + smoothing) / (1 - smoothing)
    if updates < LEAST:
        raise ValueError(
            f"confidence={confidence} is of a running mean, and smoothing={smoothing} averages {updates:.1f} updates; "
            f"it must average at least {LEAST}: smoothing=0.82 or more"
        )


def lasting(state: dict[str, Tensor], scores: Tensor, smoothing: float, confidence: float) -> Tensor:
    """Return which candidates lead the full set by `confidence` standard errors of a running mean.

    At each update the best of many noisy scores leads, whether or not any candidate is better: leads are to be averaged
    before they are believed. Updates count as independent, the newest with weight `1 - smoothing`; a lead whose square
    is not finite does not count. The standard errors are each candidate's own: of many candidates without a true lead,
    one or another is now and then ahead.

    Args:
        state: holds the running sums between calls.
        scores: `[K]`, the newest, the full set's first.
        smoothing: share of the past, in (0, 1).
        confidence: standard errors.

    Returns:
        `[K]` bool; True for the full set, False for all others until they are worth `LEAST` updates.
    """
    newest = scores - scores[0]
    known = newest.square().isfinite()
    sums = state.setdefault(
        "leads", scores.new_zeros(4, len(scores))
    )  # weighted: lead, its square; weights, their squares
    ones = torch.ones_like(newest)
    fresh = torch.stack([newest, newest.square(), ones, ones])
    decayed = torch.cat([sums[:3] * smoothing, sums[3:] * smoothing**2])
    gained = torch.cat([fresh[:3] * (1 - smoothing), fresh[3:] * (1 - smoothing) ** 2])
    sums.copy_(torch.where(known, decayed + gained, sums))
    lead, square, weight, squared_weight = sums
    mean, share = lead / weight, squared_weight / weight.square()  # share: 1 / how many independent updates
    variance = (square / weight - mean.square()).clamp(min=0) / (1 - share)
    ahead = (mean > confidence * (variance * share).sqrt()) & (share <= 1 / LEAST)  # a nan is not ahead
    ahead[0] = True
    return ahead
