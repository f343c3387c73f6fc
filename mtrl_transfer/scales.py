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

FLOOR = 0.1
"""A divisor is at least this fraction of its running mean."""
RATE = 0.01
"""Share of the newest value in a running mean."""


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


def running_mean(state: dict[str, Tensor], name: str, value: Tensor) -> Tensor:
    """Running mean of `value` in `state[name]`, kept in place; values that are not finite are passed over.

    It begins with the first value that is not zero: from zero it would take hundreds of updates to get there.
    """
    mean = state.setdefault(name, torch.zeros_like(value))
    value = torch.where(value.isfinite(), value, mean)
    return mean.copy_(torch.where(mean == 0, value, mean.lerp(value, RATE)))


class Scale:
    """One scale at one update, with its running mean.

    Args:
        name: one of `SCALES`.
        state: holds the running mean, under `divisor`; updated in place.
        before: `[T]`, losses before the step.
        own: `[T]`, decrease of each task's loss by its own step (only `self` reads it).
        magnitude: `[T]`, of the losses at this instant (only `ema` reads it).
        gramian: `[T, T]` of the training gradients (only `cosine` reads it).
        step_size: `[]` (only `cosine` reads it).
    """

    def __init__(
        self,
        name: str,
        state: dict[str, Tensor],
        *,
        before: Tensor,
        own: Tensor,
        magnitude: Tensor,
        gramian: Tensor,
        step_size: Tensor,
    ) -> None:
        self.name, self.before, self.gramian, self.step_size = name, before, gramian, step_size
        if name == "ema":
            self.shared_divisor = running_mean(state, "divisor", magnitude).clone()
        elif name != "cosine":
            now = own.clamp(min=0) if name == "self" else before
            self.floor = FLOOR * running_mean(state, "divisor", now)
            self.shared_divisor = torch.maximum(now, self.floor)

    def divisor(self, rows: Tensor) -> Tensor:
        """What the improvement by candidates `rows [K, T]` is divided by: `[T]`, or `[K, T]` for `cosine`."""
        return cosine(self.gramian, rows, self.step_size) if self.name == "cosine" else self.shared_divisor

    @property
    def is_linear(self) -> bool:
        """Whether transference is the decrease times numbers that are the same for all candidates."""
        return self.name not in ("log_ratio", "cosine")

    def transference(self, decrease: Tensor, rows: Tensor) -> Tensor:
        """`[K, T]`, from the decrease `[K, T]` of the losses by candidates `rows [K, T]`."""
        if self.name == "log_ratio":
            return log_ratio(self.before, self.before - decrease, self.floor)
        return divide(decrease, self.divisor(rows))
