"""The choice of a candidate, given the transference of each."""

from __future__ import annotations

import torch
from torch import Tensor

from mtrl_transfer.choices import check_number, check_whole
from mtrl_transfer.choosing import leads
from mtrl_transfer.combiners.state import Stateful


class BestCandidate(Stateful):
    """The candidate with the largest total transference; the full set on a tie with it.

    Args:
        max_absence: most calls in a row that a task may be left out of; None sets no bound.
        smoothing: share of the past in the running mean of transference that is chosen by; 0 takes the newest alone.
        confidence: number of standard errors by which a candidate's mean score must lead the full set's to be applied
            in its stead (needs `smoothing`); None asks for no more than the largest score.
    """

    def __init__(self, max_absence: int | None = None, smoothing: float = 0.0, confidence: float | None = None) -> None:
        super().__init__()
        if max_absence is not None:
            check_whole("max_absence", max_absence)
        check_number("smoothing", smoothing, 0, below=1)
        if confidence is not None:
            check_number("confidence", confidence, 0)
            leads.check_smoothing(smoothing, confidence)
        self.max_absence, self.smoothing, self.confidence = max_absence, smoothing, confidence

    def __call__(self, transference: Tensor, members: Tensor, step_size: Tensor, calls: int) -> tuple[Tensor, Tensor]:
        """Choose a candidate; the first is the full set.

        Args:
            transference: `[K, T]`.
            members: `[K, T]` bool, the tasks in each candidate.
            step_size: `[]`.
            calls: number of calls that the choice stands for.

        Returns:
            Scores `[K]`, and the index `[]` of the choice.
        """
        newest = scores = transference.sum(1)
        if self.smoothing:
            mean = self.state.setdefault("transference", torch.zeros_like(transference))
            mean.lerp_(torch.where(transference.isfinite(), transference, mean), 1 - self.smoothing)
            scores = torch.where(newest.isfinite(), mean.sum(1), newest)
        allowed = torch.ones_like(members[:, 0])
        if self.max_absence is not None:
            allowed = allowed & self._returns_in_time(members, calls, self.max_absence)
        if self.confidence is not None:
            allowed = allowed & leads.lasting(self.state, newest, self.smoothing, self.confidence)
        return scores, choose(scores, step_size, allowed)

    def note(self, members: Tensor) -> None:
        """Note the tasks `members [T]` bool of the candidate that a call applies."""
        absence = self.state.setdefault("absence", torch.zeros_like(members, dtype=torch.long))
        absence.add_(1).mul_(~members)
        self.store("members", members)

    def _returns_in_time(self, members: Tensor, calls: int, max_absence: int) -> Tensor:
        """Return which candidates keep every task's absence within bounds, `[K]` bool."""
        absence = self.state.get("absence", torch.zeros_like(members[0], dtype=torch.long))
        return (members | (absence + calls <= max_absence)).all(1)


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


SELECTORS = {"best": BestCandidate}
"""Selectors by the name that configs use."""
