"""Performance of methods and its uncertainty, after Agarwal et al., arXiv 2108.13264.

Their bootstrap draws the seeds of each task separately, because their tasks are trained separately. Our tasks share a
network, so whole runs are drawn. With separate draws, two halves of the seeds of one method on the Point suite
"differed" in 22% of trials, with 15 seeds as well as with 3.

The scores of a method are ``[seeds, tasks]``: success of the final evaluation.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Sequence

import numpy as np
from scipy.integrate import trapezoid
from scipy.stats import nct, t, trim_mean

from mtrl_transfer.agents.runs.report.numbers import Estimate

REPETITIONS = 2_000
SIGNIFICANCE = 0.05
POWER = 0.8
ENOUGH_SEEDS = 10
"""Fewer seeds give the bootstrap too few runs to draw from: its intervals are too narrow.

Two sets of seeds of one method on the Point suite "differ" in 17% of trials with 3 seeds, 11% with 5, 8% with 10, 6%
with 15; it should be 5%.
"""
MOST_SEEDS = 1_000
"""Largest number that `seeds_needed` returns; a difference that needs more is negligible."""


def iqm(scores: np.ndarray) -> np.ndarray:
    """Interquartile mean over the last two axes ``[..., seeds, tasks]``: the mean of the middle half of all scores."""
    return trim_mean(scores.reshape(*scores.shape[:-2], -1), 0.25, axis=-1)


def mean(scores: np.ndarray) -> np.ndarray:
    """Mean over the last two axes."""
    return scores.mean(axis=(-2, -1))


def resampled(scores: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Draw bootstrap samples: as many runs as there are, with replacement, each with all its tasks.

    Args:
        scores: ``[seeds, tasks]``.
        generator: source of the draws.

    Returns:
        ``[REPETITIONS, seeds, tasks]``.
    """
    return scores[generator.integers(len(scores), size=(REPETITIONS, len(scores)))]


def estimate(
    scores: np.ndarray, statistic: Callable[[np.ndarray], np.ndarray], generator: np.random.Generator
) -> Estimate:
    """Return a statistic of scores ``[seeds, tasks]`` with its bootstrap interval."""
    return _with_interval(statistic(scores), statistic(resampled(scores, generator)))


def probability_of_improvement(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Probability that a run of ``one`` beats a run of ``other`` on a task drawn at random; a tie counts half.

    Args:
        one: ``[..., seeds, tasks]``.
        other: the same; the number of seeds may differ.
    """
    difference = one[..., :, None, :] - other[..., None, :, :]
    return ((difference > 0) + 0.5 * (difference == 0)).mean(axis=(-3, -2, -1))


def improvement(one: np.ndarray, other: np.ndarray, generator: np.random.Generator) -> tuple[Estimate, float]:
    """Return `probability_of_improvement` with its interval, and its p-value; both methods are resampled.

    The two-sided p-value of no difference is the bootstrap's, ``2 (k + 1) / (n + 1)``: of ``n`` samples, ``k`` are on
    the side of 0.5 that has fewer.
    """
    samples = probability_of_improvement(resampled(one, generator), resampled(other, generator))
    beyond = min((samples <= 0.5).sum(), (samples >= 0.5).sum())
    p_value = min(2 * float(beyond + 1) / (len(samples) + 1), 1.0)
    return _with_interval(probability_of_improvement(one, other), samples), p_value


def holm(p_values: Sequence[float]) -> list[float]:
    """Correct p-values for being several: `Holm (1979) <https://www.jstor.org/stable/4615733>`_.

    Of ``m`` p-values in rising order, the ``i``-th becomes ``max_{k<=i} (m - k + 1) p_k``, at most 1. If what is then
    below 5% is called significant, at most 5% of all reports contain a false alarm.
    """
    values = np.asarray(p_values, float)
    order = np.argsort(values)
    adjusted = np.empty_like(values)
    adjusted[order] = np.maximum.accumulate(values[order] * np.arange(len(values), 0, -1))
    return np.minimum(adjusted, 1.0).tolist()


def area_under_curve(steps: np.ndarray, curves: np.ndarray) -> np.ndarray:
    """Mean height of curves ``[..., n]`` over ``steps [n]``, by the trapezoidal rule; of one point, its height."""
    return trapezoid(curves, steps) / (steps[-1] - steps[0]) if len(steps) > 1 else curves[..., 0]


def value_at(x: np.ndarray, values: np.ndarray, at: float) -> np.ndarray:
    """Return the latest of ``values [n, ...]`` whose ``x [n]`` is at most ``at``; nan if there is none."""
    index = int(np.searchsorted(x, at, side="right")) - 1
    return values[index] if index >= 0 else np.full(values.shape[1:], np.nan)


def seeds_needed(one: np.ndarray, other: np.ndarray) -> int | None:
    """Seeds per method with which a t-test of the means over tasks finds the observed difference in 80% of experiments.

    Two-sided, at 5%, with the variance pooled from the available seeds.

    Args:
        one: ``[seeds, tasks]``, at least two seeds.
        other: the same.

    Returns:
        The number; None if it is unknown or above `MOST_SEEDS`.
    """
    if len(one) < 2 or len(other) < 2:
        return None
    first, second = one.mean(axis=1), other.mean(axis=1)
    freedom = len(first) + len(second) - 2
    pooled = math.sqrt((first.var() * len(first) + second.var() * len(second)) / freedom)
    difference = abs(first.mean() - second.mean())
    if difference == 0:
        return None
    if pooled == 0:
        return 2
    sizes = range(2, MOST_SEEDS + 1)
    place = bisect_left(sizes, POWER, key=lambda size: _power(difference / pooled, size))
    return sizes[place] if place < len(sizes) else None


def _power(effect: float, size: int) -> float:
    """Power of a two-sided t-test at 5% between two groups of ``size``, for Cohen's d ``effect``."""
    freedom = 2 * size - 2
    critical = t.ppf(1 - SIGNIFICANCE / 2, freedom)
    beyond_doubt = 40.0  # where the power is 1 for any size, and scipy's series still converges
    return float(nct.sf(critical, freedom, min(effect * math.sqrt(size / 2), beyond_doubt)))


def _with_interval(value: np.ndarray, samples: np.ndarray) -> Estimate:
    return Estimate(float(value), *np.quantile(samples, [SIGNIFICANCE / 2, 1 - SIGNIFICANCE / 2]).tolist())
