"""Lookahead losses: every task's loss at the trunk that a candidate's step would lead to; and transference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.func import vmap

from mtrl_transfer import scales
from mtrl_transfer.choices import check_choice
from mtrl_transfer.gradients import combine, expand_over_tasks, per_task_gradients
from mtrl_transfer.precision import float32_products
from mtrl_transfer.tasks import AllLosses, Shared, TaskLoss, Tree, are_unlike, count_tasks, entry

CHUNK = 64
"""Candidates evaluated at once; bounds the memory of their trunks."""


def lookahead_losses(
    task_loss: TaskLoss | Sequence[TaskLoss] | None,
    shared: Shared,
    heads: Tree,
    batch: Tree,
    weights: Tensor,
    step_size: Tensor | float,
    shared_grads: Mapping[str, Tensor],
    *,
    losses: AllLosses | None = None,
) -> Tensor:
    """Losses of all tasks at `θ − η Σ_t w_t g_t`, for K candidates `w`. Changes nothing.

    Args:
        task_loss: loss of one task, as in `per_task_gradients`.
        shared: shared parameters by name.
        heads: heads of all tasks.
        batch: rows of all tasks.
        weights: candidates `[K, T]`; a row of zeros gives the losses at `θ`.
        step_size: `η`, a number or a `[]` tensor.
        shared_grads: task gradients, `[T, *shape]` for every shared parameter.
        losses: losses of all tasks at once, as in `per_task_gradients`.

    Returns:
        `[K, T]`, detached.
    """
    _check_weights(weights, count_tasks(task_loss, heads, batch))
    parts = []
    for rows in weights.split(CHUNK):
        moved = move(shared, shared_grads, rows, step_size)
        parts.append(losses_at(task_loss, moved, heads, batch, losses=losses))
    return torch.cat(parts)


@float32_products()
@torch.no_grad()
def losses_at(
    task_loss: TaskLoss | Sequence[TaskLoss] | None,
    moved: dict[str, Tensor],
    heads: Tree,
    batch: Tree,
    *,
    losses: AllLosses | None = None,
) -> Tensor:
    """Losses `[K, T]` of all tasks at K values of the shared parameters, `moved[name]` being `[K, *shape]`."""
    n_tasks = count_tasks(task_loss, heads, batch)
    if losses is not None:
        return _all_at_once(losses, moved, heads, batch, n_tasks)
    if are_unlike(task_loss, heads, batch):
        return _looped(task_loss, moved, heads, batch, n_tasks)
    loss: Any = task_loss
    return over_candidates(lambda *task: loss(*task).mean(), moved, heads, batch)


def _check_weights(weights: Tensor, n_tasks: int) -> None:
    if weights.ndim != 2 or weights.shape[1] != n_tasks:
        raise ValueError(f"weights must be [K, {n_tasks}] (one candidate a row), got {list(weights.shape)}")


@torch.no_grad()
def move(
    shared: Shared, shared_grads: Mapping[str, Tensor], weights: Tensor, step_size: Tensor | float
) -> dict[str, Tensor]:
    """`θ − η Σ_t w_t g_t` for every row of `weights [K, T]`: `[K, *shape]` for every shared parameter."""
    steps = combine(shared_grads, weights * step_size)
    return {name: value - steps[name] for name, value in shared.items()}


@float32_products()
@torch.no_grad()
def over_candidates(function: Any, moved: dict[str, Tensor], heads: Tree, batch: Tree) -> Tensor:
    """`function(shared, head, batch)` for every candidate and task, `[K, T, ...]`; tasks must be alike."""
    over_tasks = vmap(function, in_dims=(None, 0, 0))
    return vmap(over_tasks, in_dims=(0, None, None))(moved, heads, batch)  # candidates outside: about twice as fast


def _values(moved: dict[str, Tensor]) -> list[dict[str, Tensor]]:
    n_rows = len(next(iter(moved.values())))
    return [{name: value[k] for name, value in moved.items()} for k in range(n_rows)]


def _all_at_once(losses: AllLosses, moved: dict[str, Tensor], heads: Tree, batch: Tree, n_tasks: int) -> Tensor:
    # A loop over candidates: each forward is one product over all tasks' rows against one matrix, never copied T times.
    return torch.stack([losses(expand_over_tasks(value, n_tasks), heads, batch) for value in _values(moved)])


def _looped(task_loss: Any, moved: dict[str, Tensor], heads: Tree, batch: Tree, n_tasks: int) -> Tensor:
    table = []
    for value in _values(moved):
        row = [entry(task_loss, t)(value, entry(heads, t), entry(batch, t)).mean() for t in range(n_tasks)]
        table.append(torch.stack(row))
    return torch.stack(table)


@float32_products()
def transference(
    task_loss: TaskLoss | Sequence[TaskLoss] | None,
    shared: Shared,
    heads: Tree,
    batch: Tree,
    weights: Tensor,
    step_size: Tensor | float,
    *,
    shared_grads: Mapping[str, Tensor] | None = None,
    lookahead_batch: Tree | None = None,
    scale: str | Tensor = "ratio",
    losses: AllLosses | None = None,
) -> Tensor:
    """Transference of K candidates on T tasks: how much a step along each would improve each task's loss.

    `Z_{w→j} = 1 − L_j(θ − η Σ_t w_t g_t, φ_j) / L_j(θ, φ_j)` with the `ratio` scale (Fifty et al., 2020, section 3).
    Weights are applied exactly as given. Nothing is changed: no parameter, gradient or random stream.

    Args:
        task_loss: loss of one task, as in `per_task_gradients`.
        shared: shared parameters by name.
        heads: heads of all tasks.
        batch: rows of all tasks, which the gradients are taken on.
        weights: candidates `[K, T]`, for example `candidates.singletons(T)` for pairwise transference.
        step_size: `η`, a number or a `[]` tensor.
        shared_grads: task gradients on `batch`; computed where not given.
        lookahead_batch: rows that the lookahead losses are taken on; `batch` where not given.
        scale: what divides the improvement: `ratio`, the loss before the step, or a tensor `[T]`. Running scales belong
            to the `Transference` combiner.
        losses: losses of all tasks at once, as in `per_task_gradients`.

    Returns:
        `[K, T]`: positive where the candidate helps the task, negative where it harms.
    """
    if not isinstance(scale, Tensor):
        check_choice("scale", scale, ("ratio",))
    n_tasks = count_tasks(task_loss, heads, batch)
    _check_weights(weights, n_tasks)
    if shared_grads is None:
        shared_grads = per_task_gradients(task_loss, shared, heads, batch, losses=losses).shared_grads
    rows = torch.cat([weights.new_zeros(1, n_tasks), weights])
    rows_batch = batch if lookahead_batch is None else lookahead_batch
    table = lookahead_losses(task_loss, shared, heads, rows_batch, rows, step_size, shared_grads, losses=losses)
    return scales.divide(table[0] - table[1:], scale if isinstance(scale, Tensor) else table[0])
