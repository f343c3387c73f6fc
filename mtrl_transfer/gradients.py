"""Task gradients in one backward pass, their Gramian, and their weighted sums."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.func import grad_and_value, vmap
from torch.utils._pytree import tree_flatten, tree_leaves, tree_map, tree_unflatten

from mtrl_transfer.precision import float32_products
from mtrl_transfer.tasks import AllLosses, Shared, TaskLoss, Tree, are_unlike, count_tasks, entry, is_frozen


class TaskGradients(NamedTuple):
    """Losses of T tasks and their gradients.

    - `losses`: `[T]`, detached.
    - `shared_grads`: `[T, *shape]` for every shared parameter that trains: the task gradients.
    - `head_grads`: like the heads: `[T, *shape]`, or a list of T if the heads were a list. Not scaled by `1/T`.
      Frozen parameters are missing from dicts, and None in tuples.
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
    """Return the gradient of every task's own loss, at the cost of one backward pass of their sum.

    Each task owns its rows, so one pass over all rows holds every task's gradient: the shared parameters only need a
    task axis to keep them apart.

    Args:
        task_loss: `task_loss(shared, head, batch)`, loss of *one* task: `[rows]` (the mean is taken) or a scalar.
            Deterministic: noise and targets travel in `batch`. A list of T functions for unlike tasks.
        shared: shared parameters by name, each `[*shape]`.
        heads: tensors `[T, *shape]` (any nesting of dicts and tuples), or a list with one head per task.
        batch: tensors `[T, rows, ...]` (any nesting of dicts and tuples), or a list with one batch per task.
        losses: `losses(shared, heads, batch) -> [T]`, faster than `task_loss`, which is then not called. It gets
            `shared[name]` as `[T, *shape]`, expanded without copying (stride 0), and must use slice `t` for
            task `t` only.

    Returns:
        `TaskGradients`; no gradient flows through it and no `.grad` is touched. Parameters that a task does not use
        have zero gradients. Parameters of a module with `requires_grad=False` have none.

    Raises:
        ValueError: if the arguments disagree on the number of tasks.
    """
    n_tasks = count_tasks(task_loss, heads, batch)
    if losses is not None:
        found = _by_expanding(losses, shared, heads, batch, n_tasks)
    elif task_loss is None:
        raise ValueError("task_loss=None needs losses=, which evaluates all tasks at once")
    elif are_unlike(task_loss, heads, batch):
        found = _by_looping(task_loss, shared, heads, batch, n_tasks)
    else:
        found = _by_mapping(task_loss, shared, heads, batch)
    if any(is_frozen(leaf) for leaf in tree_leaves(heads)):
        return found._replace(head_grads=_without_frozen(found.head_grads, heads))
    return found


def gradients_of(total: Tensor, leaves: Sequence[Tensor]) -> list[Tensor]:
    """Gradients of a scalar, zero where it does not depend on a leaf."""
    if not total.requires_grad:
        return [torch.zeros_like(leaf) for leaf in leaves]
    return list(torch.autograd.grad(total, leaves, materialize_grads=True))


def _without_frozen(grads: Any, heads: Tree) -> Any:
    if isinstance(heads, Mapping):
        return {name: _without_frozen(grads[name], one) for name, one in heads.items() if not is_frozen(one)}
    if isinstance(heads, list | tuple):
        parts = [_without_frozen(*pair) for pair in zip(grads, heads, strict=True)]
        return heads._make(parts) if hasattr(heads, "_make") else type(heads)(parts)
    return None if is_frozen(heads) else grads


def expand_over_tasks(shared: Shared, n_tasks: int) -> dict[str, Tensor]:
    """Return shared parameters as `[T, *shape]` views of one memory (stride 0)."""
    return {name: value.detach().expand(n_tasks, *value.shape) for name, value in shared.items()}


def _by_expanding(losses: AllLosses, shared: Shared, heads: Tree, batch: Tree, n_tasks: int) -> TaskGradients:
    expanded = expand_over_tasks(shared, n_tasks)
    leaves = {name: expanded[name].requires_grad_() for name, value in shared.items() if not is_frozen(value)}
    head_leaves, structure = _leaves_requiring_grad(heads)
    with torch.enable_grad():
        values = losses(expanded, tree_unflatten(head_leaves, structure), batch)
        total = values.sum()
    if values.shape != (n_tasks,):
        raise ValueError(f"losses(shared, heads, batch) must return shape [{n_tasks}], got {list(values.shape)}")
    grads = gradients_of(total, [*leaves.values(), *head_leaves])
    shared_grads = dict(zip(leaves, grads, strict=False))
    return TaskGradients(values.detach(), shared_grads, tree_unflatten(grads[len(leaves) :], structure))


def _by_mapping(task_loss: Any, shared: Shared, heads: Tree, batch: Tree) -> TaskGradients:
    def mean_loss(trained: dict[str, Tensor], head: Tree, rows: Tree) -> Tensor:
        return task_loss({**shared, **trained}, head, rows).mean()

    trained = {name: value for name, value in shared.items() if not is_frozen(value)}
    one_task = grad_and_value(mean_loss, argnums=(0, 1))
    with torch.no_grad():  # functional gradients ignore it; their results then carry no graph
        (shared_grads, head_grads), values = vmap(one_task, in_dims=(None, 0, 0))(trained, heads, batch)
    return TaskGradients(values, shared_grads, head_grads)


def _by_looping(task_loss: Any, shared: Shared, heads: Tree, batch: Tree, n_tasks: int) -> TaskGradients:
    values, shared_rows, head_rows = [], [], []
    fixed = {name: value.detach() for name, value in shared.items()}
    for task in range(n_tasks):
        leaves = {name: value.detach().requires_grad_() for name, value in shared.items() if not is_frozen(value)}
        head_leaves, structure = _leaves_requiring_grad(entry(heads, task))
        with torch.enable_grad():
            head = tree_unflatten(head_leaves, structure)
            loss = entry(task_loss, task)({**fixed, **leaves}, head, entry(batch, task)).mean()
        grads = gradients_of(loss, [*leaves.values(), *head_leaves])
        values.append(loss.detach())
        shared_rows.append(dict(zip(leaves, grads, strict=False)))
        head_rows.append(tree_unflatten(grads[len(leaves) :], structure))
    shared_grads = {name: torch.stack([row[name] for row in shared_rows]) for name in shared_rows[0]}
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
        `[T, T]`: entry `[i, j]` is `⟨grads_i, grads_j⟩`, or `⟨grads_i, other_j⟩` if `other` is given.
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


def is_sync_free(device: torch.device) -> bool:
    """Return True if reading a result does not block the host (CPU)."""
    return device.type == "cpu"


def keep_finite(gradients: TaskGradients, gram: Tensor | None = None) -> tuple[TaskGradients, Tensor]:
    """Set loss and gradients to 0 for tasks of which any is not finite; also return the sound tasks, `[T]` bool.

    A weight of 0 does not do that, since zero times nan is nan: one task's fault would be in everyone's step. Does not
    wait for the device; on a CPU, gradients that are all finite are returned as they are.

    Args:
        gradients: of all tasks.
        gram: Gramian `[T, T]` of the shared gradients, if it is known: its diagonal then tells without reading them.
    """
    losses, shared, heads = gradients
    # Unlike heads come in a list of T; otherwise every tensor has its tasks first.
    stacked = [] if isinstance(heads, list) else _tensors(heads)
    sums = [losses, *(_sum_by_task(one) for one in stacked)]
    sums += [_sum_by_task(one) for one in shared.values()] if gram is None else [gram.diagonal()]
    if isinstance(heads, list):
        zero = losses.new_zeros(())
        sums.append(torch.stack([sum((one.sum() for one in _tensors(head)), zero) for head in heads]))
    sound = torch.stack(sums).isfinite().all(dim=0)
    if is_sync_free(sound.device) and bool(sound.all()):  # then selecting is what costs
        return gradients, sound
    losses, shared = (tree_map(partial(_selected, sound), one) for one in (losses, shared))
    if isinstance(heads, list):
        heads = [tree_map(partial(_selected, one), head) for one, head in zip(sound, heads, strict=True)]
    else:
        heads = tree_map(partial(_selected, sound), heads)
    return TaskGradients(losses, shared, heads), sound


def _sum_by_task(values: Tensor) -> Tensor:
    """Sums `[T]` of `values [T, ...]`, without the copy that flattening a transposed view makes."""
    return values.sum(dim=tuple(range(1, values.ndim))) if values.ndim > 1 else values


def _tensors(tree: Tree) -> list[Tensor]:
    """The gradients in a tree, without the places of frozen parameters."""
    return [leaf for leaf in tree_leaves(tree) if leaf is not None]


def _selected(sound: Tensor, values: Tensor | None) -> Tensor | None:
    """`values`, and 0 where a task (first axis of `sound`) is not sound."""
    return (
        None
        if values is None
        else torch.where(sound.view(*sound.shape, *([1] * (values.ndim - sound.ndim))), values, 0)
    )


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
