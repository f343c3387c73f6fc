"""GradNorm: task weights learned so that all tasks train at a similar rate."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from mtrl_transfer.choices import check_number, check_positive
from mtrl_transfer.combiners.base import Combiner, live_tasks
from mtrl_transfer.combiners.registry import register
from mtrl_transfer.context import Context
from mtrl_transfer.scales import divide

LEAST_WEIGHT = 1e-3


@register("gradnorm")
class GradNorm(Combiner):
    """GradNorm (Chen et al., 2018, arXiv 1711.02257, Algorithm 1), with the whole trunk as the layer it balances.

    Weights `v_t` follow the gradient of `Σ_t |v_t ‖g_t‖ − Ḡ r_t^α|`, where `Ḡ` is the mean of `v_t ‖g_t‖` and `r_t` the
    task's loss relative to its first one, over the mean of that ratio. After each step they are brought to sum T. The
    paper sums weighted losses; here the weights are divided by T (one scale). Norms are taken relative to their mean,
    so that the rate does not depend on the losses' unit. Signed losses have no training rate: there `r_t = 1`. The
    weight of a task without a gradient rests, and the others keep their sum.

    Args:
        asymmetry: the paper's `α`: how strongly slow tasks are favoured.
        learning_rate: of the weights.
    """

    sync_free: ClassVar[bool] = True
    needs_context: ClassVar[bool] = True
    looks_ahead: ClassVar[bool] = False

    def __init__(self, asymmetry: float = 1.5, learning_rate: float = 0.025) -> None:
        super().__init__()
        check_number("asymmetry", asymmetry, 0)
        check_positive("learning_rate", learning_rate)
        self.asymmetry = asymmetry
        self.learning_rate = learning_rate

    def weigh(self, gramian: Tensor, context: Context | None) -> Tensor:
        """Weights `[T]`, as they stood before this call's step."""
        assert context is not None
        weights = self.state.setdefault("weights", torch.ones_like(gramian[0]))
        applied = weights / len(gramian)
        live = live_tasks(gramian)
        norms = gramian.diagonal().clamp(min=0).sqrt()
        norms = divide(norms, _mean(norms, live))
        scaled = weights * norms
        target = _mean(scaled, live) * self._rates(context, live) ** self.asymmetry
        stepped = weights - self.learning_rate * torch.sign(scaled - target) * norms
        stepped = torch.where(live, stepped.clamp(min=LEAST_WEIGHT), 0)
        total = torch.where(live, weights, 0).sum()
        weights.copy_(torch.where(live, stepped * total / stepped.sum(), weights))
        return applied

    def _rates(self, context: Context, live: Tensor) -> Tensor:
        """Return the inverse training rates `r_t [T]`; a task's first loss is the first with a gradient."""
        losses = context.losses
        first = self.state.setdefault("first_losses", torch.zeros_like(losses))
        first.copy_(torch.where((first == 0) & live, losses, first))
        if context.signed:
            return torch.ones_like(losses)
        remaining = divide(losses, first, 1)
        return divide(remaining, _mean(remaining, live), 1)


def _mean(values: Tensor, live: Tensor) -> Tensor:
    """Return the mean `[]` of `values [T]` over the live tasks."""
    return torch.where(live, values, 0).sum() / live.sum()
