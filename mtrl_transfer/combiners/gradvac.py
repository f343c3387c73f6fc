"""GradVac: raise the cosine of two task gradients to what it usually is."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from mtrl_transfer.combiners import pcgrad
from mtrl_transfer.combiners.base import Combiner
from mtrl_transfer.combiners.registry import register
from mtrl_transfer.context import Context

LARGEST_TARGET = 1 - 1e-6
"""Targets are kept off 1, where the correction has no finite length."""


@register("gradvac")
class GradVac(Combiner):
    """Gradient Vaccine (Wang et al., 2021, arXiv 2010.05874, Algorithm 1), computed on the Gramian.

    As PCGrad, but where PCGrad removes a conflict, GradVac adds so much of `g_j` that the cosine of the corrected `g_i`
    with `g_j` reaches its running mean `φ̂_ij`. The paper sums the corrected gradients; here the sum is divided by T
    (one scale).

    Args:
        beta: share of the newest cosine in the running mean; the paper's 0.01.
        generator: source of the orders, as in `PCGrad`.
    """

    recordable: ClassVar[bool] = True

    def __init__(self, beta: float = 0.01, generator: torch.Generator | None = None) -> None:
        super().__init__(generator)
        if not 0 <= beta <= 1:
            raise ValueError(f"beta={beta} must be between 0 and 1")
        self.beta = beta

    def weigh(self, gramian: Tensor, context: Context | None) -> Tensor:
        """Weights `[T]` of the original task gradients."""
        targets = self.state.setdefault("targets", torch.zeros_like(gramian))
        orders = pcgrad.random_orders(len(gramian), self.generator(gramian.device))
        weights, cosines = gradvac_weights(gramian, orders, targets)
        targets.lerp_(cosines, self.beta)
        return weights


def gradvac_weights(gramian: Tensor, orders: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """GradVac's combination, and the cosines that it met.

    Args:
        gramian: `[T, T]`.
        orders: `[T, T]`: row `i` is the order in which task `i` meets the others (itself is skipped).
        targets: `[T, T]`, running means `φ̂_ij`.

    Returns:
        Weights `[T]`, divided by T; cosines `[T, T]` of the corrected `g_i` with `g_j` when they met.
    """
    n_tasks = len(gramian)
    mixture = torch.eye(n_tasks, dtype=gramian.dtype, device=gramian.device)  # row i: corrected g_i
    products = gramian  # with every original gradient
    cosines = targets.clone()
    lengths = gramian.diagonal().clamp(min=0).sqrt()
    for meeting in orders.T:
        column = meeting[:, None]
        own = (mixture * products).sum(1).clamp(min=0).sqrt()
        met = lengths[meeting]
        usable = (meeting != torch.arange(n_tasks, device=meeting.device)) & (own * met > 0)
        cosine = torch.where(usable, products.gather(1, column)[:, 0] / torch.where(usable, own * met, 1), 0).clamp(
            -1, 1
        )
        target = targets.gather(1, column)[:, 0]
        goal = target.clamp(-LARGEST_TARGET, LARGEST_TARGET)
        added = (goal * _sine(cosine) / _sine(goal) - cosine) * own / torch.where(usable, met, 1)
        added = torch.where(usable & (cosine < target), added, 0)
        mixture = mixture.scatter_add(1, column, added[:, None])
        products = products + added[:, None] * gramian[meeting]
        cosines = cosines.scatter(1, column, torch.where(usable, cosine, target)[:, None])
    return mixture.sum(0) / n_tasks, cosines


def _sine(cosine: Tensor) -> Tensor:
    return (1 - cosine.square()).clamp(min=0).sqrt()
