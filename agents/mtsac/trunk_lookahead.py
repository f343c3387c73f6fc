"""Losses of all tasks at the ends of steps of one network's trunk."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from mtrl_transfer.agents.mtsac.losses import ActorLoss, CriticLoss, Parameters
from mtrl_transfer.agents.mtsac.networks import MultiTaskMLP
from mtrl_transfer.gradients import TaskGradients, combine, gramian, per_task_gradients
from mtrl_transfer.optimizer_step import functional_step
from mtrl_transfer.precision import float32_products
from mtrl_transfer.scales import squared_norms
from mtrl_transfer.steps import matched_step_size

CLIP_EPSILON = 1e-6
"""As in torch's ``clip_grad_norm_``."""
CPU_UNITS = 256_000
"""Rows (candidates times tasks times rows a task) times width at once on a CPU: their activations stay in its cache,
which made exact lookahead 1.5 times as fast as all candidates at once; fewer would leave small networks to overhead.
"""
Loss = CriticLoss | ActorLoss


def task_gradients(network: MultiTaskMLP, loss: Loss, batch: Any) -> tuple[TaskGradients, Any]:
    """Task gradients of a network in one backward pass, and what ``loss`` gave (detached)."""
    rows: list[Any] = []

    def losses(trunk: Parameters, heads: Parameters, batch: Any) -> Tensor:
        rows.append(loss(batch, trunk, heads))
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
        loss: its loss.
        tasks: task gradients of this update.
        gram: their Gramian ``[T, T]``.
        step_norm: norm of the trunk's last real step ``[]``, for the matched step.
        make_batch: gives the rows.
        step_heads: look ahead with heads stepped along their own gradients first, as a joint gradient step would.
    """

    def __init__(
        self,
        network: MultiTaskMLP,
        loss: Loss,
        tasks: TaskGradients,
        gram: Tensor,
        step_norm: Tensor,
        make_batch: Callable[[], Any],
        step_heads: bool = False,
    ) -> None:
        self.network, self.loss, self.tasks = network, loss, tasks
        self.gramian, self.step_norm, self._make_batch = gram, step_norm, make_batch
        self.step_heads = step_heads

    @cached_property
    def batch(self) -> Any:
        """The lookahead's rows."""
        return self._make_batch()

    @float32_products()
    @torch.no_grad()
    def __call__(self, weights: Tensor, step_size: Tensor | float | None = None) -> Tensor:
        """Losses ``[K, T]`` at ``theta - step_size sum_t w_t g_t``; ``step_size=None``: the matched one."""
        if step_size is None:
            step_size = matched_step_size(self.gramian, self.step_norm)
        heads = self._heads(step_size)
        return torch.cat([self._losses(trunk, heads) for trunk in self._trunks(weights, step_size)])

    @float32_products()
    @torch.no_grad()
    def predictions(self, weights: Tensor, step_size: Tensor) -> Tensor:
        """What the network predicts there: ``[K, T, B, outputs]``."""
        heads = self._heads(step_size)
        found = [self.loss.predictions(self.batch, trunk, heads) for trunk in self._trunks(weights, step_size)]
        return torch.cat(found)

    @float32_products()
    def loss_of(self, predictions: Tensor) -> Tensor:
        """Losses ``[T]`` of predictions ``[T, B, outputs]`` on the lookahead's rows."""
        return self._loss_of(predictions)

    @cached_property
    def _loss_of(self) -> Callable[[Tensor], Tensor]:
        return self.loss.loss_of(self.batch)

    @float32_products()
    def held_out_gramian(self) -> Tensor:
        """Inner products ``[giver, receiver]`` of this update's task gradients with those on the lookahead's rows."""
        held_out, _ = task_gradients(self.network, self.loss, self.batch)
        return gramian(self.tasks.shared_grads, held_out.shared_grads)

    @float32_products()
    @torch.no_grad()
    def after_optimizer(self, weights: Tensor, optimizer: torch.optim.Optimizer, max_grad_norm: float | None) -> Tensor:
        """Losses ``[1 + K, T]``: as they are, and where the optimizer would bring the trunk with each candidate."""
        rows = weights if max_grad_norm is None else weights * self._clipping(weights, max_grad_norm)
        shared, gradients = dict(self.network.trunk.items()), combine(self.tasks.shared_grads, rows)
        losses = [self._losses(shared, None)]
        for some in self._chunks(len(rows)):
            moved = functional_step(optimizer, shared, {name: one[some] for name, one in gradients.items()})
            losses.append(self._losses({name: _net_by_net(value) for name, value in moved.items()}, None))
        return torch.cat(losses)

    def _clipping(self, weights: Tensor, max_grad_norm: float) -> Tensor:
        """Factor ``[K, 1]`` by which the real step would clip each candidate's gradient, heads included."""
        heads = [(grad / self.network.n_tasks).square().sum() for grad in self.tasks.head_grads.values()]
        norms = (squared_norms(self.gramian, weights) + torch.stack(heads).sum()).sqrt()
        return (max_grad_norm / (norms + CLIP_EPSILON)).clamp(max=1.0).unsqueeze(1)

    def _losses(self, trunk: Parameters, heads: Parameters | None) -> Tensor:
        return self.loss(self.batch, trunk, heads).losses.mean(dim=-1)

    def _heads(self, step_size: Tensor | float) -> Parameters | None:
        if not self.step_heads:
            return None
        factor = step_size / self.network.n_tasks
        return {name: head - factor * self.tasks.head_grads[name] for name, head in self.network.heads.items()}

    def _trunks(self, weights: Tensor, step_size: Tensor | float) -> Iterator[Parameters]:
        """Candidate trunks ``[N * K, ...]``, as many at a time as are evaluated at once."""
        steps = combine(self.tasks.shared_grads, weights * -step_size)
        for some in self._chunks(len(weights)):
            yield {name: _net_by_net(step[some] + self.network.trunk[name]) for name, step in steps.items()}

    def _chunks(self, n_candidates: int) -> list[slice]:
        """Candidates that are evaluated at once."""
        units = self.network.n_tasks * self.batch[0].shape[1] * self.network.width
        size = max(CPU_UNITS // units, 1) if self.gramian.device.type == "cpu" else n_candidates
        return [slice(first, first + size) for first in range(0, n_candidates, size)]


def _net_by_net(candidates: Tensor) -> Tensor:
    """``[K, N, ...]``, which lies in memory as ``[N, K, ...]``, as ``[N * K, ...]``, the networks' own order."""
    return candidates.transpose(0, 1).flatten(0, 1)
