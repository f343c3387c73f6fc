"""FAMO: balance the tasks' progress by the losses alone."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from mtrl_transfer.choices import check_number, check_positive
from mtrl_transfer.combiners.base import Combiner
from mtrl_transfer.combiners.log_loss import known_magnitudes
from mtrl_transfer.combiners.registry import register
from mtrl_transfer.context import Context

BETAS = (0.9, 0.999)
EPSILON = 1e-8


@register("famo")
class FAMO(Combiner):
    """Fast Adaptive Multitask Optimization (Liu et al., 2023, arXiv 2306.03792, Algorithm 1).

    The step is along `c Σ_t z_t ∇log L_t` with `z = softmax(ξ)` and `1/c = Σ_t z_t / L_t`, so weights sum to 1 (one
    scale: for equal losses and `ξ = 0` they are `1/T`), or to `n/T` where only n of T tasks have a loss and a gradient.
    `after_step` lowers `ξ_t` of tasks whose log-loss fell more than average, by Adam as in the authors' experiments.
    For signed losses, whose logarithm does not exist, `log L_t` becomes `L_t` over its magnitude (`context.scales`,
    or the absolute loss).

    Args:
        learning_rate: of `ξ`.
        decay: the paper's `γ`, which pulls `ξ` to zero.
    """

    sync_free: ClassVar[bool] = True
    needs_context: ClassVar[bool] = True
    looks_ahead: ClassVar[bool] = False
    needs_after_step: ClassVar[bool] = True

    def __init__(self, learning_rate: float = 0.025, decay: float = 0.01) -> None:
        super().__init__()
        check_positive("learning_rate", learning_rate)
        check_number("decay", decay, 0)
        self.learning_rate = learning_rate
        self.decay = decay
        self._before: tuple[Tensor, Tensor, Tensor, bool] | None = None

    def weigh(self, gramian: Tensor, context: Context | None) -> Tensor:
        """Weights `[T]`, summing to 1."""
        assert context is not None
        logits = self.state.setdefault("logits", torch.zeros_like(context.losses))
        magnitude, known = known_magnitudes(gramian, context)
        self._before = (context.losses, magnitude, known, context.signed)
        shares = torch.softmax(logits, 0) * known / magnitude
        return (shares / shares.sum() * (known.sum() / len(known))).to(gramian.dtype)

    def after_step(self, losses: Tensor) -> None:
        """Compare with the losses `[T]` on the same rows before the step, and step `ξ`."""
        if self._before is None:
            raise ValueError("after_step needs a call before it: there are no losses to compare with")
        before, magnitude, known, signed = self._before
        if signed:
            progress = (before - losses) / magnitude
        else:
            progress = torch.log(magnitude) - torch.log(torch.where(losses > 0, losses, magnitude))
        known = known & progress.isfinite()
        progress = torch.where(known, progress, 0)
        shares = torch.softmax(self.state["logits"], 0) * known
        shares = shares / shares.sum().clamp(min=torch.finfo(shares.dtype).tiny)
        gradient = shares * (progress - (shares * progress).sum()) + self.decay * self.state["logits"]
        self._adam(torch.where(gradient.isfinite(), gradient, 0))
        self._before = None

    def _adam(self, gradient: Tensor) -> None:
        logits = self.state["logits"]
        mean = self.state.setdefault("mean", torch.zeros_like(logits)).lerp_(gradient, 1 - BETAS[0])
        square = self.state.setdefault("square", torch.zeros_like(logits)).lerp_(gradient.square(), 1 - BETAS[1])
        steps = self.state.setdefault("steps", torch.zeros_like(logits[0])).add_(1)
        corrected = (square / (1 - BETAS[1] ** steps)).sqrt() + EPSILON
        logits.sub_(self.learning_rate * mean / (1 - BETAS[0] ** steps) / corrected)
