"""PCGrad: project each task gradient off those it conflicts with."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from mtrl_transfer.combiners.base import Combiner
from mtrl_transfer.combiners.registry import register
from mtrl_transfer.context import Context


@register("pcgrad")
class PCGrad(Combiner):
    """Gradient surgery (Yu et al., 2020, Algorithm 1), computed on the Gramian.

    For each task `i`, the other tasks in a random order drawn for that `i`: where the projected gradient so far
    conflicts with the *original* `g_j`, its component along `g_j` is removed. The paper sums the projected gradients;
    here their sum is divided by T (one scale).

    Args:
        generator: source of the orders; its own, on the Gramian's device, where not given (see `seed`).
    """

    sync_free: ClassVar[bool] = True

    def weigh(self, gramian: Tensor, context: Context | None) -> Tensor:
        """Weights `[T]` of the original task gradients."""
        return pcgrad_weights(gramian, random_orders(len(gramian), self.generator(gramian.device)))


def random_orders(n_tasks: int, generator: torch.Generator) -> Tensor:
    """`[T, T]`, an independent uniform permutation of all tasks in every row."""
    draws = torch.rand(n_tasks, n_tasks, generator=generator, device=generator.device, dtype=torch.float64)
    return draws.argsort(dim=1)


def pcgrad_weights(gramian: Tensor, orders: Tensor, members: Tensor | None = None) -> Tensor:
    """PCGrad's combination as weights of the original task gradients, divided by T.

    All tasks `i` (and all subsets) take their projection number `p` at once. Only the inner products of the projected
    gradients with the tasks still to come are carried along.

    Args:
        gramian: `[T, T]`.
        orders: `[T, T-1]` or `[T, T]`: row `i` is the order in which task `i` meets the others (itself is skipped).
        members: `[T]` or `[K, T]` bool: subsets within which to project; all tasks where not given.

    Returns:
        `[T]`, or `[K, T]`: rows sum the members' projected gradients, over T. A zero gradient projects nothing off.
    """
    n_tasks, length = orders.shape
    if members is None:
        members = torch.ones(n_tasks, dtype=torch.bool, device=gramian.device)
    norms = gramian.diagonal()[orders]
    others = orders != torch.arange(n_tasks, device=orders.device)[:, None]
    usable = members[..., orders] & others & (norms >= torch.finfo(gramian.dtype).tiny)
    negative_inverse = torch.where(usable, -1 / torch.where(usable, norms, 1), 0)  # [..., T, length]
    among = gramian[orders[:, :, None], orders[:, None, :]]  # [T, length, length]
    products = torch.gather(gramian, 1, orders).expand(usable.shape)
    steps = []
    for p in range(length):
        step = products[..., p].clamp(max=0) * negative_inverse[..., p]
        products = products + step[..., None] * among[:, p]
        steps.append(step)
    kept = members.to(gramian.dtype)
    added = (torch.stack(steps, -1) * kept[..., None]).flatten(-2)
    return kept.scatter_add(-1, orders.flatten().expand(added.shape), added) / n_tasks
