"""The context of any multi-task model, for a training loop of one's own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.func import vmap
from torch.utils._pytree import tree_map

from mtrl_transfer.context import Context
from mtrl_transfer.gradients import TaskGradients, combine, gramian, per_task_gradients
from mtrl_transfer.lookahead import lookahead_losses, losses_at, move, over_candidates
from mtrl_transfer.optimizer_step import functional_step
from mtrl_transfer.precision import float32_products
from mtrl_transfer.steps import matched_step_size
from mtrl_transfer.tasks import AllLosses, Shared, TaskLoss, Tree


def make_context(
    task_loss: TaskLoss | Sequence[TaskLoss] | None,
    shared: Shared,
    heads: Tree,
    batch: Tree,
    grads: TaskGradients,
    *,
    lookahead_batch: Tree | None = None,
    step_norm: Tensor | None = None,
    scales: Tensor | None = None,
    signed: bool = False,
    losses: AllLosses | None = None,
    step_heads: bool = False,
    optimizer: torch.optim.Optimizer | None = None,
    predict: Callable[[dict[str, Tensor], Any, Any], Tensor] | None = None,
    loss_of: Callable[[Tensor, Any], Tensor] | None = None,
) -> Context:
    """What a combiner may ask about one update of this model.

    Args:
        task_loss: loss of one task, as in `per_task_gradients`.
        shared: shared parameters by name.
        heads: heads of all tasks.
        batch: rows of all tasks.
        grads: what `per_task_gradients` returned for `batch`.
        lookahead_batch: held-out rows for the lookahead, in the same form as `batch`; `batch` itself where not given.
        step_norm: see `Context`.
        scales: see `Context`.
        signed: see `Context`.
        losses: losses of all tasks at once, as in `per_task_gradients`.
        step_heads: look ahead with every head first stepped along its own gradient by `step_size / T`, as a joint
            gradient step would; otherwise heads stay fixed.
        optimizer: for `step_size='optimizer'`: it holds the shared parameters; SGD, Adam or AdamW.
        predict: for `measure='basis'`: `predict(shared, head, batch)`, one task's prediction; tasks must be alike.
        loss_of: for `measure='basis'`: `loss_of(prediction, batch)`, equal to `task_loss` of that prediction.
    """
    rows = batch if lookahead_batch is None else lookahead_batch
    model = _Model(task_loss, shared, heads, rows, grads, step_norm, losses, step_heads, optimizer, predict)
    return Context(
        losses=grads.losses,
        scales=scales,
        signed=signed,
        step_norm=step_norm,
        lookahead=model.lookahead,
        held_out_gramian=None if lookahead_batch is None else model.held_out_gramian,
        optimizer_lookahead=None if optimizer is None else model.optimizer_lookahead,
        predict=None if predict is None else model.predictions,
        loss_of=None if loss_of is None else _over_tasks(loss_of, rows),
    )


@dataclass
class _Model:
    task_loss: TaskLoss | Sequence[TaskLoss] | None
    shared: Shared
    heads: Tree
    rows: Tree
    grads: TaskGradients
    step_norm: Tensor | None
    losses: AllLosses | None
    step_heads: bool
    optimizer: torch.optim.Optimizer | None
    predict: Any

    def lookahead(self, weights: Tensor, step_size: Tensor | float | None = None) -> Tensor:
        if step_size is None:
            step_size = matched_step_size(gramian(self.grads.shared_grads), self.step_norm)
        heads = self._heads(step_size)
        steps = (weights, step_size, self.grads.shared_grads)
        return lookahead_losses(self.task_loss, self.shared, heads, self.rows, *steps, losses=self.losses)

    @float32_products()
    def held_out_gramian(self) -> Tensor:
        held_out = per_task_gradients(self.task_loss, self.shared, self.heads, self.rows, losses=self.losses)
        return gramian(self.grads.shared_grads, held_out.shared_grads)

    def optimizer_lookahead(self, weights: Tensor) -> Tensor:
        assert self.optimizer is not None
        if self.step_heads:
            raise ValueError("step_heads=True steps heads along their gradients; with step_size='optimizer' it cannot")
        moved = functional_step(self.optimizer, self.shared, combine(self.grads.shared_grads, weights))
        with_theta = {name: torch.cat([self.shared[name].detach()[None], value]) for name, value in moved.items()}
        return losses_at(self.task_loss, with_theta, self.heads, self.rows, losses=self.losses)

    def predictions(self, weights: Tensor, step_size: Tensor) -> Tensor:
        moved = move(self.shared, self.grads.shared_grads, weights, step_size)
        return over_candidates(self.predict, moved, self._heads(step_size), self.rows)

    def _heads(self, step_size: Tensor | float) -> Tree:
        if not self.step_heads:
            return self.heads
        factor = step_size / len(self.grads.losses)
        return tree_map(lambda head, grad: head.detach() - factor * grad, self.heads, self.grads.head_grads)


def _over_tasks(loss_of: Callable[[Tensor, Any], Tensor], rows: Tree) -> Callable[[Tensor], Tensor]:
    one_task = vmap(lambda prediction, own: loss_of(prediction, own).mean())
    return lambda predictions: one_task(predictions, rows)
