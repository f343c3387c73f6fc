"""All figures of a comparison: per method, from its finished runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from mtrl_transfer.agents.runs.compare.collect import MEASURES, ROLES, FinishedRun, History
from mtrl_transfer.agents.runs.compare.interaction import PHASES, Choices, Interaction, by_phase, choices, interaction
from mtrl_transfer.agents.runs.compare.statistics import (
    ENOUGH_SEEDS,
    Estimate,
    area_under_curve,
    estimate,
    improvement,
    iqm,
    mean,
    profile,
    seeds_needed,
    value_at,
)

BOOTSTRAP_SEED = 0
SHARES = (0.25, 0.5, 1.0)
"""Of the budget, and of the shortest run's training time: where success is read off."""
TIME_POINTS = 40
WORST = 3
THRESHOLDS = np.linspace(0.0, 1.0, 51)


class Band(NamedTuple):
    """A curve with its interval: ``x``, ``value``, ``low``, ``high``, each ``[n]``."""

    x: np.ndarray
    value: np.ndarray
    low: np.ndarray
    high: np.ndarray


@dataclass(frozen=True)
class MethodSummary:
    """What a method reached; success counts over the tasks that can be solved.

    Attributes:
        method: by name.
        seeds: of the finished runs.
        scores: success of the final evaluation ``[seeds, tasks]``; ``returns`` likewise.
        iqm: interquartile mean over seeds and tasks; ``mean`` likewise.
        worst: mean success of the method's worst tasks, and their names.
        area: mean height of the learning curve over transitions; None without curves.
        at_transitions: IQM at shares of the budget; ``at_seconds`` at training times.
        improvement: probability of improvement over the baseline; None for the baseline itself or without one.
        seeds_needed: per method, to find the difference from the baseline; None where it cannot be told.
        over_transitions: IQM of the learning curves; ``over_seconds`` over training time; None without curves.
        prediction: by role and measure, correlation of predicted with realised improvement in each of :data:`PHASES`,
            mean over seeds; None where it is not known.
        interaction: by role, whether tasks acted on each other; None where that was not recorded.
        choices: by role, what choosing by transference was worth; None for other methods, or where it was not recorded.
        profile: share of scores that reach each of :data:`THRESHOLDS`.
        update_ms: milliseconds of an update; ``transference_ms``: of which measuring and combining task gradients.
        seconds: of a run in all, mean.
    """

    method: str
    seeds: tuple[int, ...]
    scores: np.ndarray
    returns: np.ndarray
    iqm: Estimate
    mean: Estimate
    worst: tuple[float, tuple[str, ...]]
    area: Estimate | None
    at_transitions: dict[int, Estimate | None]
    at_seconds: dict[float, Estimate | None]
    improvement: Estimate | None
    seeds_needed: int | None
    over_transitions: Band | None
    over_seconds: Band | None
    prediction: dict[str, tuple[Estimate | None, ...]]
    interaction: dict[str, Interaction | None]
    choices: dict[str, Choices | None]
    profile: np.ndarray
    update_ms: float
    transference_ms: float
    seconds: float

    @property
    def trusted(self) -> bool:
        """Whether there are seeds enough for the intervals to mean what they say."""
        return len(self.seeds) >= ENOUGH_SEEDS


@dataclass(frozen=True)
class Summary:
    """All methods with at least one finished run, in the order of the comparison.

    Attributes:
        tasks: that can be solved.
        methods: by name.
        baseline: its name, whether or not it has runs.
    """

    tasks: tuple[str, ...]
    methods: dict[str, MethodSummary]
    baseline: str


def summarise(runs: Sequence[FinishedRun], order: Sequence[str], baseline: str) -> Summary:
    """Compute everything that the report tells.

    Args:
        runs: finished, of one protocol.
        order: of the methods.
        baseline: the method that the others are measured against.
    """
    if not runs:
        return Summary((), {}, baseline)
    tasks = tuple(name for name, solvable in zip(runs[0].task_names, runs[0].solvable, strict=True) if solvable)
    by_method = {method: [run for run in runs if run.method == method] for method in order}
    shortest = min((run.training_seconds[-1] for run in runs if len(run.steps)), default=0.0)
    points = _Points(
        tuple(int(share * runs[0].config.total_timesteps) for share in SHARES),
        tuple(float(share * shortest) for share in SHARES) if shortest else (),
    )
    compared = by_method.get(baseline, [])
    methods = {method: _method(method, own, compared, tasks, points) for method, own in by_method.items() if own}
    return Summary(tasks, methods, baseline)


class _Points(NamedTuple):
    """Where success is read off the curves."""

    transitions: tuple[int, ...]
    seconds: tuple[float, ...]


def _method(
    method: str, runs: Sequence[FinishedRun], baseline: Sequence[FinishedRun], tasks: tuple[str, ...], points: _Points
) -> MethodSummary:
    generator = np.random.default_rng(BOOTSTRAP_SEED)
    scores = _scores(runs)
    per_task = scores.mean(axis=0)
    worst = np.argsort(per_task, kind="stable")[:WORST]
    other = _scores(baseline) if baseline and baseline[0].method != method else None
    updates = sum(run.n_updates for run in runs)
    transference = sum(run.seconds["transference"] for run in runs)
    curves = _Curves([run for run in runs if len(run.steps)])
    return MethodSummary(
        method=method,
        seeds=tuple(run.seed for run in runs),
        scores=scores,
        returns=np.stack([run.returns[run.solvable] for run in runs]),
        iqm=estimate(scores, iqm, generator),
        mean=estimate(scores, mean, generator),
        worst=(float(per_task[worst].mean()), tuple(tasks[task] for task in worst)),
        area=curves.area(generator),
        at_transitions={at: curves.at_transitions(at, generator) for at in points.transitions},
        at_seconds={at: curves.at_seconds(at, generator) for at in points.seconds},
        improvement=None if other is None else improvement(scores, other, generator),
        seeds_needed=None if other is None else seeds_needed(scores, other),
        over_transitions=curves.over_transitions(generator),
        over_seconds=curves.over_seconds(generator),
        prediction={
            f"{role}, {measure}": _prediction([run.prediction[role, measure] for run in runs], generator)
            for role in ROLES
            for measure in MEASURES
        },
        interaction={role: interaction(runs, role) for role in ROLES},
        choices={role: choices(runs, role) for role in ROLES},
        profile=profile(scores, THRESHOLDS),
        update_ms=_per_update(sum(run.seconds["update"] for run in runs) + transference, updates),
        transference_ms=_per_update(transference, updates),
        seconds=float(np.mean([sum(run.seconds.values()) for run in runs])),
    )


def _scores(runs: Sequence[FinishedRun]) -> np.ndarray:
    return np.stack([run.success[run.solvable] for run in runs])


def _prediction(histories: Sequence[History], generator: np.random.Generator) -> tuple[Estimate | None, ...]:
    whole = [by_phase(history) for history in histories if len(history.values) >= len(PHASES)]
    if not whole:
        return (None,) * len(PHASES)
    means = np.array([[values.mean() for values in phases] for phases in whole])
    return tuple(estimate(column[:, None], mean, generator) for column in means.T)


def _per_update(seconds: float, updates: int) -> float:
    return 1e3 * seconds / updates if updates else float("nan")


class _Curves:
    """Learning curves of one method's runs: success of the solvable tasks at the evaluations in training."""

    def __init__(self, runs: Sequence[FinishedRun]) -> None:
        self.runs = runs
        common = set.intersection(*({*run.steps.tolist()} for run in runs)) if runs else set()
        self.steps = np.array(sorted(common))

    def area(self, generator: np.random.Generator) -> Estimate | None:
        if not len(self.steps):
            return None
        heights = np.stack([self._on_common_steps(run) for run in self.runs])
        return estimate(area_under_curve(self.steps, np.moveaxis(heights, 1, -1)), mean, generator)

    def at_transitions(self, at: float, generator: np.random.Generator) -> Estimate | None:
        return self._iqm(np.array([value_at(run.steps, _solvable(run), at) for run in self.runs]), generator)

    def at_seconds(self, at: float, generator: np.random.Generator) -> Estimate | None:
        return self._iqm(np.array([value_at(run.training_seconds, _solvable(run), at) for run in self.runs]), generator)

    def over_transitions(self, generator: np.random.Generator) -> Band | None:
        return _band(self.steps, [self.at_transitions(step, generator) for step in self.steps])

    def over_seconds(self, generator: np.random.Generator) -> Band | None:
        if not self.runs:
            return None
        first = max(run.training_seconds[0] for run in self.runs)
        last = min(run.training_seconds[-1] for run in self.runs)
        times = np.linspace(first, last, TIME_POINTS) if last > first else np.array([last])
        return _band(times, [self.at_seconds(at, generator) for at in times])

    def _on_common_steps(self, run: FinishedRun) -> np.ndarray:
        return _solvable(run)[np.isin(run.steps, self.steps)]

    def _iqm(self, scores: np.ndarray, generator: np.random.Generator) -> Estimate | None:
        return None if not len(scores) or np.isnan(scores).any() else estimate(scores, iqm, generator)


def _solvable(run: FinishedRun) -> np.ndarray:
    return run.curve[:, run.solvable]


def _band(x: np.ndarray, estimates: Sequence[Estimate | None]) -> Band | None:
    known = [(at, one) for at, one in zip(x, estimates, strict=True) if one is not None]
    if not known:
        return None
    at, values = zip(*known, strict=True)
    return Band(np.array(at), *np.array(values).T)
