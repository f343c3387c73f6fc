"""The step whose lookahead helps all tasks most."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from mtrl_transfer import leads, measures, scales, search
from mtrl_transfer.basis import Quadratic
from mtrl_transfer.candidates import MAX_POWER_SET
from mtrl_transfer.combiners.base import Combiner, live_tasks
from mtrl_transfer.combiners.registry import register
from mtrl_transfer.combiners.transference_options import CONTINUOUS, check_options, is_named
from mtrl_transfer.context import Context
from mtrl_transfer.decision import Decision
from mtrl_transfer.proposals import Listed, Proposals, Proposed
from mtrl_transfer.selection import choose, lets_return
from mtrl_transfer.steps import matched_step_size


@register("transference")
class Transference(Combiner):
    """Applies the candidate with the largest total transference (Fifty et al., 2020, section 4).

    The full set is always the first candidate, and the fallback wherever nothing can be measured. The paper sums the
    gradients of a subset; here members weigh `1/T` (one scale).

    Args:
        candidates: `leave_one_out`, `singletons`, `pairs` or `power_set`; rows of weights `[K, T]`; a list of such
            names, of combiners (by name or object) and of subsets (lists of task indices); or `continuous`, the best
            weights at all (needs `basis` or `first_order`). `power_set` of more than 16 tasks is searched locally
            (the same two measures).
        measure: `exact` looks ahead; `first_order` predicts from inner products of gradients, without forwards;
            `basis` takes T + 1 forwards and the losses of all candidates as quadratics in the weights.
        scale: what divides an improvement, see `scales`; `auto` is `ratio`, or `ema` where losses are signed.
        lookahead_batch: rows to look ahead on: `held_out`, or the `same` as the gradients'.
        lookahead_rows: number of these rows a task; None leaves it to the caller.
        step_size: `matched` to the trunk's last real step; `optimizer`, the true step of the trunk's optimizer; or a
            fixed number.
        norm_matching: bring all candidates to the full set's gradient norm.
        max_norm_factor: cap on the factor of norm matching.
        every: measure on every n-th call; in between the last choice is applied again.
        inner: `pcgrad` runs PCGrad within each subset; None adds its gradients up.
        max_absence: most calls in a row that a task may be left out of; None sets no bound.
        smoothing: share of the past in the running mean of transference that is chosen by; 0 takes the newest alone.
        confidence: by how many standard errors a candidate's mean score must lead the full set's to be applied in its
            stead (needs `smoothing`); None asks for no more than the largest score.
        generator: source of PCGrad's orders.

    Attributes:
        last: the last `Decision`, None before the first measurement.
        members: `[T]` bool, the tasks of the candidate applied last; None before the first call.
        due: whether the next call measures.
    """

    needs_context: ClassVar[bool] = True

    def __init__(
        self,
        candidates: Listed = "leave_one_out",
        measure: str = "exact",
        scale: str = "auto",
        lookahead_batch: str = "held_out",
        lookahead_rows: int | None = None,
        step_size: str | float = "matched",
        norm_matching: bool = True,
        max_norm_factor: float = 2.0,
        every: int = 1,
        inner: str | None = None,
        max_absence: int | None = None,
        smoothing: float = 0.0,
        confidence: float | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__(generator)
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
        self.max_absence = max_absence
        self.smoothing = smoothing
        self.confidence = confidence
        check_options(self)
        continuous = is_named(candidates, CONTINUOUS)
        self._proposals = Proposals("full" if continuous else candidates, inner, norm_matching, max_norm_factor)
        # The best weights within the full set's norm are that, however short: longer ones would overshoot.
        self._searched = Proposals("full", None, norm_matching and not continuous, max_norm_factor)
        self.last: Decision | None = None
        self._calls = 0

    @property
    def due(self) -> bool:
        """Whether the next call measures (the others only apply the last choice again)."""
        return self._calls % self.every == 0

    @property
    def measures_next(self) -> bool:
        """Whether a measurement is due, of its own or of a combiner among the candidates."""
        return self.due or any(one.measures_next for one in self._proposals.combiners)

    @property
    def members(self) -> Tensor | None:
        """`[T]` bool: the tasks of the candidate applied last."""
        return self.state.get("members")

    def weigh(self, gramian: Tensor, context: Context | None) -> Tensor:
        """Weights `[T]` of the chosen candidate."""
        if context is None:
            raise ValueError("Transference needs a context with losses and a lookahead; see `make_context`")
        known = self.reuse()
        if known is not None:
            return known
        if self.due:
            proposed, self.last = self._decide(gramian, context)
        else:
            proposed = self._propose(gramian, context, None)
        weights = proposed.rows.index_select(0, self.state["choice"][None])[0]
        if self.last is not None:
            self.last = self.last._replace(weights=weights, fresh=self.due)
        self._store("weights", weights)
        self._note_members(proposed.members.index_select(0, self.state["choice"][None])[0])
        self._calls += 1
        return weights

    def reuse(self) -> Tensor | None:
        """The last choice's weights between measurements; None where one is due, or where they depend on gradients."""
        if self.due or self.inner is not None or self._proposals.combiners or "weights" not in self.state:
            return None
        if self.last is not None:
            self.last = self.last._replace(fresh=False)
        self._note_members(self.state["members"])
        self._calls += 1
        return self.state["weights"].clone()

    @property
    def needs_after_step(self) -> bool:  # type: ignore[override]
        """Whether a combiner among the candidates does."""
        return any(one.needs_after_step for one in self._proposals.combiners)

    @property
    def recordable(self) -> bool:  # type: ignore[override]
        """Whether the combiners among the candidates are, and call for nothing of their own."""
        return all(one.recordable and not one.kind_of_call() for one in self._proposals.combiners)

    def kind_of_call(self) -> tuple[bool, ...]:
        """Whether the next call measures, and the one after it."""
        return self.due, (self._calls + 1) % self.every == 0

    def replayed(self, last: Decision | None) -> None:
        """Count a call that was replayed, `last` being the decision of the recorded one."""
        if self.due:
            self.last = last
        elif self.last is not None:
            self.last = self.last._replace(weights=self.state["weights"], fresh=False)
        self._calls += 1

    def generators(self) -> list[torch.Generator]:
        """Also those of the combiners among the candidates."""
        proposing = self._proposals.combiners
        return [*super().generators(), *(one for combiner in proposing for one in combiner.generators())]

    def after_step(self, losses: Tensor) -> None:
        """Pass the losses `[T]` after the step on to the combiners among the candidates."""
        for combiner in self._proposals.combiners:
            combiner.after_step(losses)

    def _searches(self, n_tasks: int) -> bool:
        """Whether the candidate is found by a search rather than listed."""
        many = is_named(self.candidates, "power_set") and n_tasks > MAX_POWER_SET and self.measure != "exact"
        if many and (self.inner or self.smoothing):
            raise ValueError(f"power_set of {n_tasks} tasks is searched; that needs inner=None and smoothing=0")
        return many or is_named(self.candidates, CONTINUOUS)

    def _propose(self, gramian: Tensor, context: Context, found: Tensor | None) -> Proposed:
        proposals = self._searched if self._searches(len(gramian)) else self._proposals
        return proposals(gramian, context, self.generator(gramian.device), found)

    def _decide(self, gramian: Tensor, context: Context) -> tuple[Proposed, Decision]:
        proposed = self._propose(gramian, context, None)
        step = self._step(gramian, context, proposed.rows[0])
        if self.measure == "exact":
            before, decrease = self._look_ahead(context, proposed.rows, step)
            divisor = self._divisor(context, before)
        else:
            model = self._model(gramian, context, step)
            divisor = self._divisor(context, model.before)
            if self._searches(len(gramian)):
                found = self._search(model, divisor, gramian, proposed.rows)
                proposed = self._propose(gramian, context, found)
            before, decrease = model.before, model.decrease(proposed.rows)
        known = live_tasks(gramian) & before.isfinite()  # a task that was left out has no say
        transference = torch.where(known, scales.divide(decrease, divisor), 0)
        scores = self._choose(transference, proposed, step)
        decision = Decision(
            candidates=proposed.rows,
            transference=transference,
            scores=scores,
            choice=self.state["choice"].clone(),
            weights=scores.new_zeros(len(gramian)),  # set by the caller
            step_size=step,
            fresh=True,
            losses=before,
            divisor=divisor,
        )
        return proposed, decision

    def _step(self, gramian: Tensor, context: Context, full_set: Tensor) -> Tensor:
        if self.step_size == "matched":
            return matched_step_size(gramian, context.step_norm, full_set)
        return torch.full_like(gramian[0, 0], 1.0 if self.step_size == "optimizer" else float(self.step_size))

    def _look_ahead(self, context: Context, rows: Tensor, step: Tensor) -> measures.Improvement:
        context = self._on_own_rows(context)
        if self.step_size == "optimizer":
            return measures.exact_by_optimizer(context, rows)
        return measures.exact(context, rows, step)

    def _on_own_rows(self, context: Context) -> Context:
        """The context with the lookahead on the rows that this combiner asks for."""
        if context.lookahead is None:
            return context
        own = context.lookahead.on(self.lookahead_rows, held_out=self.lookahead_batch == "held_out")
        return replace(context, lookahead=own)

    def _model(self, gramian: Tensor, context: Context, step: Tensor) -> Quadratic:
        context = self._on_own_rows(context)
        if self.measure == "basis":
            return measures.basis(context, len(gramian), step)
        received = measures.receiving_gramian(context, gramian, self.lookahead_batch)
        return measures.first_order(context.losses, received, step)

    def _divisor(self, context: Context, before: Tensor) -> Tensor:
        name = self.scale
        if name == "auto":
            name = "ema" if context.signed else "ratio"
        if context.signed and name == "ratio":
            raise ValueError(f"scale={name!r} needs positive losses and these are signed; choose 'ema' or 'auto'")
        if name == "ratio":
            return scales.floored(self.state, before)
        return scales.magnitude(self.state, before.abs() if context.scales is None else context.scales)

    def _search(self, model: Quadratic, divisor: Tensor, gramian: Tensor, full_set: Tensor) -> Tensor:
        """The best row `[T]` that no list holds: a subset, or continuous weights."""
        gain = -scales.divide(model.slope, divisor.view(-1, 1)).sum(0)
        curvature = torch.zeros_like(gramian)
        if model.curvature is not None:
            curvature = scales.divide(model.curvature, divisor.view(-1, 1, 1)).sum(0)
        if is_named(self.candidates, CONTINUOUS):
            limit = scales.squared_norms(gramian, full_set[0])
            return search.best_weights(gain, curvature, gramian, limit)

        def score(subsets: Tensor) -> Tensor:
            rows = self._searched.matched(torch.cat([full_set, subsets / len(gramian)]), gramian)[1:]
            return rows @ gain - ((rows @ curvature) * rows).sum(1)  # one quadratic: the sum of all tasks'

        starts = search.starting_subsets(score, gain, gramian.diagonal().clamp(min=0).sqrt())
        return search.best_subset(score, starts).to(gain.dtype) / len(gain)

    def _choose(self, transference: Tensor, proposed: Proposed, step: Tensor) -> Tensor:
        """Scores `[K]`; notes the choice in the state."""
        newest = scores = transference.sum(1)
        if self.smoothing:
            mean = self.state.setdefault("transference", torch.zeros_like(transference))
            mean.lerp_(torch.where(transference.isfinite(), transference, mean), 1 - self.smoothing)
            scores = torch.where(newest.isfinite(), mean.sum(1), newest)
        allowed = None
        if self.max_absence is not None:
            absence = self.state.get("absence", torch.zeros_like(proposed.members[0], dtype=torch.long))
            allowed = lets_return(proposed.members, absence, self.every, self.max_absence)
        if self.confidence is not None:
            ahead = leads.lasting(self.state, newest, self.smoothing, self.confidence)
            allowed = ahead if allowed is None else allowed & ahead
        self._store("choice", choose(scores, step, allowed))
        return scores

    def _note_members(self, members: Tensor) -> None:
        absence = self.state.setdefault("absence", torch.zeros_like(members, dtype=torch.long))
        absence.add_(1).mul_(~members)
        self._store("members", members)

    def _store(self, name: str, value: Tensor) -> None:
        self.state.setdefault(name, value.clone()).copy_(value)

    def seed(self, seed: int) -> None:
        """Restart the random streams, also of the combiners among the candidates."""
        super().seed(seed)
        for place, combiner in enumerate(self._proposals.combiners):
            combiner.seed(seed + 1 + place)

    def state_dict(self) -> dict[str, Tensor]:
        """Also the number of calls, which says when the next measurement is due, and the candidates' own states."""
        saved = {**super().state_dict(), "calls": torch.tensor(self._calls)}
        if self.last is not None:
            saved.update({f"last.{name}": torch.as_tensor(value) for name, value in self.last._asdict().items()})
        for place, combiner in enumerate(self._proposals.combiners):
            saved.update({f"candidate_{place}.{name}": value for name, value in combiner.state_dict().items()})
        return saved

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Continue from what `state_dict` returned."""
        if "calls" not in state:
            raise ValueError(
                f"this is not the state of a Transference combiner; it holds {', '.join(state) or 'nothing'}"
            )
        own = {name: value for name, value in state.items() if "." not in name}
        self._calls = int(own.pop("calls"))
        super().load_state_dict(own)
        for place, combiner in enumerate(self._proposals.combiners):
            prefix = f"candidate_{place}."
            parts = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
            combiner.load_state_dict(parts)
        last: dict[str, Any] = {
            name.removeprefix("last."): value for name, value in state.items() if name.startswith("last.")
        }
        self.last = Decision(**{**last, "fresh": bool(last["fresh"])}) if last else None
