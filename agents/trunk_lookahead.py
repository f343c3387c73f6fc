"""Losses of all tasks at the ends of steps of one network's trunk."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from agents.losses import Parameters
from agents.networks import MultiTaskMLP
from mtrl_transfer.gradients import TaskGradients, combine, gramian, per_task_gradients
from mtrl_transfer.steps import matched_step_size

CPU_CHUNK = 1
"""Candidates at once on a CPU: the activations of one stay in its cache (1.5 times as fast as all at once)."""
RowLosses = Callable[..., Any]
"""``row_losses(batch, trunk=None, heads=None, trunk_shares=None)``, see :mod:`agents.losses`: a named tuple with
``losses [K, T, B]``.
"""


def task_gradients(network: MultiTaskMLP, row_losses: RowLosses, batch: Any) -> tuple[TaskGradients, Any]:
    """Task gradients of a network in one backward pass, and what ``row_losses`` gave (detached)."""
    rows: list[Any] = []

    def losses(trunk: Parameters, heads: Parameters, batch: Any) -> Tensor:
        rows.append(row_losses(batch, trunk, heads))
        return rows[0].losses.squeeze(0).mean(dim=-1)

    tasks = per_task_gradients(None, dict(network.trunk.items()), dict(network.heads.items()), batch, losses=losses)
    return tasks, detached(rows[0])


def detached(rows: Any) -> Any:
    """The same named tuple without its graph."""
    return rows._make(value.detach() for value in rows)


class TrunkLookahead:
    """``lookahead(weights [K, T], step_size=None) -> losses [K, T]`` for one update of one network.

    On a GPU all candidates are evaluated by one batched product per layer. The rows are drawn at the first call, so
    that an update that asks for no lookahead pays nothing.

    Args:
        network: whose trunk would step.
        row_losses: its loss.
        tasks: task gradients of this update.
        gram: their Gramian ``[T, T]``.
        step_norm: norm of the trunk's last real step ``[]``, for the matched step.
        make_batch: gives the rows.
    """

    def __init__(
        self,
        network: MultiTaskMLP,
        row_losses: RowLosses,
        tasks: TaskGradients,
        gram: Tensor,
        step_norm: Tensor,
        make_batch: Callable[[], Any],
    ) -> None:
        self.network, self.row_losses, self.tasks = network, row_losses, tasks
        self.gramian, self.step_norm, self._make_batch = gram, step_norm, make_batch

    @cached_property
    def batch(self) -> Any:
        """The lookahead's rows."""
        return self._make_batch()

    @torch.no_grad()
    def __call__(self, weights: Tensor, step_size: Tensor | float | None = None) -> Tensor:
        """Losses ``[K, T]`` at ``theta - step_size sum_t w_t g_t``; ``step_size=None``: the matched one."""
        if step_size is None:
            step_size = matched_step_size(self.gramian, self.step_norm)
        steps = combine(self.tasks.shared_grads, weights * -step_size)
        chunk = CPU_CHUNK if weights.device.type == "cpu" else len(weights)
        return torch.cat([self._losses_at(steps, slice(k, k + chunk)) for k in range(0, len(weights), chunk)])

    def _losses_at(self, steps: dict[str, Tensor], candidates: slice) -> Tensor:
        # [K, N, ...] lies in memory as [N, K, ...]: the networks' own order.
        trunk = {
            name: (step[candidates].transpose(0, 1) + self.network.trunk[name].unsqueeze(1)).flatten(0, 1)
            for name, step in steps.items()
        }
        return self.row_losses(self.batch, trunk).losses.mean(dim=-1)

    def held_out_gramian(self) -> Tensor:
        """Inner products ``[giver, receiver]`` of this update's task gradients with those on the lookahead's rows."""
        held_out, _ = task_gradients(self.network, self.row_losses, self.batch)
        return gramian(self.tasks.shared_grads, held_out.shared_grads)
