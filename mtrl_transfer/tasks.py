"""Parameters and rows of several tasks: stacked on a leading axis, or a list of unlike entries."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

Tree: TypeAlias = Any
"""Any nesting of dicts, tuples and named tuples of tensors."""
TaskLoss: TypeAlias = Callable[[dict[str, Tensor], Any, Any], Tensor]
"""`task_loss(shared, head, batch)`: loss of one task, a scalar or one value a row."""
AllLosses: TypeAlias = Callable[[dict[str, Tensor], Any, Any], Tensor]
"""`losses(shared, heads, batch) -> [T]`: every task at once, `shared[name]` is `[T, *shape]`."""
Shared: TypeAlias = Mapping[str, Tensor]


def are_unlike(task_loss: TaskLoss | Sequence[TaskLoss] | None, heads: Tree, batch: Tree) -> bool:
    """Return True if any argument is a list with one entry per task; tasks are then looped over."""
    return any(isinstance(argument, list) for argument in (task_loss, heads, batch))


def count_tasks(task_loss: TaskLoss | Sequence[TaskLoss] | None, heads: Tree, batch: Tree) -> int:
    """Return the number of tasks T, read from list lengths and leading axes; raise `ValueError` if these differ."""
    sizes = {}
    for name, argument in (("task_loss", task_loss), ("heads", heads), ("batch", batch)):
        if isinstance(argument, list):
            sizes[f"len({name})"] = len(argument)
        elif argument is not None and not callable(argument):
            for leaf in tree_leaves(argument):
                if isinstance(leaf, Tensor):
                    sizes[f"leading axis of {name}"] = leaf.shape[0] if leaf.ndim else 0
                    break
    if not sizes:
        raise ValueError("the number of tasks is unknown: neither heads nor batch holds a tensor or is a list")
    if len(set(sizes.values())) > 1:
        found = ", ".join(f"{name} = {size}" for name, size in sizes.items())
        raise ValueError(
            f"one entry per task is expected in all arguments (a list means one entry per task), found {found}"
        )
    return next(iter(sizes.values()))


def entry(argument: Tree, task: int) -> Tree:
    """Return a task's entry of a list, of a stacked tree, or the loss function that all tasks share."""
    if isinstance(argument, list):
        return argument[task]
    if callable(argument):
        return argument
    return tree_map(lambda leaf: leaf[task] if isinstance(leaf, Tensor) else leaf, argument)


def is_frozen(value: Any) -> bool:
    """Return True for a parameter of a module that does not require a gradient; plain tensors always train."""
    return isinstance(value, nn.Parameter) and not value.requires_grad


def n_rows(batch: Tree) -> int:
    """Return the rows of each task, read from the first tensor (of the first task)."""
    first, axis = (batch[0], 0) if isinstance(batch, list) else (batch, 1)
    shapes = [leaf.shape for leaf in tree_leaves(first) if isinstance(leaf, Tensor)]
    return shapes[0][axis] if shapes and len(shapes[0]) > axis else 1


def first_rows(batch: Tree, rows: int | None) -> Tree:
    """Return the batch with the first `rows` of every task; entries with one row a task stay. None: all rows."""
    if rows is None:
        return batch
    if isinstance(batch, list):
        return [tree_map(lambda leaf: leaf[:rows] if isinstance(leaf, Tensor) else leaf, one) for one in batch]

    def first(leaf: Any) -> Any:
        return leaf[:, :rows] if isinstance(leaf, Tensor) and leaf.ndim > 1 and leaf.shape[1] > 1 else leaf

    return tree_map(first, batch)
