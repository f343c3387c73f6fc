"""What each task's own step of a network's trunk does to all tasks."""

from __future__ import annotations

from typing import Any

import torch

from mtrl_transfer.agents.mtsac.losses import Parameters
from mtrl_transfer.agents.mtsac.networks import MultiTaskMLP
from mtrl_transfer.agents.mtsac.trunk_lookahead import Loss, TrunkLookahead, detached, task_gradients
from mtrl_transfer.gradients import expand_over_tasks, gramian
from mtrl_transfer.low_rank import SteppedWeight, TappedWeight, low_rank_gramian
from mtrl_transfer.precision import float32_products
from mtrl_transfer.steps import matched_step_size

FEW = 4
"""A task has few rows where the widest layer is so many times wider: then products with its two thin factors take less
than its gradient's matrix does.
"""


@float32_products()
def effects_alone(
    network: MultiTaskMLP, loss: Loss, batch: Any, others: Any, step_norm: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, Any]:
    """Losses on other rows, before and after a step along each task's gradient alone.

    Args:
        network: whose trunk would step; task ``t`` alone weighs ``1/T``.
        loss: its loss.
        batch: rows of every task, for the gradients.
        others: the rows to look ahead on.
        step_norm: norm ``[]`` of a step along the mean gradient; the tasks' own are in proportion.

    Returns:
        Losses ``[T]`` before, ``[T giver, T]`` after, and what ``loss`` gave on ``batch``.
    """
    n_tasks, n_rows = batch[0].shape[:2]
    if n_rows * FEW <= max(value.shape[-1] for value in network.trunk.values()):
        trunk, rows = steps_alone(network, loss, batch, step_norm)
        with torch.no_grad():
            before, after = (loss(others, one).losses.mean(dim=-1) for one in (None, trunk))
        return before.squeeze(0), after, rows
    tasks, rows = task_gradients(network, loss, batch)
    gram = gramian(tasks.shared_grads)
    lookahead = TrunkLookahead(network, loss, tasks, gram, step_norm, lambda: others)
    alone = torch.eye(n_tasks, dtype=gram.dtype, device=gram.device) / n_tasks
    table = lookahead(torch.cat([torch.zeros_like(alone[:1]), alone]))
    return table[0], table[1:], rows


@float32_products()
def steps_alone(network: MultiTaskMLP, loss: Loss, batch: Any, step_norm: torch.Tensor) -> tuple[Parameters, Any]:
    """The trunk after a step along each task's gradient alone, without copies of its weights.

    Arguments are those of :func:`effects_alone`.

    Returns:
        The trunks ``[N * T, ...]``, as ``loss`` takes them, and what ``loss`` gave before the step.
    """
    trunk, n_tasks = dict(network.trunk.items()), network.n_tasks
    weights = {name: TappedWeight(value, n_tasks) for name, value in trunk.items() if name.startswith("weight")}
    others = expand_over_tasks({name: value for name, value in trunk.items() if name not in weights}, n_tasks)
    for value in others.values():
        value.requires_grad_()
    with torch.enable_grad():
        rows = loss(batch, {**weights, **others})  # type: ignore[dict-item]
        outputs = [weight.outputs for weight in weights.values()]
        found = torch.autograd.grad(rows.losses.mean(dim=-1).sum(), [*outputs, *others.values()])
    deltas, gradients = dict(zip(weights, found, strict=False)), dict(zip(others, found[len(weights) :], strict=True))
    gram = gramian(gradients)
    for name, weight in weights.items():
        gram += low_rank_gramian(weight.inputs, deltas[name])
    step = matched_step_size(gram, step_norm) / n_tasks
    stepped: dict[str, Any] = {
        name: SteppedWeight(trunk[name], weight.inputs, deltas[name], step) for name, weight in weights.items()
    }
    for name, gradient in gradients.items():
        stepped[name] = (trunk[name].detach() - step * gradient).transpose(0, 1).flatten(0, 1)
    return stepped, detached(rows)
