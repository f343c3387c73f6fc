"""Candidates: rows of weights over tasks, `[K, T]`. A subset has members `1/T` and zeros elsewhere."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor

MAX_POWER_SET = 16


def full(n_tasks: int) -> Tensor:
    """The full set alone, `[1, T]`."""
    return torch.full((1, n_tasks), 1 / n_tasks)


def leave_one_out(n_tasks: int) -> Tensor:
    """`[1 + T, T]`: the full set, then the sets without task 0, 1, ..., T-1 (none where that is empty)."""
    without = (1 - torch.eye(n_tasks)) / n_tasks
    return torch.cat([full(n_tasks), without[without.any(1)]])


def singletons(n_tasks: int) -> Tensor:
    """`[T, T]`: each task alone."""
    return torch.eye(n_tasks) / n_tasks


def pairs(n_tasks: int) -> Tensor:
    """`[T(T-1)/2, T]`: each pair of tasks, in lexicographic order."""
    chosen = list(itertools.combinations(range(n_tasks), 2))
    rows = torch.zeros(len(chosen), n_tasks)
    if chosen:
        rows.scatter_(1, torch.tensor(chosen), 1 / n_tasks)
    return rows


def power_set(n_tasks: int) -> Tensor:
    """`[2^T - 1, T]`: every subset but the empty one; row `r` holds task `t` where bit `t` of `r + 1` is set.

    Raises:
        ValueError: for more than 16 tasks.
    """
    if n_tasks > MAX_POWER_SET:
        raise ValueError(f"power_set is limited to {MAX_POWER_SET} tasks, got {n_tasks}; measure='basis' goes beyond")
    codes = torch.arange(1, 2**n_tasks)
    return ((codes[:, None] >> torch.arange(n_tasks)) & 1).float() / n_tasks


FAMILIES = {
    "full": full,
    "leave_one_out": leave_one_out,
    "singletons": singletons,
    "pairs": pairs,
    "power_set": power_set,
}
"""Families by name; each maps the number of tasks to rows."""


def check_weights(weights: Tensor, n_tasks: int) -> None:
    """Raise `ValueError` if candidates are not `[K, T]`."""
    if weights.ndim != 2 or weights.shape[1] != n_tasks:
        raise ValueError(f"weights must be [K, {n_tasks}] (one candidate per row), got {list(weights.shape)}")
