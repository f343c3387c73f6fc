"""The step whose lookahead helps all tasks most."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from mtrl_transfer import scales
from mtrl_transfer.candidates import MAX_POWER_SET
from mtrl_transfer.choices import check_whole, made
from mtrl_transfer.choosing.checks import RENAMED, WEIGHTS, check_searchable, check_together, is_named
from mtrl_transfer.choosing.measure import Measure
from mtrl_transfer.choosing.measures import MEASURES, Exact, ModelMeasure
from mtrl_transfer.choosing.proposals import Listed, Proposals
from mtrl_transfer.choosing.quadratic import Quadratic
from mtrl_transfer.choosing.scales import SCALES, Ratio, Scale
from mtrl_transfer.choosing.searched import found_subset, found_weights
from mtrl_transfer.choosing.selection import SELECTORS, BestCandidate
from mtrl_transfer.combiners.base import Combiner, live_tasks
from mtrl_transfer.combiners.registry import register
from mtrl_transfer.combiners.state import Stateful
from mtrl_transfer.context import Context
from mtrl_transfer.decision import Decision
from mtrl_transfer.gradients import is_sync_free


@register("transference")
class Transference(Combiner):
    """Applies the candidate with the largest total transference (Fifty et al., 2020, section 4).

    The full set is always the first candidate, and the fallback wherever nothing can be measured. The paper sums the
    gradients of a subset; here members weigh `1/T` (one scale). `measure`, `scale` and `selector` are objects,
    names, or dicts of an object's arguments with its `name`.

    Args:
        candidates: `leave_one_out`, `singletons`, `pairs` or `power_set`; rows of weights `[K, T]`; a list of such
            names, of combiners (by name or object) and of subsets (lists of task indices); or `weights`, the best
            weights of all within the full set's norm (needs a measure of all weights: any but `exact`).
            `power_set` of more than 16 tasks is searched locally by these measures.
        measure: `exact`, `lookahead_gradient`, `hindsight`, `basis`, `first_order` or `horizon`, see
            `choosing.measures`.
        scale: divisor of an improvement: `ratio`, `ema`, or `auto`, which is `ema` where losses are signed and `ratio`
            otherwise, see `choosing.scales`.
        selector: `best` or `significant`, see `choosing.selection`.
        inner: `pcgrad` runs PCGrad within each subset; None adds its gradients up.
        max_norm_factor: largest factor by which candidates are brought to the full set's gradient norm; None leaves
            them as they are.
        every: measure on every n-th call; in between the last choice is applied again.
        generator: source of PCGrad's orders.

    Attributes:
        members: `[T]` bool, the tasks of the candidate applied last; None before the first call.
    """

    needs_context: ClassVar[bool] = True
    renamed: ClassVar[Mapping[str, str]] = RENAMED

    def __init__(
        self,
        candidates: Listed = "leave_one_out",
        measure: Any = "exact",
        scale: Any = "auto",
        selector: Any = "best",
        inner: str | None = None,
        max_norm_factor: float | None = 2.0,
        every: int = 1,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__(generator)
        check_whole("every", every)
        self.candidates, self.inner, self.max_norm_factor, self.every = candidates, inner, max_norm_factor, every
        self.measure: Measure = made("measure", measure, MEASURES, "exact")
        self.scale: Scale = made("scale", scale, SCALES, "auto")
        self.selector: BestCandidate = made("selector", selector, SELECTORS, "best")
        check_together(candidates, self.measure, self.selector, inner, every)
        self._all_weights = is_named(candidates, WEIGHTS)
        self._full_set = Proposals("full", None, None)
        self._proposals = self._full_set if self._all_weights else Proposals(candidates, inner, max_norm_factor)
        self._decision = Stateful()
        self.parts = {"scale": self.scale, "selector": self.selector, "decision": self._decision}
        if isinstance(self.measure, Stateful):
            self.parts["measure"] = self.measure
        self.parts |= {f"candidate_{place}": one for place, one in enumerate(self._proposals.combiners)}

    @property
    def members(self) -> Tensor | None:
        """`[T]` bool: the tasks of the candidate applied last."""
        return self.selector.state.get("members")

    @property
    def last(self) -> Decision | None:
        """The last decision; None before the first."""
        if not self._decision.state:
            return None
        found = {name: value.clone() for name, value in self._decision.state.items()}
        return Decision(**found, weights=self.state["weights"].clone(), fresh=(self.calls - 1) % self.every == 0)

    def check(self, n_tasks: int, signed: bool) -> None:
        """Raise `ValueError` for candidates of other tasks, too many of them, or a scale for positive losses."""
        super().check(n_tasks, signed)
        if isinstance(self.scale, Ratio):
            self.scale.check(signed)
        if not self._searches(n_tasks):
            self._proposals.check(n_tasks)

    def weigh(self, gramian: Tensor, context: Context | None) -> Tensor:
        """Return the weights `[T]` of the chosen candidate."""
        assert context is not None
        if self.due:
            rows, members = self._decide(gramian, context)
        elif self._repeats:
            self.selector.note(self.selector.state["members"])
            return self.state["weights"].clone()
        else:
            rows, members = self._proposals(gramian, context, self.generator(gramian.device))
        place = self._decision.state["choice"][None]
        self.selector.note(members.index_select(0, place)[0])
        return self.store("weights", rows.index_select(0, place)[0]).clone()

    @property
    def _repeats(self) -> bool:
        """True if the next call applies the last weights, whatever the gradients."""
        return not (self.due or self._proposals.depend_on_gradients or "weights" not in self.state)

    def reuse(self) -> Tensor | None:
        """Return the last choice's weights between measurements; None where one is due, or gradients matter."""
        if not self._repeats:
            return None
        self.selector.note(self.selector.state["members"])
        self.calls += 1
        return self.state["weights"].clone()

    def _decide(self, gramian: Tensor, context: Context) -> tuple[Tensor, Tensor]:
        """Measure and choose; return the candidates `[K, T]` and their members `[K, T]` bool."""
        proposals = self._full_set if self._searches(len(gramian)) else self._proposals
        rows, members = proposals(gramian, context, self.generator(gramian.device))
        step = self.measure.step(context, gramian, rows[0])
        by_row = self.selector.needs_errors and isinstance(self.measure, Exact)
        losses: Any = self.measure.by_row(context, rows, step) if by_row else self.measure(context, gramian, rows, step)
        # A task that was left out has no say: what is divided by 0 is 0.
        known = live_tasks(gramian) & losses.before.isfinite()
        divisor = torch.where(known, self.scale(losses.before, context), 0)
        if isinstance(losses, Quadratic) and proposals is self._full_set:
            if self._all_weights:
                rows, members = found_weights(losses, divisor, gramian)
            else:
                rows, members = found_subset(losses, divisor, gramian, self.max_norm_factor)
        transference = scales.divide(losses.decrease(rows), divisor)
        errors = losses.lead_errors(rows, divisor) if self.selector.needs_errors else None
        scores, choice = self.selector(transference, members, step, self.every, errors)
        if self.selector.needs_errors and errors is None:
            choice = self._confirmed(choice, context, rows, step, divisor)
        found = {"candidates": rows, "transference": transference, "scores": scores, "choice": choice}
        found |= {"step_size": step, "losses": losses.before, "divisor": divisor}
        for name, value in found.items():
            self._decision.store(name, value)
        return rows, members

    def _confirmed(self, choice: Tensor, context: Context, rows: Tensor, step: Tensor, divisor: Tensor) -> Tensor:
        """Return the choice if exact lookahead on single rows confirms its lead; otherwise 0, the full set."""
        if is_sync_free(choice.device) and not choice:
            return choice
        pair = torch.cat([rows[:1], rows.index_select(0, choice[None])])
        table = self.measure.by_row(context, pair, step)
        scores = scales.divide(table.decrease(pair), divisor).sum(1)
        return choice * self.selector.leads(scores, table.lead_errors(pair, divisor))[1]

    def _searches(self, n_tasks: int) -> bool:
        """True if the candidate is found by a search rather than listed."""
        many = is_named(self.candidates, "power_set") and n_tasks > MAX_POWER_SET
        many = many and isinstance(self.measure, ModelMeasure)
        if many:
            check_searchable(f"power_set of {n_tasks} tasks", self.inner, self.selector)
        return many or self._all_weights

    @property
    def needs_after_step(self) -> bool:  # type: ignore[override]
        """True if a combiner among the candidates needs it."""
        return any(one.needs_after_step for one in self.asked)

    @property
    def needs_last_gradients(self) -> bool:
        """True if its measure, or a combiner among the candidates, looks at the update before."""
        return self.measure.needs_last_gradients or super().needs_last_gradients

    @property
    def sync_free(self) -> bool:  # type: ignore[override]
        """True if the measure and every combiner among the candidates are sync-free and none is a `Transference`."""
        return self.measure.sync_free and all(one.sync_free and not isinstance(one, Transference) for one in self.asked)

    def state_dict(self) -> dict[str, Tensor]:
        """Return the state with the number of calls, which says when the next measurement is due."""
        return {**super().state_dict(), "calls": torch.tensor(self.calls)}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Continue from a `state_dict`."""
        if "calls" not in state:
            held = ", ".join(state) or "nothing"
            raise ValueError(f"this is not the state of a Transference combiner; it has {held}")
        self.calls = int(state["calls"])
        super().load_state_dict({name: value for name, value in state.items() if name != "calls"})
