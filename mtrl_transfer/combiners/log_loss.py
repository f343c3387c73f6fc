"""Control: every loss divided by itself."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from mtrl_transfer.combiners.base import Combiner, live_tasks
from mtrl_transfer.combiners.registry import register
from mtrl_transfer.context import Context
from mtrl_transfer.steps import check_norm_factor, match_mean


def known_magnitudes(gramian: Tensor, context: Context) -> tuple[Tensor, Tensor]:
    """Return the magnitudes `[T]` of the losses, 1 where not known, and which are known, `[T]` bool.

    The magnitude is the absolute loss; of signed losses, whose own value says little, it is `context.scales`. A loss of
    0 is of a task that is solved or was left out: it has no logarithm, and its `1 / L` would take all.
    """
    magnitude = context.losses.abs()
    if context.signed and context.scales is not None:
        magnitude = context.scales
    known = live_tasks(gramian) & context.losses.isfinite() & (magnitude > 0) & magnitude.isfinite()
    known = known | ~known.any()
    largest = torch.where(known, magnitude, 0).max()
    least = torch.finfo(magnitude.dtype).eps * largest
    return torch.where(known & (largest > 0), torch.maximum(magnitude, least), 1), known


@register("log_loss")
class LogLoss(Combiner):
    """Weights `∝ 1/L_t`: the step along `Σ_t ∇log L_t`, the logarithm of the losses' geometric mean.

    Geometric loss strategy (Chennupati et al., 2019, *MultiNet++*, arXiv 1904.08492). A control for methods that weigh
    tasks: it needs neither gradients nor lookahead. Weights sum to 1, or to `n/T` where n of T tasks have a
    loss and a gradient (one scale), and are then brought to the norm of the mean gradient, as candidates are.

    Args:
        max_norm_factor: largest factor by which the result is brought to the norm of the mean gradient; None leaves it.
    """

    sync_free: ClassVar[bool] = True
    needs_context: ClassVar[bool] = True
    looks_ahead: ClassVar[bool] = False

    def __init__(self, max_norm_factor: float | None = 2.0) -> None:
        super().__init__()
        check_norm_factor(max_norm_factor)
        self.max_norm_factor = max_norm_factor

    def weigh(self, gramian: Tensor, context: Context | None) -> Tensor:
        """Return the weights `[T]`."""
        assert context is not None
        magnitude, known = known_magnitudes(gramian, context)
        shares = known / magnitude
        weights = (shares / shares.sum() * (known.sum() / len(known))).to(gramian.dtype)
        return match_mean(weights, gramian, self.max_norm_factor)
