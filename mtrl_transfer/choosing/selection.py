"""The choice of a candidate, given the transference of each."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from mtrl_transfer.choices import check_number, check_whole
from mtrl_transfer.combiners.state import Stateful


class BestCandidate(Stateful):
    """The candidate with the largest total transference; the full set on a tie with it.

    Args:
        max_absence: most calls in a row that a task may be left out of; None sets no bound.
        smoothing: share of the past in the running mean of transference that is chosen by; 0 takes the newest alone.

    Attributes:
        needs_errors: True if the choice must lead by more than its standard error allows.
    """

    needs_errors: ClassVar[bool] = False

    def __init__(self, max_absence: int | None = None, smoothing: float = 0.0) -> None:
        super().__init__()
        if max_absence is not None:
            check_whole("max_absence", max_absence)
        check_number("smoothing", smoothing, 0, below=1)
        self.max_absence, self.smoothing = max_absence, smoothing

    def __call__(
        self, transference: Tensor, members: Tensor, step_size: Tensor, calls: int, errors: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Choose a candidate; the first is the full set.

        Args:
            transference: `[K, T]`.
            members: `[K, T]` bool, the tasks in each candidate.
            step_size: `[]`.
            calls: number of calls that the choice stands for.
            errors: standard errors `[K]` of the candidates' leads over the full set; None where they are not known.

        Returns:
            Scores `[K]`, and the index `[]` of the choice.
        """
        newest = scores = transference.sum(1)
        if self.smoothing:
            mean = self.state.setdefault("transference", torch.zeros_like(transference))
            mean.lerp_(torch.where(transference.isfinite(), transference, mean), 1 - self.smoothing)
            scores = torch.where(newest.isfinite(), mean.sum(1), newest)
        allowed = torch.ones_like(newest, dtype=torch.bool) if errors is None else self.leads(newest, errors)
        if self.max_absence is not None:
            allowed = allowed & self._returns_in_time(members, calls, self.max_absence)
        return scores, choose(scores, step_size, allowed)

    def leads(self, scores: Tensor, errors: Tensor) -> Tensor:
        """Return which candidates' scores `[K]` lead the first by enough, `[K]` bool; the first always does."""
        return torch.ones_like(scores, dtype=torch.bool)

    def note(self, members: Tensor) -> None:
        """Note the tasks `members [T]` bool of the candidate that a call applies."""
        absence = self.state.setdefault("absence", torch.zeros_like(members, dtype=torch.long))
        absence.add_(1).mul_(~members)
        self.store("members", members)

    def _returns_in_time(self, members: Tensor, calls: int, max_absence: int) -> Tensor:
        """Return which candidates keep every task's absence within bounds, `[K]` bool."""
        absence = self.state.get("absence", torch.zeros_like(members[0], dtype=torch.long))
        return (members | (absence + calls <= max_absence)).all(1)


class SignificantLead(BestCandidate):
    """The best candidate whose lead over the full set is more than chance; otherwise the full set.

    Of many candidates measured on few rows one leads by chance, and is then worse than the full set. Candidates are
    compared on the same rows, so the paired differences of single rows give a lead its standard error. `exact` knows
    these for all candidates, at no cost, and `hindsight` has others, from the scatter of its effects over updates. With
    any other measure the best candidate is looked at once more, exactly: one forward at `θ`, one at the end of its step
    and one at the end of the full set's.

    Args:
        z: number of standard errors that a lead must exceed; more where there are more candidates.
        max_absence: see `BestCandidate`.
        smoothing: see `BestCandidate`; leads are those of the newest measurement.
    """

    needs_errors: ClassVar[bool] = True

    def __init__(self, z: float = 2.0, max_absence: int | None = None, smoothing: float = 0.0) -> None:
        super().__init__(max_absence, smoothing)
        check_number("z", z, 0)
        self.z = z

    def leads(self, scores: Tensor, errors: Tensor) -> Tensor:
        """Return which candidates' scores `[K]` exceed the first by `z` errors `[K]`, `[K]` bool; and the first."""
        ahead = scores - scores[0] > self.z * errors  # a nan is not ahead
        return ahead | (torch.arange(len(scores), device=scores.device) == 0)


def choose(scores: Tensor, step_size: Tensor, allowed: Tensor) -> Tensor:
    """Return the index `[]` of the best of `scores [K]`; 0, the full set, on a tie with it or where none may be chosen.

    Args:
        scores: `[K]`; what is not finite is not chosen.
        step_size: `[]`; no step, no choice.
        allowed: `[K]` bool.
    """
    usable = scores.isfinite() & (step_size > 0) & allowed
    scores = torch.where(usable, scores, -torch.inf)
    scores[0] = torch.where(usable.any(), scores[0], 0)
    return scores.argmax()


SELECTORS = {"best": BestCandidate, "significant": SignificantLead}
"""Selectors by the name that configs use."""
