"""A multi-task network with its loss, as an update and its lookahead see it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, TypeVar

import torch
from torch import Tensor
from torch.func import vmap
from torch.utils._pytree import tree_flatten, tree_unflatten

from mtrl_transfer.gradients import TaskGradients, gradients_of, per_task_gradients
from mtrl_transfer.tasks import AllLosses, Shared, TaskLoss, Tree, are_unlike, count_tasks, entry, is_frozen

Given_co = TypeVar("Given_co", covariant=True)
"""Result of a loss: a named tuple whose `losses` are `[1, T, rows]`."""


class Model(Protocol[Given_co]):
    """The questions that an update asks of a network and its loss.

    A `batch` holds rows of every task and everything random in the loss. `trunks` are K values of the trunk,
    `[K, *shape]` for every parameter; None stands for the present one (K = 1).
    """

    @property
    def trunk(self) -> Mapping[str, Tensor]:
        """Parameters that all tasks share, by name; frozen ones are included."""

    @property
    def heads(self) -> Tree:
        """Parameters of single tasks."""

    @property
    def n_tasks(self) -> int:
        """T."""

    @property
    def signed(self) -> bool:
        """True if losses may be negative."""

    @property
    def linear(self) -> Collection[str]:
        """Trunk parameters that act through `shared_linear` alone; empty where `tapped` does not exist."""

    def gradients(self, batch: Any, trunk: Shared | None = None) -> tuple[TaskGradients, Given_co]:
        """Task gradients, and the detached result of the loss."""

    def plain_gradients(self, batch: Any, weights: Tensor | None) -> tuple[list[Tensor], Given_co] | None:
        """Gradients of all that trains by one plain backward pass, the trunk's first, and the result of the loss.

        Args:
            batch: rows of every task.
            weights: `[T]`, of the task gradients in the trunk's; heads take `1/T` of their own. None: all `1/T`.

        Returns:
            None if this model cannot do that.
        """

    def losses(self, batch: Any, trunks: Mapping[str, Any] | None = None, heads: Tree = None) -> Tensor:
        """Losses `[K, T]`; `heads` replace the present ones."""

    def row_losses(self, batch: Any, trunks: Mapping[str, Any] | None = None) -> Tensor:
        """Losses of single rows `[K, T, rows]`."""

    def losses_of_own(self, batch: Any, trunks: Mapping[str, Tensor]) -> Tensor:
        """Losses `[T]`, each task at its own trunk of `trunks [T, *shape]`."""

    def predictions(self, batch: Any, trunks: Mapping[str, Tensor]) -> Tensor:
        """Predictions `[K, T, ...]`."""

    def loss_of(self, batch: Any) -> Callable[[Tensor], Tensor]:
        """Losses `[T]` as a function of predictions `[T, ...]`, differentiable twice."""

    def tapped(self, batch: Any, trunk: Mapping[str, Any]) -> Given_co:
        """Return the result of the loss, with its graph, at a trunk with a task axis, `[T, *shape]`.

        `linear` weights may be stand-ins (`SharedWeight`).
        """


class Losses(NamedTuple):
    """`losses [1, T, 1]` of a `FunctionalModel`."""

    losses: Tensor


class FunctionalModel:
    """A `Model` made of plain functions and tensors.

    Args:
        task_loss: loss of one task, as in `per_task_gradients`.
        shared: shared parameters by name.
        heads: heads of all tasks.
        losses: losses of all tasks at once, as in `per_task_gradients`.
        signed: True if losses may be negative.
        predict: for `measure='basis'`: `predict(shared, head, batch)`, one task's prediction; tasks must be alike.
        loss_of: for `measure='basis'`: `loss_of(prediction, batch)`, equal to `task_loss` of that prediction.
        n_tasks: T; None: read from `task_loss` and `heads`.

    Raises:
        ValueError: if the number of tasks is unknown or differs between arguments.
    """

    linear = ()

    def __init__(
        self,
        task_loss: TaskLoss | Sequence[TaskLoss] | None,
        shared: Shared,
        heads: Tree,
        *,
        losses: AllLosses | None = None,
        signed: bool = False,
        predict: Callable[[dict[str, Tensor], Any, Any], Tensor] | None = None,
        loss_of: Callable[[Tensor, Any], Tensor] | None = None,
        n_tasks: int | None = None,
    ) -> None:
        self.task_loss, self.trunk, self.heads, self.all_losses = task_loss, shared, heads, losses
        self.signed, self._predict, self._loss_of = signed, predict, loss_of
        self.n_tasks = count_tasks(task_loss, heads, None) if n_tasks is None else n_tasks

    def gradients(self, batch: Tree, trunk: Shared | None = None) -> tuple[TaskGradients, Losses]:
        """Task gradients and losses."""
        shared = self.trunk if trunk is None else trunk
        found = per_task_gradients(self.task_loss, shared, self.heads, batch, losses=self.all_losses)
        return found, Losses(found.losses.view(1, -1, 1))

    def plain_gradients(self, batch: Tree, weights: Tensor | None) -> tuple[list[Tensor], Losses] | None:
        """Gradients of the mean of the task losses; None for other weights."""
        if weights is not None:
            return None
        leaves, structure = tree_flatten((dict(self.trunk), self.heads))
        leaves = [leaf.detach() if is_frozen(leaf) else leaf.detach().requires_grad_() for leaf in leaves]
        with torch.enable_grad():
            shared, heads = tree_unflatten(leaves, structure)
            losses = self._task_losses(shared, heads, batch)
            found = gradients_of(losses.mean(), [leaf for leaf in leaves if leaf.requires_grad])
        return found, Losses(losses.detach().view(1, -1, 1))

    def losses(self, batch: Tree, trunks: Mapping[str, Tensor] | None = None, heads: Tree = None) -> Tensor:
        """Losses `[K, T]`."""
        heads = self.heads if heads is None else heads
        if trunks is None:
            return self._task_losses(dict(self.trunk), heads, batch)[None]
        if self.all_losses is not None or are_unlike(self.task_loss, heads, batch):
            return torch.stack([self._task_losses(trunk, heads, batch) for trunk in _each(trunks)])
        # Candidates outside and tasks inside is about twice as fast as the other way round.
        return vmap(self._task_losses, in_dims=(0, None, None))(dict(trunks), heads, batch)

    def losses_of_own(self, batch: Tree, trunks: Mapping[str, Tensor]) -> Tensor:
        """Losses `[T]`, each task at its own trunk."""
        if self.all_losses is not None:
            return self.all_losses(dict(trunks), self.heads, batch)
        if are_unlike(self.task_loss, self.heads, batch):
            tables = [self._rows_of(t, trunk, batch) for t, trunk in enumerate(_each(trunks))]
            return torch.stack([rows.mean() for rows in tables])
        return vmap(lambda *of_task: self._of(0)(*of_task).mean())(dict(trunks), self.heads, batch)

    def row_losses(self, batch: Tree, trunks: Mapping[str, Tensor] | None = None) -> Tensor:
        """Losses of single rows `[K, T, rows]`.

        Raises:
            ValueError: if `task_loss` returns a scalar, or tasks have different numbers of rows.
        """
        trunks = {name: value[None] for name, value in self.trunk.items()} if trunks is None else trunks
        tables = [[self._rows_of(t, trunk, batch) for t in range(self.n_tasks)] for trunk in _each(trunks)]
        shapes = {tuple(rows.shape) for table in tables for rows in table}
        if len(shapes) > 1 or len(next(iter(shapes))) != 1:
            raise ValueError(f"single rows need a task_loss that returns [rows], the same for all tasks, got {shapes}")
        return torch.stack([torch.stack(table) for table in tables])

    def predictions(self, batch: Tree, trunks: Mapping[str, Tensor]) -> Tensor:
        """Predictions `[K, T, ...]`."""
        if self._predict is None:
            raise ValueError("measure='basis' needs predict=, which says how predictions arise")
        over_tasks = vmap(self._predict, in_dims=(None, 0, 0))
        return vmap(over_tasks, in_dims=(0, None, None))(dict(trunks), self.heads, batch)

    def loss_of(self, batch: Tree) -> Callable[[Tensor], Tensor]:
        """Losses `[T]` of predictions `[T, ...]`."""
        if (function := self._loss_of) is None:
            raise ValueError("measure='basis' needs loss_of=, which says how losses follow from predictions")
        one_task = vmap(lambda prediction, own: function(prediction, own).mean())
        return lambda predictions: one_task(predictions, batch)

    def tapped(self, batch: Tree, trunk: Mapping[str, Any]) -> Losses:
        """Raise: no weight of a plain function is known to be linear."""
        raise NotImplementedError

    def _task_losses(self, shared: dict[str, Tensor], heads: Tree, batch: Tree) -> Tensor:
        """Losses `[T]` at one trunk."""
        if self.all_losses is not None:
            expanded = {name: value.expand(self.n_tasks, *value.shape) for name, value in shared.items()}
            return self.all_losses(expanded, heads, batch)
        if are_unlike(self.task_loss, heads, batch):
            tasks = range(self.n_tasks)
            return torch.stack([self._of(t)(shared, entry(heads, t), entry(batch, t)).mean() for t in tasks])
        return vmap(lambda head, rows: self._of(0)(shared, head, rows).mean())(heads, batch)

    def _of(self, task: int) -> TaskLoss:
        """The loss of one task."""
        if self.task_loss is None:
            raise ValueError("task_loss=None needs losses=, which evaluates all tasks at once but no single rows")
        return entry(self.task_loss, task)

    def _rows_of(self, task: int, shared: dict[str, Tensor], batch: Tree) -> Tensor:
        return self._of(task)(shared, entry(self.heads, task), entry(batch, task))


def _each(trunks: Mapping[str, Tensor]) -> list[dict[str, Tensor]]:
    """The K trunks one by one."""
    n_trunks = len(next(iter(trunks.values())))
    return [{name: value[k] for name, value in trunks.items()} for k in range(n_trunks)]
