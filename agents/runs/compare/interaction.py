"""Whether tasks act on each other at all, and whether what was measured of it repeats."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np

from agents.runs.compare.collect import FinishedRun, History
from agents.similarity import rank_correlation

PHASES = ("first third", "second third", "last third")
"""Of a run's records."""


class Interaction(NamedTuple):
    """Pairwise transference in one network's trunk: medians of records within a phase, then means over phases and runs.

    Attributes:
        own: what a step along a task's gradient does to its own loss.
        others: to each other task's.
        harmful: share of pairs of different tasks in which it harms.
        split_half: rank correlation, over pairs of different tasks, of every second record with the others; nan where
            it is not known. Near 0, who helps whom can't be told from what was recorded.
        between_runs: the same of two runs, mean over all pairs of runs; nan for one run.
    """

    own: float
    others: float
    harmful: float
    split_half: float
    between_runs: float


class Choices(NamedTuple):
    """What the choices of a `Transference` combiner are worth by its own measure: leads over the full set.

    Attributes:
        seen: lead of the best candidate at a decision, median over decisions.
        lasting: mean lead over a phase of the candidate that is best there, mean over phases and runs. Where it is far
            below ``seen``, the best of a decision was so by chance.
        ahead: share of candidates (in each phase and run) whose mean lead is above 0 by two standard errors.
        behind: likewise, below 0.
    """

    seen: float
    lasting: float
    ahead: float
    behind: float


def by_phase(history: History) -> list[np.ndarray]:
    """The values of each of :data:`PHASES`, which may hold none."""
    return np.array_split(history.values, len(PHASES))


def interaction(runs: Sequence[FinishedRun], role: str) -> Interaction | None:
    """How tasks acted on each other, over a method's runs; None where that was not recorded.

    Args:
        runs: of one method.
        role: ``critic`` or ``actor``.
    """
    histories = [run.pairwise[role] for run in runs if role in run.pairwise]
    recorded = [by_phase(history) for history in histories if len(history.values) >= 2 * len(PHASES)]
    if not recorded:
        return None
    medians = np.array([[np.median(values, axis=0) for values in phases] for phases in recorded])  # [runs, 3, T, T]
    different = ~np.eye(medians.shape[-1], dtype=bool)
    halves = [
        rank_correlation(np.median(values[::2], axis=0), np.median(values[1::2], axis=0))
        for phases in recorded
        for values in phases
    ]
    pairs = [
        rank_correlation(one[phase], other[phase])
        for one, other in combinations(medians, 2)
        for phase in range(len(PHASES))
    ]
    return Interaction(
        own=float(medians[..., ~different].mean()),
        others=float(medians[..., different].mean()),
        harmful=float((medians[..., different] < 0).mean()),
        split_half=_mean(halves),
        between_runs=_mean(pairs),
    )


def choices(runs: Sequence[FinishedRun], role: str) -> Choices | None:
    """What choosing was worth, over a method's runs; None where nothing was chosen, or it was not recorded.

    Args:
        runs: of one method.
        role: ``critic`` or ``actor``.
    """
    histories = [run.leads[role] for run in runs if role in run.leads]
    phases = [
        values
        for history in histories
        if len(history.values) >= 2 * len(PHASES) and history.values.shape[1]
        for values in by_phase(history)
    ]
    if not phases:
        return None
    means = np.array([values.mean(axis=0) for values in phases])
    errors = np.array([values.std(axis=0, ddof=1) / np.sqrt(len(values)) for values in phases])
    return Choices(
        seen=float(np.median(np.concatenate([values.max(axis=1) for values in phases]))),
        lasting=float(means.max(axis=1).mean()),
        ahead=float((means > 2 * errors).mean()),
        behind=float((means < -2 * errors).mean()),
    )


def _mean(values: Sequence[float]) -> float:
    known = [value for value in values if np.isfinite(value)]
    return float(np.mean(known)) if known else float("nan")
