"""Divisors of the improvement of a loss, so that tasks can be added up.

| scale | transference of candidate `w` on task `j` | for losses |
| --- | --- | --- |
| `ratio` | `(L − L_w) / max(L, floor)`, the paper's | positive |
| `ema` | `(L − L_w) / running magnitude` | any |

`floor` is a fraction of the loss's running mean, so that a solved task's vanishing loss does not dominate. Where a
divisor is not positive, the task's transference is 0: the scale says nothing about it.
"""

from __future__ import annotations

import torch
from torch import Tensor

SCALES = ("ratio", "ema")

FLOOR = 0.1
"""A divisor is at least this fraction of its running mean."""
RATE = 0.01
"""Share of the newest value in a running mean."""


def divide(improvement: Tensor, divisor: Tensor) -> Tensor:
    """`improvement / divisor`, and 0 where the divisor is not positive."""
    usable = divisor > 0
    return torch.where(usable, improvement / torch.where(usable, divisor, 1), 0)


def squared_norms(gramian: Tensor, weights: Tensor) -> Tensor:
    """`‖Σ_t w_t g_t‖² = wᵀGw` for every row of `weights [..., T]`."""
    return ((weights @ gramian) * weights).sum(-1).clamp(min=0)


def running_mean(state: dict[str, Tensor], name: str, value: Tensor) -> Tensor:
    """Running mean of `value` in `state[name]`, kept in place; values that are not finite are passed over.

    It begins with the first value that is not zero: from zero it would take hundreds of updates to get there.
    """
    mean = state.setdefault(name, torch.zeros_like(value))
    value = torch.where(value.isfinite(), value, mean)
    return mean.copy_(torch.where(mean == 0, value, mean.lerp(value, RATE)))


def floored(state: dict[str, Tensor], losses: Tensor) -> Tensor:
    """Return `max(L, floor) [T]` of `losses [T]`; the running mean is kept in `state["divisor"]`."""
    return torch.maximum(losses, FLOOR * running_mean(state, "divisor", losses))


def magnitude(state: dict[str, Tensor], now: Tensor) -> Tensor:
    """Return the running magnitude `[T]` of losses whose magnitude is `now [T]`, kept in `state["divisor"]`."""
    return running_mean(state, "divisor", now).clone()
