"""A linear layer shared by all tasks, whose weight gradient keeps the task axis.

Every task owns its rows of the batch, so one backward pass already holds all task gradients: only the sum over
tasks, which the usual weight gradient performs, has to be left out. The forward product and the gradient with respect
to the input stay one large product over all rows.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor


class SharedWeight(ABC):
    """Stands in for a weight `[M, in, out]` in `shared_linear`.

    Attributes:
        shape: of the weight.
    """

    shape: torch.Size

    @abstractmethod
    def apply(self, x: Tensor, bias: Tensor) -> Tensor:
        """Return the result of `shared_linear`."""


def shared_linear(x: Tensor, weight: Tensor | SharedWeight, bias: Tensor) -> Tensor:
    """Apply ``x @ weight + bias`` for ``N`` networks side by side, each shared by all tasks.

    Args:
        x: ``[N, T, B, in]`` (or ``[1, T, B, in]``, the same input for every network).
        weight: ``[N, in, out]``; or ``[T, N, in, out]``, with a task axis: made by ``weight.expand(T, *weight.shape)``
            it is one weight for all tasks, whose gradient has a slice per task, otherwise each task has its own; or
            what stands in for a weight.
        bias: ``[N, 1, out]``, or ``[T, N, 1, out]`` made in the same way.

    Returns:
        ``[N, T, B, out]``.
    """
    if isinstance(weight, SharedWeight):
        return weight.apply(x, bias)
    if weight.dim() == 3:
        return _product(x, weight, bias)
    if weight.stride(0) != 0 and weight.shape[0] > 1:
        return torch.matmul(x, weight.transpose(0, 1)) + bias.transpose(0, 1)
    return _TaskAxisLinear.apply(x, weight, bias)


def _product(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    _, n_tasks, rows, width = x.shape
    n_nets = weight.shape[0]
    flat = x.expand(n_nets, -1, -1, -1).reshape(n_nets, n_tasks * rows, width)
    return torch.baddbmm(bias, flat, weight).view(n_nets, n_tasks, rows, -1)


class _TaskAxisLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return _product(x, weight[0], bias[0])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        n_nets, n_tasks, rows, out = grad.shape
        grad_x = grad_weight = grad_bias = None
        if ctx.needs_input_grad[0]:
            flat = torch.bmm(grad.reshape(n_nets, n_tasks * rows, out), weight[0].mT)
            grad_x = flat.view(n_nets, n_tasks, rows, -1).sum_to_size(x.shape)
        if ctx.needs_input_grad[1]:
            x_rows = x.expand(n_nets, -1, -1, -1).reshape(n_nets * n_tasks, rows, -1)
            product = torch.bmm(x_rows.mT, grad.reshape(n_nets * n_tasks, rows, out))
            # Contiguous as [N, T, in, out]: a transposed view, never a copy.
            grad_weight = product.view(n_nets, n_tasks, -1, out).transpose(0, 1)
        if ctx.needs_input_grad[2]:
            grad_bias = grad.sum(dim=2, keepdim=True).transpose(0, 1)
        return grad_x, grad_weight, grad_bias
