"""Each task's own step of a network's trunk, on few rows."""

from __future__ import annotations

from typing import Any

import torch

from agents.losses import Parameters
from agents.networks import MultiTaskMLP
from agents.trunk_lookahead import Loss, detached
from mtrl_transfer.gradients import expand_over_tasks, gramian
from mtrl_transfer.low_rank import SteppedWeight, TappedWeight, low_rank_gramian
from mtrl_transfer.steps import matched_step_size


def steps_alone(network: MultiTaskMLP, loss: Loss, batch: Any, step_norm: torch.Tensor) -> tuple[Parameters, Any]:
    """The trunk after a step along each task's gradient alone, without copies of its weights.

    Args:
        network: whose trunk would step; task ``t`` alone weighs ``1/T``.
        loss: its loss.
        batch: rows of every task.
        step_norm: norm ``[]`` of a step along the mean gradient; the tasks' own are in proportion.

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
