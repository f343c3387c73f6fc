"""Task gradients in one backward pass, their Gramian, and their weighted sums."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.func import grad_and_value, vmap
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten

from mtrl_transfer.precision import float32_products
from mtrl_transfer.tasks import AllLosses, Shared, TaskLoss, Tree, are_unlike, count_tasks, entry


class TaskGradients(NamedTuple):
    """Losses of T tasks and their gradients.

    - `losses`: `[T]`, detached.
    - `shared_grads`: `[T, *shape]` for every shared parameter: the task gradients.
    - `head_grads`: like the heads: `[T, *shape]`, or a list of T where the heads were a list. Not scaled by `1/T`.
    """

    losses: Tensor
    shared_grads: dict[str, Tensor]
    head_grads: Any


def per_task_gradients(
    task_loss: TaskLoss | Sequence[TaskLoss] | None,
    shared: Shared,
    heads: Tree,
    batch: Tree,
    *,
    losses: AllLosses | None = None,
) -> TaskGradients:
    """Gradient of every task's own loss, at the cost of one backward pass of their sum.

    Each task owns its rows, so one pass over all rows holds every task's gradient: the shared parameters only need a
    task axis of their own for it to be kept apart.

    Args:
        task_loss: `task_loss(shared, head, batch)`, loss of *one* task: `[rows]` (the mean is taken) or a scalar.
            Deterministic: noise and targets travel in `batch`. A list of T functions for unlike tasks.
        shared: shared parameters by name, each `[*shape]`.
        heads: tensors `[T, *shape]` (any nesting of dicts and tuples), or a list with the head of each task.
        batch: tensors `[T, rows, ...]` (any nesting of dicts and tuples), or a list with the batch of each task.
        losses: `losses(shared, heads, batch) -> [T]`, faster than `task_loss`, which is then not called. It gets
            `shared[name]` as `[T, *shape]`, expanded without copying (stride 0), and must use slice `t` for
            task `t` only.

    Returns:
        `TaskGradients`; no gradient flows through it and no `.grad` is touched. Parameters that a task does not use
        have zero gradients.

    Raises:
        ValueError: where the arguments disagree on the number of tasks.
    """
    n_tasks = count_tasks(task_loss, heads, batch)
    if losses is not None:
        return _by_expanding(losses, shared, heads, batch, n_tasks)
    if task_loss is None:
        raise ValueError("task_loss=None needs losses=, which evaluates all tasks at once")
    if are_unlike(task_loss, heads, batch):
        return _by_looping(task_loss, shared, heads, batch, n_tasks)
    return _by_mapping(task_loss, shared, heads, batch)


def expand_over_tasks(shared: Shared, n_tasks: int) -> dict[str, Tensor]:
    """Shared parameters as `[T, *shape]` views that share one memory (stride 0)."""
    return {name: value.detach().expand(n_tasks, *value.shape) for name, value in shared.items()}


def _by_expanding(losses: AllLosses, shared: Shared, heads: Tree, batch: Tree, n_tasks: int) -> TaskGradients:
    expanded = {name: value.requires_grad_() for name, value in expand_over_tasks(shared, n_tasks).items()}
    head_leaves, structure = _leaves_requiring_grad(heads)
    with torch.enable_grad():
        values = losses(expanded, tree_unflatten(head_leaves, structure), batch)
        total = values.sum()
    if values.shape != (n_tasks,):
        raise ValueError(f"losses(shared, heads, batch) must return shape [{n_tasks}], got {list(values.shape)}")
    grads = torch.autograd.grad(total, [*expanded.values(), *head_leaves], materialize_grads=True)
    shared_grads = dict(zip(expanded, grads, strict=False))
    return TaskGradients(values.detach(), shared_grads, tree_unflatten(list(grads[len(expanded) :]), structure))


def _by_mapping(task_loss: Any, shared: Shared, heads: Tree, batch: Tree) -> TaskGradients:
    def mean_loss(shared: dict[str, Tensor], head: Tree, rows: Tree) -> Tensor:
        return task_loss(shared, head, rows).mean()

    one_task = grad_and_value(mean_loss, argnums=(0, 1))
    with torch.no_grad():  # functional gradients ignore it; their results then carry no graph
        (shared_grads, head_grads), values = vmap(one_task, in_dims=(None, 0, 0))(dict(shared), heads, batch)
    return TaskGradients(values, shared_grads, head_grads)


def _by_looping(task_loss: Any, shared: Shared, heads: Tree, batch: Tree, n_tasks: int) -> TaskGradients:
    values, shared_rows, head_rows = [], [], []
    for task in range(n_tasks):
        leaves = {name: value.detach().requires_grad_() for name, value in shared.items()}
        head_leaves, structure = _leaves_requiring_grad(entry(heads, task))
        with torch.enable_grad():
            head = tree_unflatten(head_leaves, structure)
            loss = entry(task_loss, task)(leaves, head, entry(batch, task)).mean()
        grads = torch.autograd.grad(loss, [*leaves.values(), *head_leaves], materialize_grads=True)
        values.append(loss.detach())
        shared_rows.append(grads[: len(leaves)])
        head_rows.append(tree_unflatten(list(grads[len(leaves) :]), structure))
    shared_grads = {name: torch.stack(rows) for name, rows in zip(shared, zip(*shared_rows, strict=True), strict=True)}
    head_grads = head_rows if isinstance(heads, list) else tree_map(lambda *rows: torch.stack(rows), *head_rows)
    return TaskGradients(torch.stack(values), shared_grads, head_grads)


def _leaves_requiring_grad(tree: Tree) -> tuple[list[Tensor], Any]:
    leaves, structure = tree_flatten(tree)
    return [leaf.detach().requires_grad_() for leaf in leaves], structure


class _Layout(NamedTuple):
    """Order of a gradient's axes in memory, with the task axis at `position` of `axes`."""

    axes: tuple[int, ...]
    position: int


def _memory_layout(gradient: Tensor) -> _Layout:
    """Axes from the slowest to the fastest in memory; inner products do not depend on the order."""
    axes = tuple(sorted(range(gradient.ndim), key=gradient.stride, reverse=True))
    if not gradient.permute(axes).is_contiguous():
        axes = tuple(range(gradient.ndim))
    if axes[-1] == 0:  # fastest in memory: a transposed matrix, rather than one block an element
        axes = (0, *axes[:-1])
    return _Layout(axes, axes.index(0))


def _as_blocks(gradient: Tensor, layout: _Layout) -> Tensor:
    """View `[outer, T, inner]`, where outer axes are those slower in memory than the task axis.

    N batched networks yield gradients `[T, N, ...]` that are transposed views of `[N, T, ...]`; flattening such a view
    would copy it.
    """
    ordered = gradient.permute(layout.axes)
    outer = ordered.shape[: layout.position].numel()
    return ordered.reshape(outer, gradient.shape[0], -1)


@float32_products()
def gramian(grads: Mapping[str, Tensor], other: Mapping[str, Tensor] | None = None) -> Tensor:
    """Inner products of task gradients, each read once.

    Args:
        grads: task gradients, `[T, *shape]` for every shared parameter.
        other: a second set, such as gradients on held-out rows.

    Returns:
        `[T, T]`: entry `[i, j]` is `⟨grads_i, grads_j⟩`, or `⟨grads_i, other_j⟩` where `other` is given.
    """
    total: Tensor | None = None
    for name, gradient in grads.items():
        layout = _memory_layout(gradient)
        left = _as_blocks(gradient, layout)
        right = left if other is None else _as_blocks(other[name], layout)
        products = torch.bmm(left, right.mT).sum(0)
        total = products if total is None else total + products
    if total is None:
        raise ValueError("grads is empty: there are no shared parameters to take inner products over")
    return total


def looking_is_free(device: torch.device) -> bool:
    """Whether the host may ask for a result without waiting: on a CPU it is there already."""
    return device.type == "cpu"


def keep_finite(gradients: TaskGradients) -> tuple[TaskGradients, Tensor]:
    """The same with loss and gradients 0 for tasks of which any is not finite, and which are sound: `[T]` bool.

    A weight of 0 does not do that, for zero times nan is nan: without it one task's fault is in everyone's step. Waits
    for the device nowhere; on a CPU, gradients that are all finite are returned as they are.
    """
    losses, shared, heads = gradients
    # Unlike heads come in a list of T; else every tensor has its tasks first.
    stacked = [*shared.values(), *([] if isinstance(heads, list) else tree_flatten(heads)[0])]
    sums = [losses, *(one.flatten(1).sum(1) for one in stacked)]
    if isinstance(heads, list):
        zero = losses.new_zeros(())
        sums.append(torch.stack([sum((one.sum() for one in tree_flatten(head)[0]), zero) for head in heads]))
    sound = torch.stack(sums).isfinite().all(dim=0)
    if looking_is_free(sound.device) and bool(sound.all()):  # then selecting is what costs
        return gradients, sound
    losses, shared = (tree_map(partial(_selected, sound), one) for one in (losses, shared))
    if isinstance(heads, list):
        heads = [tree_map(partial(torch.where, one, other=0), head) for one, head in zip(sound, heads, strict=True)]
    else:
        heads = tree_map(partial(_selected, sound), heads)
    return TaskGradients(losses, shared, heads), sound


def _selected(sound: Tensor, values: Tensor) -> Tensor:
    return torch.where(sound.view(-1, *([1] * (values.ndim - 1))), values, 0)


@float32_products()
def combine(grads: Mapping[str, Tensor], weights: Tensor) -> dict[str, Tensor]:
    """Weighted sums `Σ_t w_t g_t` of task gradients.

    Args:
        grads: task gradients, `[T, *shape]` for every shared parameter.
        weights: `[T]`, or `[K, T]` for K sums at once.

    Returns:
        For every parameter `[*shape]`, or `[K, *shape]`.
    """
    rows = torch.atleast_2d(weights)
    combined = {}
    for name, gradient in grads.items():
        layout = _memory_layout(gradient)
        blocks = _as_blocks(gradient, layout)
        sums = torch.bmm(rows.to(gradient.dtype).expand(len(blocks), *rows.shape), blocks)
        shape = [len(rows) if axis == 0 else gradient.shape[axis] for axis in layout.axes]
        back = sorted(range(gradient.ndim), key=layout.axes.__getitem__)
        summed = sums.view(shape).permute(back)
        combined[name] = summed if weights.ndim == 2 else summed[0]
    return combined
