"""Measures of the decrease of every task's loss by every candidate's step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from mtrl_transfer.choices import check_number, check_whole
from mtrl_transfer.choosing.measure import Measure, RowTable, Table
from mtrl_transfer.choosing.quadratic import Quadratic, quadratic_from_predictions
from mtrl_transfer.combiners.state import Stateful
from mtrl_transfer.context import Context
from mtrl_transfer.scales import divide


class Exact(Measure):
    """Lookahead at `θ` and at the end of every candidate's step (Fifty et al., 2020, section 3): K + 1 forwards.

    Args:
        rows: see `Measure`.
        held_out: see `Measure`.
        step_size: `matched`, a number, or `optimizer`, the true step of the trunk's optimizer.
    """

    STEPS: ClassVar[tuple[str, ...]] = ("matched", "optimizer")

    def __call__(self, context: Context, gramian: Tensor, rows: Tensor, step_size: Tensor) -> Table | RowTable:
        """Return the losses of the candidates `rows [K, T]`."""
        lookahead = self.look(context)
        if self.step_size == "optimizer":
            table = lookahead.after_optimizer(rows)
        else:
            table = lookahead(torch.cat([torch.zeros_like(rows[:1]), rows]), step_size)
        return Table(table[0], table[1:])


@dataclass
class Horizon(Exact):
    """Lookahead over several steps of the trunk's own optimizer, on fresh rows each: for choices that stand for long.

    One step is mostly noise; over a horizon effects add up and noise averages out. Targets, heads and whatever else
    travels in a batch stay fixed. With `Transference(every=n)` a measurement decides a phase of n updates; it takes
    `steps` forward and backward passes for each candidate.

    Args:
        rows: number of rows a task on which losses are compared before and after; many, so that they are not noise.
        held_out: see `Measure`.
        step_size: `optimizer`; there is no other.
        steps: steps of the horizon.
    """

    rows: int | None = 200
    step_size: str | float = "optimizer"
    steps: int = 10

    STEPS: ClassVar[tuple[str, ...]] = ("optimizer",)
    sync_free: ClassVar[bool] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_whole("steps", self.steps)
        if self.step_size != "optimizer":
            raise ValueError(f"step_size={self.step_size!r} must be 'optimizer': a horizon's steps are the optimizer's")

    def __call__(self, context: Context, gramian: Tensor, rows: Tensor, step_size: Tensor) -> RowTable:
        """Return the losses of single rows before and after the steps along candidates `rows [K, T]`."""
        return self.by_row(context, rows, step_size)

    def by_row(self, context: Context, rows: Tensor, step_size: Tensor) -> RowTable:
        """Return the same."""
        return RowTable(self.look(context).after_horizon(rows, self.steps))


class ModelMeasure(Measure):
    """Base class of measures that give the losses of all weights, which can then be searched."""

    def __call__(self, context: Context, gramian: Tensor, rows: Tensor, step_size: Tensor) -> Quadratic:
        """Return losses as a function of the weights; a measure implements this."""
        raise NotImplementedError


class FirstOrder(ModelMeasure):
    """`L_j(w) ≈ L_j − η ⟨g_w, g_j⟩`, by inner products of gradients, without any forward pass on `held_out=False`."""

    def __call__(self, context: Context, gramian: Tensor, rows: Tensor, step_size: Tensor) -> Quadratic:
        """Return losses that are linear in the weights."""
        received = self.look(context).held_out_gramian() if self.held_out else gramian
        return Quadratic(context.losses, -step_size * received.mT, None)


class Basis(ModelMeasure):
    """Predictions at `θ` and at the end of each single task's step: T + 1 forwards, and every candidate's loss."""

    def __call__(self, context: Context, gramian: Tensor, rows: Tensor, step_size: Tensor) -> Quadratic:
        """Return losses that are quadratic in the weights."""
        lookahead, n_tasks = self.look(context), len(gramian)
        units = torch.eye(n_tasks, dtype=step_size.dtype, device=step_size.device) / n_tasks
        predictions = lookahead.predictions(torch.cat([torch.zeros_like(units[:1]), units]), step_size)
        return quadratic_from_predictions(predictions, 1 / n_tasks, lookahead.loss_of)


class LookaheadGradient(ModelMeasure):
    """First order at the end of the full set's step, and the curvature along it: two forwards and one backward.

    With `d` the full set's step, `θ_1 = θ + d` its end, and `α(w)` the part of it that `w` takes,

        L_j(w) ≈ L_j(θ_1) + Σ_t (w_t − 1/T) ∂L_j/∂w_t + κ_j (α(w) − 1)²
        α(w) = 1 + Σ_t (w_t − 1/T) ⟨∂d/∂w_t, d⟩ / ‖d‖²
        κ_j = L_j(θ) − L_j(θ_1) + ⟨d, ∇L_j(θ_1)⟩

    which is exact at `θ` and at `θ_1`; elsewhere the error falls with the square of the distance from the full set. Of
    a gradient step `∂d/∂w_t = −η g_t`; of an optimizer's, it is that times the derivative of the optimizer's step.

    Args:
        rows: see `Measure`.
        held_out: see `Measure`.
        step_size: `matched`, a number, or `optimizer`, the true step of the trunk's optimizer.
    """

    STEPS: ClassVar[tuple[str, ...]] = ("matched", "optimizer")

    def __call__(self, context: Context, gramian: Tensor, rows: Tensor, step_size: Tensor) -> Quadratic:
        """Return losses that are quadratic in the weights; `rows[0]` is the full set."""
        lookahead, full_set = self.look(context), rows[0]
        by_optimizer = self.step_size == "optimizer"
        near = lookahead.expand_after_optimizer(full_set) if by_optimizer else lookahead.expand(full_set, step_size)
        bend, own = near.before - near.losses + near.along, near.shares @ full_set  # κ [T]; 1 of a gradient step
        curvature = bend[:, None, None] * (near.shares[:, None] * near.shares)
        offset = near.losses - near.slopes @ full_set + bend * own.square() - near.before
        return Quadratic(near.before, near.slopes - 2 * (bend * own)[:, None] * near.shares, curvature, offset)


@dataclass
class Hindsight(ModelMeasure, Stateful):
    """First order of the last step, seen from this update's batch: no forward or backward pass beside the update's own.

    This update's task gradients `h_j` are taken at the end of the last step, on rows that it did not see. So they say
    what each of the last step's task gradients `g_t` has done: `∂L_j/∂w_t = −η ⟨g_t, h_j⟩`. One step is mostly noise,
    but tasks keep their relations for many updates, so candidates are judged by a running mean,

        L_j(w) ≈ L_j + Σ_t w_t mean(−η ⟨g_t, h_j⟩)

    in which a task whose gradients are noise has no effect on anyone, its own loss included. It costs one product of
    task gradients, and the memory to keep the last ones. The scatter of the effects over updates gives leads their
    standard errors without a forward pass: with weights `a_u` of updates that sum to 1, the variance of the mean is
    `Var · Σ a_u² / (1 − Σ a_u²)`.

    Args:
        rows: must be None: the update's own rows serve.
        held_out: must be True: the rows are always held out from the step that they judge.
        step_size: `matched`, a number, or `optimizer`, for the derivative of the optimizer's step in place of `−η`.
        smoothing: share of the past in the running mean.
    """

    step_size: str | float = "optimizer"
    smoothing: float = 0.99

    STEPS: ClassVar[tuple[str, ...]] = ("matched", "optimizer")
    sync_free: ClassVar[bool] = False
    needs_last_gradients: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        Stateful.__init__(self)
        check_number("smoothing", self.smoothing, 0, below=1)
        if self.rows is not None or not self.held_out:
            raise ValueError(f"rows={self.rows}, held_out={self.held_out}: hindsight judges by the update's own rows")

    def __call__(self, context: Context, gramian: Tensor, rows: Tensor, step_size: Tensor) -> Quadratic:
        """Return losses that are linear in the weights."""
        newest = self.look(context).slopes_of_last_step(None if self.step_size == "optimizer" else step_size)
        sums = self._sums(gramian)
        if newest is not None:
            share = (1 - self.smoothing) * newest.isfinite().all().to(gramian)
            newest = newest.nan_to_num(0.0)
            sums["slopes"].lerp_(newest, share)
            sums["products"].lerp_(newest[:, :, None] * newest[:, None], share)
            sums["known"].lerp_(torch.ones_like(share), share)
            sums["squares"].mul_((1 - share).square()).add_(share.square())
        known, squares = sums["known"], sums["squares"]
        mean = divide(sums["slopes"], known)
        spread = divide(sums["products"], known) - mean[:, :, None] * mean[:, None]
        noise = divide(squares * spread, known.square() - squares, torch.inf)  # of one update nothing is known
        return Quadratic(context.losses, mean, None, noise=noise)

    def _sums(self, gramian: Tensor) -> dict[str, Tensor]:
        """Return weighted sums over updates: of slopes, of their products, of weights and of squared weights."""
        n_tasks = len(gramian)
        shapes = {"slopes": [n_tasks] * 2, "products": [n_tasks] * 3, "known": [], "squares": []}
        if self.state.keys() != shapes.keys():  # the first update, or a state from before there were errors
            self.state.update({name: gramian.new_zeros(shape) for name, shape in shapes.items()})
        return self.state


MEASURES = {
    "exact": Exact,
    "first_order": FirstOrder,
    "basis": Basis,
    "lookahead_gradient": LookaheadGradient,
    "hindsight": Hindsight,
    "horizon": Horizon,
}
"""Measures by the name that configs use."""
