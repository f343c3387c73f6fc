"""What divides the improvement of a loss, so that tasks can be added up.

| scale | transference of candidate `w` on task `j` | for losses |
| --- | --- | --- |
| `ratio` | `(L − L_w) / max(L, floor)`, the paper's | positive |
| `log_ratio` | `log max(L, floor) − log max(L_w, floor)` | positive |
| `ema` | `(L − L_w) / running magnitude` | any |
| `cosine` | `(L − L_w) / (η ‖g_j‖ ‖g_w‖)`; to first order the cosine of `g_w` and `g_j` | any |
| `self` | `(L − L_w) / max(L − L_j, floor)`: relative to what the task's own step of that length gains | any |

`floor` is a fraction of the divisor's running mean, so that a solved task's vanishing loss does not dominate. Where a
divisor is not positive, the task's transference is 0: the scale says nothing about it.
"""

from __future__ import annotations

import torch
from torch import Tensor

SCALES = ("ratio", "log_ratio", "ema", "cosine", "self")
STATELESS = ("ratio", "log_ratio", "cosine", "self")
POSITIVE_LOSSES_ONLY = ("ratio", "log_ratio")


def divide(improvement: Tensor, divisor: Tensor) -> Tensor:
    """`improvement / divisor`, and 0 where the divisor is not positive."""
    usable = divisor > 0
    return torch.where(usable, improvement / torch.where(usable, divisor, 1), 0)


def log_ratio(before: Tensor, after: Tensor, floor: Tensor) -> Tensor:
    """`log max(before, floor) − log max(after, floor)`; 0 where a task's loss before was not positive."""
    least = floor.clamp(min=torch.finfo(before.dtype).tiny)
    logs = torch.log(torch.maximum(before, least)) - torch.log(torch.maximum(after, least))
    return torch.where(before > 0, logs, 0)


def cosine(gramian: Tensor, weights: Tensor, step_size: Tensor | float) -> Tensor:
    """`η ‖g_j‖ ‖g_w‖` as `[K, T]`, from the Gramian `[T, T]` of the training gradients and candidates `[K, T]`."""
    lengths = squared_norms(gramian, weights).sqrt()
    return step_size * lengths[:, None] * gramian.diagonal().clamp(min=0).sqrt()


def squared_norms(gramian: Tensor, weights: Tensor) -> Tensor:
    """`‖Σ_t w_t g_t‖² = wᵀGw` for every row of `weights [..., T]`."""
    return ((weights @ gramian) * weights).sum(-1).clamp(min=0)
