"""Division where the divisor may be zero, and the lengths of candidates' gradients."""

from __future__ import annotations

import torch
from torch import Tensor


def divide(value: Tensor | float, divisor: Tensor, otherwise: Tensor | float = 0) -> Tensor:
    """Return `value / divisor`, and `otherwise` where the divisor is not positive."""
    usable = divisor > 0
    return torch.where(usable, value / torch.where(usable, divisor, 1), otherwise)


def squared_norms(gramian: Tensor, weights: Tensor) -> Tensor:
    """Return `‖Σ_t w_t g_t‖² = wᵀGw` for every row of `weights [..., T]`."""
    return ((weights @ gramian) * weights).sum(-1).clamp(min=0)
