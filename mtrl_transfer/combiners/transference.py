"""The step whose lookahead helps all tasks most."""

from __future__ import annotations

from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from mtrl_transfer import measures, scales
from mtrl_transfer.candidates import FAMILIES, full
from mtrl_transfer.choices import check_choice
from mtrl_transfer.combiners.base import Combiner
from mtrl_transfer.combiners.pcgrad import pcgrad_weights, random_orders
from mtrl_transfer.combiners.registry import register
from mtrl_transfer.context import Context
from mtrl_transfer.steps import match_norms, matched_step_size

MEASURES = ("exact", "first_order")
LOOKAHEAD_BATCHES = ("held_out", "same")
FLOOR = 0.1
"""A divisor is at least this fraction of its running mean."""
RUNNING_RATE = 0.01
"""Share of the newest value in a running mean."""


class Decision(NamedTuple):
    """What a `Transference` combiner saw and did last; K candidates, T tasks.

    - `candidates`: `[K, T]` as they would be applied (after PCGrad and norm matching); row 0 is the full set.
    - `transference`: `[K, T]`; `scores`: `[K]`, total transference; `choice`: `[]` long, the row applied.
    - `weights`: `[T]`, returned to the caller; `step_size`: `[]`.
    - `fresh`: whether it was measured in this call; otherwise all but `weights` are the last measurement's.
    - `losses`: `[T]`, on the lookahead's rows before the step.
    - `divisor`: `[T]` or `[K, T]`, what the improvement was divided by.
    """

    candidates: Tensor
    transference: Tensor
    scores: Tensor
    choice: Tensor
    weights: Tensor
    step_size: Tensor
    fresh: bool
    losses: Tensor
    divisor: Tensor


@register("transference")
class Transference(Combiner):
    """Applies the candidate with the largest total transference (Fifty et al., 2020, section 4).

    Args:
        candidates: family of subsets: `leave_one_out`, `singletons`, `pairs`, `power_set`. The full set is always
            the first candidate; the fallback wherever nothing can be measured.
        measure: `exact` looks ahead; `first_order` predicts from inner products of gradients, without forwards.
        scale: what divides an improvement, see `scales`; `auto` is `ratio`, or `ema` where losses are signed.
        lookahead_batch: rows that the caller should look ahead on: `held_out`, or the `same` as the gradients'.
        lookahead_rows: how many held-out rows a task the caller should take; None leaves it to the caller.
        step_size: `matched` to the trunk's last real step, or a fixed number.
        norm_matching: bring all candidates to the full set's gradient norm.
        max_norm_factor: cap on the factor of norm matching.
        every: measure on every n-th call; in between the last choice is applied again.
        inner: `pcgrad` runs PCGrad within each subset; None adds its gradients up.
        generator: source of PCGrad's orders.

    Attributes:
        last: the last `Decision`, None before the first measurement (also after loading a state).
        members: `[T]` bool, the tasks of the candidate applied last; None before the first call.
        due: whether the next call measures.
    """

    needs_context: ClassVar[bool] = True

    def __init__(
        self,
        candidates: str = "leave_one_out",
        measure: str = "exact",
        scale: str = "auto",
        lookahead_batch: str = "held_out",
        lookahead_rows: int | None = None,
        step_size: str | float = "matched",
        norm_matching: bool = True,
        max_norm_factor: float = 2.0,
        every: int = 1,
        inner: str | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__(generator)
        check_choice("candidates", candidates, FAMILIES)
        check_choice("measure", measure, MEASURES)
        check_choice("scale", scale, ("auto", *scales.SCALES))
        check_choice("lookahead_batch", lookahead_batch, LOOKAHEAD_BATCHES)
        if inner is not None:
            check_choice("inner", inner, ("pcgrad",))
        if isinstance(step_size, str):
            check_choice("step_size", step_size, ("matched",))
        elif not step_size > 0:
            raise ValueError(f"step_size={step_size} must be positive, or 'matched'")
        for name, value in (("every", every), ("lookahead_rows", lookahead_rows), ("max_norm_factor", max_norm_factor)):
            if value is not None and value < 1:
                raise ValueError(f"{name}={value} must be at least 1")
        self.candidates = candidates
        self.measure = measure
        self.scale = scale
        self.lookahead_batch = lookahead_batch
        self.lookahead_rows = lookahead_rows
        self.step_size = step_size
        self.norm_matching = norm_matching
        self.max_norm_factor = max_norm_factor
        self.every = every
        self.inner = inner
        self.last: Decision | None = None
        self._calls = 0
        self._subsets: Tensor | None = None

    @property
    def due(self) -> bool:
        """Whether the next call measures (the others only apply the last choice again)."""
        return self._calls % self.every == 0

    @property
    def members(self) -> Tensor | None:
        """`[T]` bool: the tasks of the subset applied last."""
        return self.state.get("members")

    def __call__(self, gramian: Tensor, context: Context | None = None) -> Tensor:
        """Weights `[T]` of the chosen candidate."""
        if context is None:
            raise ValueError("Transference needs a context with losses and a lookahead; see `make_context`")
        subsets = self._family(gramian)
        rows = self._proposals(gramian, subsets)
        if self.due:
            self.last = self._decide(gramian, context, rows)
            self._store("choice", self.last.choice)
            weights = self.last.weights
        else:
            weights = rows.index_select(0, self.state["choice"][None])[0]
            if self.last is not None:
                self.last = self.last._replace(weights=weights, fresh=False)
        self._store("members", subsets.index_select(0, self.state["choice"][None])[0] != 0)
        self._calls += 1
        return weights

    def _family(self, gramian: Tensor) -> Tensor:
        """Subsets `[K, T]`, the full set first; built once, since they cross to the device."""
        subsets = self._subsets
        if subsets is None or subsets.shape[1] != len(gramian) or subsets.device != gramian.device:
            n_tasks = len(gramian)
            listed = FAMILIES[self.candidates](n_tasks)
            others = listed[~(listed == full(n_tasks)).all(1)]
            subsets = torch.cat([full(n_tasks), others]).to(gramian.device)
        self._subsets = subsets.to(gramian.dtype)
        return self._subsets

    def _proposals(self, gramian: Tensor, subsets: Tensor) -> Tensor:
        """Candidates `[K, T]` as they would be applied to this Gramian."""
        rows = subsets
        if self.inner == "pcgrad":
            orders = random_orders(len(gramian), self.generator(gramian.device))
            rows = pcgrad_weights(gramian, orders, subsets != 0)
        if self.norm_matching:
            rows = torch.cat([rows[:1], match_norms(rows[1:], gramian, rows[0], self.max_norm_factor)])
        return rows

    def _decide(self, gramian: Tensor, context: Context, rows: Tensor) -> Decision:
        step = self._step(gramian, context, rows)
        alone = self._alone(gramian, rows)
        measured = self._measure(gramian, context, torch.cat([rows, alone]), step)
        decrease, own = measured.decrease[: len(rows)], measured.decrease[len(rows) :].diagonal()
        divisor = self._divisor(gramian, context, rows, step, measured.before, own)
        if self._scale_for(context) == "log_ratio":
            transference = scales.log_ratio(measured.before, measured.before - decrease, self._floor())
        else:
            transference = scales.divide(decrease, divisor)
        scores = transference.sum(1)
        choice = choose(scores, step)
        weights = rows.index_select(0, choice[None])[0]
        return Decision(rows, transference, scores, choice, weights, step, True, measured.before, divisor)

    def _step(self, gramian: Tensor, context: Context, rows: Tensor) -> Tensor:
        if self.step_size == "matched":
            return matched_step_size(gramian, context.step_norm, rows[0])
        return torch.full_like(gramian[0, 0], float(self.step_size))

    def _measure(self, gramian: Tensor, context: Context, rows: Tensor, step: Tensor) -> measures.Improvement:
        if self.measure == "exact":
            return measures.exact(context, rows, step)
        received = measures.receiving_gramian(context, gramian, self.lookahead_batch)
        return measures.first_order(context.losses, received, rows, step)

    def _alone(self, gramian: Tensor, rows: Tensor) -> Tensor:
        """Each task's own step `[T, T]`, at the candidates' length; only the scale `self` looks at it."""
        if self.scale != "self":
            return rows[:0]
        alone = torch.eye(len(gramian), dtype=gramian.dtype, device=gramian.device) / len(gramian)
        return match_norms(alone, gramian, rows[0], self.max_norm_factor) if self.norm_matching else alone

    def _scale_for(self, context: Context) -> str:
        if self.scale == "auto":
            return "ema" if context.signed else "ratio"
        if context.signed and self.scale in scales.POSITIVE_LOSSES_ONLY:
            raise ValueError(f"scale={self.scale!r} needs positive losses and these are signed; choose 'ema' or 'auto'")
        return self.scale

    def _divisor(
        self, gramian: Tensor, context: Context, rows: Tensor, step: Tensor, before: Tensor, own: Tensor
    ) -> Tensor:
        scale = self._scale_for(context)
        if scale == "cosine":
            return scales.cosine(gramian, rows, step)
        if scale == "ema":
            return self._track("divisor", before.abs() if context.scales is None else context.scales)
        now = own.clamp(min=0) if scale == "self" else before
        self._track("divisor", now)
        return torch.maximum(now, self._floor())

    def _floor(self) -> Tensor:
        return FLOOR * self.state["divisor"]

    def _track(self, name: str, value: Tensor) -> Tensor:
        """Running mean of `value`, kept in place; values that are not finite are passed over."""
        mean = self.state.setdefault(name, value.nan_to_num(0, 0, 0))
        return mean.lerp_(torch.where(value.isfinite(), value, mean), RUNNING_RATE)

    def _store(self, name: str, value: Tensor) -> None:
        self.state.setdefault(name, value.clone()).copy_(value)

    def state_dict(self) -> dict[str, Tensor]:
        """Also the number of calls, which says when the next measurement is due."""
        return {**super().state_dict(), "calls": torch.tensor(self._calls)}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Continue from what `state_dict` returned."""
        super().load_state_dict({name: value for name, value in state.items() if name != "calls"})
        self._calls = int(state["calls"])
        self.last = None


def choose(scores: Tensor, step_size: Tensor) -> Tensor:
    """Index `[]` of the best of `scores [K]`; 0, the full set, on a tie for it or where the step has no length."""
    usable = scores.isfinite() & (step_size > 0)
    return torch.where(usable, scores, -torch.inf).argmax()


def agrees_with_first_order(decision: Decision, gramian: Tensor) -> Tensor:
    """Whether first order would have chosen alike, at the same rows, step, candidates and scale.

    Args:
        decision: of a combiner that measured exactly.
        gramian: `[T giver, T receiver]`, inner products of the task gradients with gradients on the lookahead's rows.

    Returns:
        `[]` bool.
    """
    predicted = measures.first_order(decision.losses, gramian, decision.candidates, decision.step_size)
    scores = scales.divide(predicted.decrease, decision.divisor).sum(1)
    return choose(scores, decision.step_size) == choose(decision.transference.sum(1), decision.step_size)
