"""Losses of all candidates from T + 1 forwards: predictions are linear in the weights, so losses are quadratic.

The prediction at `θ − η Σ_t w_t g_t` is, to first order in the step, the prediction at `θ` plus `Σ_t w_t` times what
one unit of task `t` changes. A squared error of such predictions is exactly a quadratic in `w`; any other loss is
expanded to second order in the prediction.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.func import grad, vjp, vmap

from mtrl_transfer.precision import float32_products
from mtrl_transfer.scales import divide

CHUNK = 4096
"""Candidates whose losses are evaluated at once; bounds memory."""


class Quadratic(NamedTuple):
    """Losses as a quadratic in the weights: `L_j(w) = before_j + offset_j + slope_j · w + wᵀ curvature_j w`.

    - `before`: `[T]`, losses at `θ`.
    - `slope`: `[T receiver, T giver]`.
    - `curvature`: `[T receiver, T giver, T giver]`, None where it is taken as zero (first order).
    - `offset`: `[T]`, what a step along no task changes (an optimizer's momentum moves on); None: nothing.
    - `noise`: `[T receiver, T giver, T giver]`, covariance of the slope's errors, each receiver's; None: not known.
    """

    before: Tensor
    slope: Tensor
    curvature: Tensor | None
    offset: Tensor | None = None
    noise: Tensor | None = None

    def decrease(self, rows: Tensor) -> Tensor:
        """Return `L_j(θ) − L_j(w)` as `[K, T]`, for candidates `rows [K, T]`."""
        found = -(rows @ self.slope.mT)
        if self.curvature is not None:
            found -= torch.cat(
                [torch.einsum("kt,jts,ks->kj", part, self.curvature, part) for part in rows.split(CHUNK)]
            )
        return found if self.offset is None else found - self.offset

    def lead_errors(self, rows: Tensor, divisor: Tensor) -> Tensor | None:
        """Return standard errors `[K]` of the candidates' total transference less the full set's; None: not known.

        With `δ_k` a candidate's weights less the full set's, and receivers' errors independent,
        `error_k² = Σ_j δ_kᵀ noise_j δ_k / divisor_j²`.

        Args:
            rows: candidates `[K, T]`, the full set first.
            divisor: `[T]`; a task of divisor 0 does not count.
        """
        if self.noise is None:
            return None
        away = rows - rows[:1]
        variances = torch.einsum("kt,jts,ks->kj", away, self.noise, away).clamp(min=0)
        return divide(variances.sqrt(), divisor).square().sum(1).sqrt()


@float32_products()
def quadratic_from_predictions(predictions: Tensor, amount: float, loss_of: Callable[[Tensor], Tensor]) -> Quadratic:
    """Quadratic in the weights, from the predictions at `θ` and at the end of each task's own step.

    Args:
        predictions: `[1 + T giver, T receiver, ...]`: at `θ`; then with weight `amount` on each single task.
        amount: weight of the single tasks.
        loss_of: losses `[T]` of predictions `[T, ...]`, each of that task alone; differentiable twice.
    """
    origin = predictions[0]
    change = (predictions[1:] - origin) / amount

    def slope_of(prediction: Tensor) -> Tensor:
        return grad(lambda value: loss_of(value).sum())(prediction)

    with torch.no_grad():
        before, slope = loss_of(origin), slope_of(origin)
        times_hessian = vjp(slope_of, origin)[1]  # the Hessian is symmetric, so this is its product
        (bent,) = vmap(times_hessian)(change)
    change, bent = change.flatten(2), bent.flatten(2)
    return Quadratic(
        before,
        torch.einsum("jr,tjr->jt", slope.flatten(1), change),
        torch.einsum("sjr,tjr->jst", change, bent) / 2,
    )
