"""Whether a candidate's score leads the full set's by more than chance."""

from __future__ import annotations

import torch
from torch import Tensor


def lasting(state: dict[str, Tensor], scores: Tensor, smoothing: float, confidence: float) -> Tensor:
    """Which candidates lead the full set by `confidence` standard errors of a running mean.

    At each update the best of many noisy scores leads, whether or not any candidate is better: leads are to be averaged
    before they are believed. Updates count as independent, the newest with weight `1 - smoothing`.

    Args:
        state: holds the running sums between calls.
        scores: `[K]`, the newest, the full set's first.
        smoothing: share of the past, in (0, 1).
        confidence: standard errors.

    Returns:
        `[K]` bool; True for the full set, False for all others at the first call.
    """
    newest = scores - scores[0]
    sums = state.setdefault("leads", scores.new_zeros(2, len(scores)))
    weights = state.setdefault("lead_weights", scores.new_zeros(2))
    mean = sums[0] / weights[0].clamp(min=torch.finfo(scores.dtype).tiny)
    newest = torch.where(newest.isfinite(), newest, mean)
    sums.lerp_(torch.stack([newest, newest.square()]), 1 - smoothing)
    weights[0].mul_(smoothing).add_(1 - smoothing)
    weights[1].mul_(smoothing**2).add_((1 - smoothing) ** 2)
    mean = sums[0] / weights[0]
    share = weights[1] / weights[0].square()  # of independent updates, 1 / how many
    variance = (sums[1] / weights[0] - mean.square()).clamp(min=0) / (1 - share)
    ahead = mean > confidence * (variance * share).sqrt()  # at first not a number, of which nothing is greater
    ahead[0] = True
    return ahead
