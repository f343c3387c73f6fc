"""The statistics against literal recomputation, and against published numbers."""

from __future__ import annotations

import math

import numpy as np
import pytest

from mtrl_transfer.agents.runs.compare import statistics
from mtrl_transfer.agents.runs.compare.statistics import (
    area_under_curve,
    estimate,
    holm,
    improvement,
    iqm,
    mean,
    probability_of_improvement,
    resampled,
    seeds_needed,
    value_at,
)


@pytest.fixture
def scores() -> np.ndarray:
    return np.random.default_rng(7).integers(0, 51, size=(5, 3)) / 50


def literal_iqm(values: list[float]) -> float:
    ordered = sorted(values)
    cut = len(ordered) // 4
    middle = ordered[cut : len(ordered) - cut]
    return sum(middle) / len(middle)


def literal_quantile(values: list[float], share: float) -> float:
    ordered = sorted(values)
    place = share * (len(ordered) - 1)
    below = math.floor(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (place - below) * (ordered[above] - ordered[below])


def literal_samples(scores: np.ndarray, generator: np.random.Generator, repetitions: int) -> list[list[list[float]]]:
    drawn = generator.integers(len(scores), size=(repetitions, len(scores))).tolist()
    return [[scores[row].tolist() for row in one_repetition] for one_repetition in drawn]


def test_iqm(scores: np.ndarray):
    assert iqm(scores) == pytest.approx(literal_iqm(scores.ravel().tolist()), abs=1e-12)
    assert iqm(np.array([[0.0, 1.0, 2.0, 300.0]])) == 1.5


def test_iqm_interval_is_a_bootstrap_interval(scores: np.ndarray, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(statistics, "REPETITIONS", 200)
    found = estimate(scores, iqm, np.random.default_rng(3))
    samples = literal_samples(scores, np.random.default_rng(3), statistics.REPETITIONS)
    values = [literal_iqm([value for row in sample for value in row]) for sample in samples]
    assert found.value == pytest.approx(literal_iqm(scores.ravel().tolist()), abs=1e-12)
    assert found.low == pytest.approx(literal_quantile(values, 0.025), abs=1e-12)
    assert found.high == pytest.approx(literal_quantile(values, 0.975), abs=1e-12)
    assert found.low < found.value < found.high


def test_bootstrap_draws_whole_runs():
    drawn = resampled(np.array([[1.0, 10.0], [2.0, 20.0]]), np.random.default_rng(0))
    assert {tuple(row) for row in drawn.reshape(-1, 2).tolist()} == {(1.0, 10.0), (2.0, 20.0)}
    assert len({tuple(sample.ravel()) for sample in drawn}) == 4


def test_correlated_tasks_seldom_give_a_false_difference(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(statistics, "REPETITIONS", 200)
    draw = np.random.default_rng(0)
    false = 0
    for _ in range(200):
        luck = draw.normal(size=(2, 15, 1))  # of a run, in all of its tasks
        one, other = luck + 0.5 * draw.normal(size=(2, 15, 6))
        found, _ = improvement(one, other, draw)
        false += found.low > 0.5 or found.high < 0.5
    assert false / 200 < 0.12  # drawn for each task apart it is 0.4


def literal_improvement(one: list[list[float]], other: list[list[float]]) -> float:
    wins = [
        1.0 if mine[task] > theirs[task] else 0.5 if mine[task] == theirs[task] else 0.0
        for task in range(len(one[0]))
        for mine in one
        for theirs in other
    ]
    return sum(wins) / len(wins)


def test_probability_of_improvement(scores: np.ndarray, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(statistics, "REPETITIONS", 200)
    other = np.random.default_rng(8).integers(0, 51, size=(4, 3)) / 50
    other[0] = scores[0]  # ties
    told = probability_of_improvement(scores, other)
    assert told == pytest.approx(literal_improvement(scores.tolist(), other.tolist()), abs=1e-12)
    assert told + probability_of_improvement(other, scores) == pytest.approx(1.0)
    assert probability_of_improvement(scores, scores) == pytest.approx(0.5)

    generator = np.random.default_rng(4)
    ours = literal_samples(scores, generator, statistics.REPETITIONS)
    theirs = literal_samples(other, generator, statistics.REPETITIONS)
    values = [literal_improvement(one, two) for one, two in zip(ours, theirs, strict=True)]
    found, p_value = improvement(scores, other, np.random.default_rng(4))
    assert found.value == told
    beyond = min(sum(value <= 0.5 for value in values), sum(value >= 0.5 for value in values))
    assert p_value == pytest.approx(min(2 * (beyond + 1) / 201, 1.0))
    assert found.low == pytest.approx(literal_quantile(values, 0.025), abs=1e-12)
    assert found.high == pytest.approx(literal_quantile(values, 0.975), abs=1e-12)


def test_area_under_curve():
    steps = np.array([100, 200, 400])
    curves = np.array([[0.0, 0.5, 1.0], [1.0, 1.0, 1.0]])
    expected = (100 * (0.0 + 0.5) / 2 + 200 * (0.5 + 1.0) / 2) / 300
    np.testing.assert_allclose(area_under_curve(steps, curves), [expected, 1.0])
    np.testing.assert_allclose(area_under_curve(steps[:1], curves[:, :1]), [0.0, 1.0])


def test_value_at_is_the_latest_by_then():
    x, values = np.array([10.0, 20.0, 30.0]), np.array([[1.0], [2.0], [3.0]])
    assert [float(value_at(x, values, at)[0]) for at in (10.0, 19.9, 20.0, 99.0)] == [1.0, 1.0, 2.0, 3.0]
    assert np.isnan(value_at(x, values, 9.9)).all()


def test_holm_rejects_step_by_step():
    """The procedure as published: in rising order, compare with 5% / (number left); stop at the first above it."""
    draw = np.random.default_rng(0)
    for _ in range(200):
        p_values = (draw.uniform(size=draw.integers(1, 7)) ** 3).tolist()
        rejected = set()
        for number, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
            if p_values[index] > 0.05 / (len(p_values) - number):
                break
            rejected.add(index)
        assert {index for index, p in enumerate(holm(p_values)) if p <= 0.05} == rejected
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])  # R: p.adjust(c(.01, .04, .03), "holm")
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([]) == []


def test_corrected_verdicts_seldom_raise_a_false_alarm(monkeypatch: pytest.MonkeyPatch):
    """Eight methods without any difference, compared with the baseline of 15 seeds: one by one, most reports err."""
    monkeypatch.setattr(statistics, "REPETITIONS", 400)
    draw = np.random.default_rng(0)
    alone, corrected = 0, 0
    for _ in range(25):
        baseline, *others = draw.normal(size=(9, 15, 1)) + 0.5 * draw.normal(size=(9, 15, 4))
        p_values = [improvement(other, baseline, draw)[1] for other in others]
        alone += min(p_values) < 0.05
        corrected += min(holm(p_values)) < 0.05
    assert alone / 25 > 0.15
    assert corrected / 25 < 0.12


@pytest.mark.parametrize(("effect", "published"), [(0.5, 64), (0.8, 26), (1.0, 17), (0.2, 394)])
def test_seeds_needed_equal_cohens_table(effect: float, published: int):
    """Sizes per group at 5%, two-sided, power 80%: Cohen (1988), table 2.4.1 (0.2: 393 there, 394 exactly)."""
    spread = np.array([-1.0, 1.0])[:, None] / math.sqrt(2)  # standard deviation 1
    one, other = 5 + effect + np.hstack([spread, spread]), 5 + np.hstack([spread, spread])
    assert seeds_needed(one, other) == published
    assert seeds_needed(other, one) == published


def test_seeds_needed_is_none_if_unknown(scores: np.ndarray):
    assert seeds_needed(scores[:1], scores) is None
    assert seeds_needed(scores, scores) is None
    assert seeds_needed(np.ones((3, 2)), np.zeros((3, 2))) == 2
    hardly = scores + 1e-4
    assert seeds_needed(scores, hardly) is None
    # Far beyond all doubt, where the noncentral t distribution has no floating-point value any more.
    assert seeds_needed(np.array([[1.0], [1.0001]]), np.array([[0.0], [0.0001]])) == 2


def test_mean_is_over_seeds_and_tasks(scores: np.ndarray):
    assert mean(scores) == pytest.approx(sum(scores.ravel().tolist()) / 15)
