"""A task's step through a shared linear layer, without its gradient's matrix.

A layer's task gradient is `inputsᵀ deltas`, of a rank no higher than the task has rows. On few rows, multiplying by
the two factors takes less than making the matrix, its inner products with other tasks' and a stepped copy of the layer.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mtrl_transfer.shared_linear import SharedWeight, shared_linear


class TappedWeight(SharedWeight):
    """A weight that keeps the inputs and outputs of its call; not differentiated itself.

    Args:
        weight: `[N, in, out]`.
        n_tasks: `T`.

    Attributes:
        inputs: `[N, T, B, in]` (or `[1, T, B, in]`), of the one call.
        outputs: `[N, T, B, out]`; the gradient of the tasks' losses with respect to them are the deltas.
    """

    def __init__(self, weight: Tensor, n_tasks: int) -> None:
        self.weight = weight.detach().expand(n_tasks, *weight.shape)
        self.shape = self.weight.shape

    def apply(self, x: Tensor, bias: Tensor) -> Tensor:
        """`x @ weight + bias`, with `bias [T, N, 1, out]` expanded over tasks."""
        self.inputs, self.outputs = x.detach(), shared_linear(x, self.weight, bias)
        return self.outputs


class SteppedWeight(SharedWeight):
    """`T` weights, the `t`-th a step along task `t`'s negative gradient away.

    Args:
        weight: `[N, in, out]`.
        inputs: `[N, T, B, in]` (or `[1, T, B, in]`), as they went into the layer.
        deltas: `[N, T, B, out]`, gradients of the tasks' losses with respect to what came out.
        step_size: `[]`.
    """

    def __init__(self, weight: Tensor, inputs: Tensor, deltas: Tensor, step_size: Tensor) -> None:
        self.weight, self.inputs, self.steps = weight.detach(), inputs, deltas * -step_size
        n_nets, n_tasks = deltas.shape[:2]
        self.shape = torch.Size([n_nets * n_tasks, *weight.shape[1:]])

    def apply(self, x: Tensor, bias: Tensor) -> Tensor:
        """`x @ weight + bias` for all: `x [N * T, T, B', in]` or `[1, T, B', in]`, `bias [N * T, 1, out]`.

        Returns:
            `[N * T, T, B', out]`.
        """
        n_nets, n_givers = self.steps.shape[:2]
        n_tasks, rows, width = x.shape[1:]
        x = x.reshape(len(x) // n_givers or 1, -1, n_tasks * rows, width)  # [N or 1, givers or 1, rows, in]
        # Givers join the rows: a batched product would copy the weight for each of them.
        shared = torch.matmul(x.flatten(1, 2), self.weight).unflatten(1, x.shape[1:3])
        own = torch.matmul(torch.matmul(x, self.inputs.mT), self.steps)
        return (own + shared).add_(bias.view(n_nets, n_givers, 1, -1)).view(n_nets * n_givers, n_tasks, rows, -1)


def low_rank_gramian(inputs: Tensor, deltas: Tensor) -> Tensor:
    """Inner products `[T, T]` of the tasks' gradients of a layer's weight.

    Args:
        inputs: `[N, T, B, in]` or `[1, T, B, in]`.
        deltas: `[N, T, B, out]`.
    """
    n_tasks, rows = deltas.shape[1:3]
    x, d = inputs.flatten(1, 2), deltas.flatten(1, 2)
    products = (torch.matmul(x, x.mT) * torch.matmul(d, d.mT)).sum(0)
    return products.view(n_tasks, rows, n_tasks, rows).sum(dim=(1, 3))
