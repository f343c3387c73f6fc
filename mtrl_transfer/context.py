"""What a combiner may need beyond the Gramian."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from mtrl_transfer.gradients import TaskGradients, gramian, per_task_gradients
from mtrl_transfer.lookahead import lookahead_losses
from mtrl_transfer.steps import matched_step_size
from mtrl_transfer.tasks import AllLosses, Shared, TaskLoss, Tree


class Lookahead(Protocol):
    """`lookahead(weights [K, T], step_size) -> losses [K, T]` at `θ − step_size Σ_t w_t g_t`."""

    def __call__(self, weights: Tensor, step_size: Tensor | float | None = None) -> Tensor:
        """`step_size=None` is the matched one (see `steps`)."""


@dataclass(kw_only=True)
class Context:
    """One update, as a combiner sees it. Nothing here may change parameters, gradients or foreign random streams.

    Attributes:
        losses: `[T]`, the tasks' losses on the rows that gave the gradients.
        scales: `[T]`, magnitude of each loss at this instant, for losses whose own value says little (the standard
            deviation over rows, for an actor). None: the absolute loss.
        signed: whether losses may be negative; ratios of losses then mean nothing.
        step_norm: `[]`, norm of the trunk's last real step; 0 before the first.
        lookahead: losses at the end of candidates' steps, on the rows the caller chose for it.
        held_out_gramian: `[T giver, T receiver]`, inner products of the task gradients with gradients on the
            lookahead's own rows. Called only by first-order transference on held-out rows.
    """

    losses: Tensor
    scales: Tensor | None = None
    signed: bool = False
    step_norm: Tensor | None = None
    lookahead: Lookahead | None = None
    held_out_gramian: Callable[[], Tensor] | None = None


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
) -> Context:
    """Context of any multi-task model, for a training loop of one's own.

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
    """
    rows = batch if lookahead_batch is None else lookahead_batch

    def lookahead(weights: Tensor, step_size: Tensor | float | None = None) -> Tensor:
        if step_size is None:
            step_size = matched_step_size(gramian(grads.shared_grads), step_norm)
        return lookahead_losses(task_loss, shared, heads, rows, weights, step_size, grads.shared_grads, losses=losses)

    def held_out_gramian() -> Tensor:
        held_out = per_task_gradients(task_loss, shared, heads, rows, losses=losses)
        return gramian(grads.shared_grads, held_out.shared_grads)

    return Context(
        losses=grads.losses,
        scales=scales,
        signed=signed,
        step_norm=step_norm,
        lookahead=lookahead,
        held_out_gramian=None if lookahead_batch is None else held_out_gramian,
    )
