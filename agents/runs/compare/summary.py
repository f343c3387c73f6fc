"""All numbers of a comparison, per method, from its finished runs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from typing import NamedTuple

import numpy as np

from mtrl_transfer.agents.mtsac.roles import ROLES
from mtrl_transfer.agents.runs.compare import statistics
from mtrl_transfer.agents.runs.compare.collect import MEASURES, FinishedRun, History
from mtrl_transfer.agents.runs.compare.interaction import PHASES, Choices, Interaction, by_phase, choices, interaction
from mtrl_transfer.agents.runs.report.numbers import Estimate

BOOTSTRAP_SEED = 0
SHARES = (0.25, 0.5, 1.0)
"""Shares of the budget, and of the shortest run's training time, at which success is read off the curves."""
TIME_POINTS = 40
WORST = 3


class Band(NamedTuple):
    """A curve with its interval: ``x``, ``value``, ``low``, ``high``, each ``[n]``."""

    x: np.ndarray
    value: np.ndarray
    low: np.ndarray
    high: np.ndarray


@dataclass(frozen=True)
class MethodSummary:
    """Results of a method; success counts over the solvable tasks.

    Attributes:
        method: its name.
        seeds: seeds of the finished runs.
        scores: success of the final evaluation ``[seeds, tasks]``.
        returns: returns of the final evaluation ``[seeds, tasks]``.
        iqm: interquartile mean over seeds and tasks.
        mean: mean over seeds and tasks.
        worst: mean success of the method's worst tasks, and their names.
        area: mean height of the learning curve over transitions; None without curves.
        at_transitions: IQM at shares of the budget.
        at_seconds: IQM at training times.
        improvement: probability of improvement over the baseline; None for the baseline itself or without one.
        p_value: two-sided p-value of no improvement, corrected by `holm` for all methods of the summary; None where
            this method or the baseline has too few seeds.
        seeds_needed: seeds per method to find the difference from the baseline; None if unknown, or where there are too
            few seeds.
        over_transitions: IQM of the learning curves over transitions; None without curves.
        over_seconds: the same over training time.
        prediction: by role and measure, correlation of predicted with realised improvement in each of `PHASES`,
            mean over seeds; None where it is unknown.
        interaction: by role, effects of tasks on each other; None where that was not recorded.
        choices: by role, the worth of choosing by transference; None for other methods, or where it was not recorded.
        update_ms: milliseconds of an update.
        transference_ms: the part of it that measures and combines task gradients.
        seconds: duration of a run, mean.
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
    p_value: float | None
    seeds_needed: int | None
    over_transitions: Band | None
    over_seconds: Band | None
    prediction: dict[str, tuple[Estimate | None, ...]]
    interaction: dict[str, Interaction | None]
    choices: dict[str, Choices | None]
    update_ms: float
    transference_ms: float
    seconds: float

    @property
    def trusted(self) -> bool:
        """Return True if there are enough seeds for the intervals to mean what they say."""
        return len(self.seeds) >= statistics.ENOUGH_SEEDS


@dataclass(frozen=True)
class Summary:
    """All methods with at least one finished run, in the order of the comparison.

    Attributes:
        tasks: names of the solvable tasks.
        methods: by name.
        baseline: its name, even if it has no runs.
    """

    tasks: tuple[str, ...]
    methods: dict[str, MethodSummary]
    baseline: str

    @property
    def compared(self) -> list[MethodSummary]:
        """Methods that are compared with the baseline."""
        return [method for method in self.methods.values() if method.improvement is not None]


def summarise(runs: Sequence[FinishedRun], order: Sequence[str], baseline: str) -> Summary:
    """Compute all numbers of the report.

    Args:
        runs: finished runs of one protocol.
        order: names of the methods, in the order of the report.
        baseline: the method that the others are measured against.
    """
    if not runs:
        return Summary((), {}, baseline)
    tasks = tuple(name for name, solvable in zip(runs[0].task_names, runs[0].solvable, strict=True) if solvable)
    shortest = min((run.training_seconds[-1] for run in runs if len(run.steps)), default=0.0)
    transitions = [int(share * runs[0].config.total_timesteps) for share in SHARES]
    seconds = [float(share * shortest) for share in SHARES] if shortest else []
    by_method = {method: own for method in order if (own := [run for run in runs if run.method == method])}
    methods = {}
    for method, own in by_method.items():
        compared = by_method.get(baseline, []) if method != baseline else []
        methods[method] = _method(method, own, compared, tasks, transitions, seconds)
    p_values = {name: method.p_value for name, method in methods.items() if method.p_value is not None}
    for name, p_value in zip(p_values, statistics.holm(list(p_values.values())), strict=True):
        methods[name] = replace(methods[name], p_value=p_value)
    return Summary(tasks, methods, baseline)


def _method(
    method: str,
    runs: Sequence[FinishedRun],
    baseline: Sequence[FinishedRun],
    tasks: tuple[str, ...],
    transitions: Sequence[int],
    seconds: Sequence[float],
) -> MethodSummary:
    generator = np.random.default_rng(BOOTSTRAP_SEED)
    scores = _scores(runs)
    per_task = scores.mean(axis=0)
    worst = np.argsort(per_task, kind="stable")[:WORST]
    updates = sum(run.n_updates for run in runs)
    transference = sum(run.seconds["transference"] for run in runs)
    evaluated = [run for run in runs if len(run.steps)]
    heights = [run.curve[:, run.solvable] for run in evaluated]
    over_steps = _Curves([run.steps for run in evaluated], heights, generator)
    over_time = _Curves([run.training_seconds for run in evaluated], heights, generator)
    # In this order, in which the generator is used.
    whole_iqm, whole_mean = (statistics.estimate(scores, of, generator) for of in (statistics.iqm, statistics.mean))
    area = over_steps.area()
    at_transitions = {at: over_steps.at(at) for at in transitions}
    at_seconds = {at: over_time.at(at) for at in seconds}
    better, p_value = statistics.improvement(scores, _scores(baseline), generator) if baseline else (None, None)
    enough = min(len(runs), len(baseline)) >= statistics.ENOUGH_SEEDS
    return MethodSummary(
        method=method,
        seeds=tuple(run.seed for run in runs),
        scores=scores,
        returns=np.stack([run.returns[run.solvable] for run in runs]),
        iqm=whole_iqm,
        mean=whole_mean,
        worst=(float(per_task[worst].mean()), tuple(tasks[task] for task in worst)),
        area=area,
        at_transitions=at_transitions,
        at_seconds=at_seconds,
        improvement=better,
        p_value=p_value if enough else None,
        seeds_needed=statistics.seeds_needed(scores, _scores(baseline)) if enough else None,
        over_transitions=over_steps.band(over_steps.common()),
        over_seconds=over_time.band(over_time.shared_range()),
        prediction={
            f"{role}, {measure}": _prediction([run.prediction[role, measure] for run in runs], generator)
            for role in ROLES
            for measure in MEASURES
        },
        interaction={role: interaction(runs, role) for role in ROLES},
        choices={role: choices(runs, role) for role in ROLES},
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
    return tuple(statistics.estimate(column[:, None], statistics.mean, generator) for column in means.T)


def _per_update(seconds: float, updates: int) -> float:
    return 1e3 * seconds / updates if updates else float("nan")


class _Curves(NamedTuple):
    """Learning curves of one method's runs: success ``heights [n, tasks]`` of each over its own ``xs [n]``."""

    xs: Sequence[np.ndarray]
    heights: Sequence[np.ndarray]
    generator: np.random.Generator

    def common(self) -> np.ndarray:
        """Values of x at which every run was evaluated."""
        return reduce(np.intersect1d, self.xs) if self.xs else np.array([])

    def shared_range(self) -> np.ndarray:
        """Values of x from the last first evaluation to the first last one."""
        if not self.xs:
            return np.array([])
        first, last = max(x[0] for x in self.xs), min(x[-1] for x in self.xs)
        return np.linspace(first, last, TIME_POINTS) if last > first else np.array([last])

    def scores(self, at: float) -> np.ndarray:
        """Latest success by then ``[runs, tasks]``; nan for a run without an evaluation by then."""
        return np.array([statistics.value_at(x, y, at) for x, y in zip(self.xs, self.heights, strict=True)])

    def at(self, at: float) -> Estimate | None:
        """Interquartile mean by then; None if a run has no evaluation by then."""
        scores = self.scores(at)
        if not len(scores) or np.isnan(scores).any():
            return None
        return statistics.estimate(scores, statistics.iqm, self.generator)

    def band(self, points: Iterable[float]) -> Band | None:
        known = [(point, *found) for point in points if (found := self.at(point)) is not None]
        return Band(*np.array(known).T) if known else None

    def area(self) -> Estimate | None:
        if not len(steps := self.common()):
            return None
        heights = np.stack([self.scores(step) for step in steps], axis=-1)  # [runs, tasks, steps]
        return statistics.estimate(statistics.area_under_curve(steps, heights), statistics.mean, self.generator)
