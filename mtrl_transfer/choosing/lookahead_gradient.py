"""Losses of all weights from one look at the full set's step: its losses, and the task gradients there."""

from __future__ import annotations

import torch
from torch import Tensor

from mtrl_transfer import scales
from mtrl_transfer.choosing.measures import ModelMeasure
from mtrl_transfer.choosing.quadratic import Quadratic
from mtrl_transfer.context import Context


class LookaheadGradient(ModelMeasure):
    """First order at the end of the full set's step, and the curvature along it: two forwards and one backward.

    With `θ_1` the end of the full set's step `g_1`, `h_j = ∇L_j(θ_1)` and `α(w) = ⟨g_w, g_1⟩ / ‖g_1‖²`, the part of
    that step which `w` takes,

        L_j(w) ≈ L_j(θ_1) − η⟨g_w − g_1, h_j⟩ + κ_j (α(w) − 1)²,    κ_j = L_j(θ) − L_j(θ_1) − η⟨g_1, h_j⟩

    which is exact at `θ` and at `θ_1`; elsewhere the error falls with the square of the distance from the full set.
    """

    def __call__(self, context: Context, gramian: Tensor, rows: Tensor, step_size: Tensor) -> Quadratic:
        """Return losses that are quadratic in the weights; `rows[0]` is the full set."""
        lookahead, full_set = self.look(context), rows[0]
        before = lookahead(torch.zeros_like(rows[:1]), step_size)[0]
        there, products = lookahead.slopes_at(full_set, step_size)
        slope = -step_size * products.mT  # [T receiver, T giver]
        share = scales.divide(gramian @ full_set, scales.squared_norms(gramian, full_set))  # α(w) = share · w
        bend = before - there + slope @ full_set  # κ [T]
        curvature = bend[:, None, None] * (share[:, None] * share)
        return Quadratic(before, slope - 2 * bend[:, None] * share, curvature)
