"""A shared hidden layer with a linear head per task, for any number of networks at once."""

from __future__ import annotations

import torch
from torch import Tensor

from studies.supervised.suites import Rows, Suite

Parameters = dict[str, Tensor]


def initial(suite: Suite, seed: int) -> tuple[Parameters, Parameters]:
    """Draw trunk and heads `[T, ...]` of one network, uniform as in torch's linear layers."""
    draw = torch.Generator().manual_seed(seed)

    def uniform(*shape: int, fan_in: int) -> Tensor:
        return (2 * torch.rand(*shape, generator=draw) - 1) / fan_in**0.5

    n_inputs, width, n_tasks, n_outputs = suite.train.x.shape[1], suite.width, suite.n_tasks, suite.n_outputs
    trunk = {"weight": uniform(n_inputs, width, fan_in=n_inputs), "bias": uniform(width, fan_in=n_inputs)}
    heads = {
        "weight": uniform(n_tasks, width, n_outputs, fan_in=width),
        "bias": uniform(n_tasks, n_outputs, fan_in=width),
    }
    return trunk, heads


def task_losses(trunk: Parameters, heads: Parameters, rows: Rows) -> Tensor:
    """Return the mean loss of every task `[..., T]`: cross-entropy of classes, squared error of numbers.

    Args:
        trunk: `[..., d, width]` and `[..., width]`; leading axes are networks.
        heads: `[..., T, width, outputs]` and `[..., T, outputs]`.
        rows: `x [..., n, d]` and `y [..., n, T]`, with leading axes that broadcast.
    """
    hidden = torch.tanh(rows.x @ trunk["weight"] + trunk["bias"].unsqueeze(-2))
    n_tasks, width, n_outputs = heads["weight"].shape[-3:]
    weight = heads["weight"].movedim(-3, -2).reshape(*heads["weight"].shape[:-3], width, n_tasks * n_outputs)
    out = hidden @ weight + heads["bias"].flatten(-2).unsqueeze(-2)
    if n_outputs == 1:
        return (out - rows.y).square().mean(dim=-2)
    logits = out.unflatten(-1, (n_tasks, n_outputs))
    labels = rows.y.expand(logits.shape[:-1]).unsqueeze(-1)
    return -logits.log_softmax(dim=-1).gather(-1, labels).squeeze(-1).mean(dim=-2)


def batches(suite: Suite, seed: int, n_steps: int, size: int) -> Tensor:
    """Draw the rows of each step `[n_steps, size]` with replacement; the same for every network of this seed."""
    draw = torch.Generator().manual_seed(1_000 + seed)
    return torch.randint(len(suite.train.x), (n_steps, size), generator=draw)


def take(rows: Rows, indices: Tensor) -> Rows:
    """Return the rows at `indices [..., n]`."""
    return Rows(rows.x[indices], rows.y[indices])
