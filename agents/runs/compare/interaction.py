"""Whether tasks act on each other at all, and whether what was measured of it repeats."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np
from scipy.stats import t as t_distribution

from mtrl_transfer.agents.monitoring.similarity import rank_correlation
from mtrl_transfer.agents.runs.compare.collect import FinishedRun, History

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
        seen: mean lead of the best candidate at a decision.
        lasting: mean lead over a phase of the candidate that is best there, mean over phases and runs: the best of
            every second record by the records between them, and the other way round. Chance alone gives 0.
        ahead: share of candidates (in each phase and run) whose mean lead is above 0 by a t-test at 2.5%.
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
        if len(history.values) >= 4 * len(PHASES) and history.values.shape[1]
        for values in by_phase(history)
    ]
    if not phases:
        return None
    scores = np.array([_t_scores(values) for values in phases])
    return Choices(
        seen=float(np.concatenate([values.max(axis=1) for values in phases]).mean()),
        lasting=float(np.mean([_held_out(values) for values in phases])),
        ahead=float((scores > 1).mean()),
        behind=float((scores < -1).mean()),
    )


def _t_scores(values: np.ndarray) -> np.ndarray:
    """Means of ``[n, K]`` over ``n``, in units of what a one-sided t-test at 2.5% asks for."""
    errors = values.std(axis=0, ddof=1) / np.sqrt(len(values))
    needed = t_distribution.ppf(0.975, len(values) - 1) * errors
    return np.divide(values.mean(axis=0), needed, out=np.zeros_like(needed), where=needed > 0)


def _held_out(values: np.ndarray) -> float:
    halves = values[::2].mean(axis=0), values[1::2].mean(axis=0)
    return float(np.mean([other[one.argmax()] for one, other in (halves, halves[::-1])]))


def _mean(values: Sequence[float]) -> float:
    known = [value for value in values if np.isfinite(value)]
    return float(np.mean(known)) if known else float("nan")
