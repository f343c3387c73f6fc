"""Effects of tasks on each other, and the repeatability of their measurement."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np
from scipy.stats import t as student

from mtrl_transfer.agents.monitoring.features import rank_correlation
from mtrl_transfer.agents.runs.compare.collect import FinishedRun, History

PHASES = ("first third", "second third", "last third")
"""Phases of a run's records."""


class Interaction(NamedTuple):
    """Pairwise transference in one network's trunk: medians of records within a phase, then means over phases and runs.

    Attributes:
        own: effect of a step along a task's gradient on the task's own loss.
        others: effect on each other task's loss.
        harmful: share of pairs of different tasks in which it harms.
        split_half: rank correlation, over pairs of different tasks, of every second record with the others; nan if
            unknown. Near 0, the records cannot tell which task helps which.
        between_runs: the same for two runs, mean over all pairs of runs; nan for one run.
    """

    own: float
    others: float
    harmful: float
    split_half: float
    between_runs: float


class Choices(NamedTuple):
    """Worth of the choices of a `Transference` combiner by its own measure: leads over the full set.

    Attributes:
        seen: mean lead of the best candidate at a decision.
        lasting: mean lead over a phase of the candidate that is best there, mean over phases and runs. The candidate is
            selected on every second record and judged on the others, and the other way round. Chance alone gives 0.
        ahead: share of candidates (in each phase and run) whose mean lead is above 0 by a t-test at 2.5%.
        behind: share of candidates whose mean lead is below 0.
    """

    seen: float
    lasting: float
    ahead: float
    behind: float


def by_phase(history: History) -> list[np.ndarray]:
    """Return the values of each of `PHASES`; a phase may have none."""
    return np.array_split(history.values, len(PHASES))


def interaction(runs: Sequence[FinishedRun], role: str) -> Interaction | None:
    """Measure how tasks acted on each other; None where that was not recorded.

    Args:
        runs: runs of one method.
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
        rank_correlation(*phases) for one, other in combinations(medians, 2) for phases in zip(one, other, strict=True)
    ]
    return Interaction(
        own=float(medians[..., ~different].mean()),
        others=float(medians[..., different].mean()),
        harmful=float((medians[..., different] < 0).mean()),
        split_half=_mean(halves),
        between_runs=_mean(pairs),
    )


def choices(runs: Sequence[FinishedRun], role: str) -> Choices | None:
    """Measure the worth of choosing; None where nothing was chosen, or it was not recorded.

    Args:
        runs: runs of one method.
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
    """Means of ``[n, K]`` over ``n``, in units of what a one-sided t-test at 2.5% requires."""
    errors = values.std(axis=0, ddof=1) / np.sqrt(len(values))
    needed = student.ppf(0.975, len(values) - 1) * errors
    return np.divide(values.mean(axis=0), needed, out=np.zeros_like(needed), where=needed > 0)


def _held_out(values: np.ndarray) -> float:
    halves = values[::2].mean(axis=0), values[1::2].mean(axis=0)
    return float(np.mean([other[one.argmax()] for one, other in (halves, halves[::-1])]))


def _mean(values: Sequence[float]) -> float:
    known = [value for value in values if np.isfinite(value)]
    return float(np.mean(known)) if known else float("nan")
