"""Division of improvements, and the lengths of candidates' gradients."""

from __future__ import annotations

import torch
from torch import Tensor


def divide(improvement: Tensor, divisor: Tensor) -> Tensor:
    """Return `improvement / divisor`, and 0 where the divisor is not positive."""
    usable = divisor > 0
    return torch.where(usable, improvement / torch.where(usable, divisor, 1), 0)


def squared_norms(gramian: Tensor, weights: Tensor) -> Tensor:
    """Return `‖Σ_t w_t g_t‖² = wᵀGw` for every row of `weights [..., T]`."""
    return ((weights @ gramian) * weights).sum(-1).clamp(min=0)
