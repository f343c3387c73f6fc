"""Results of trained groupings, beside the predictions of affinity."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from scipy.stats import rankdata, spearmanr

from mtrl_transfer.agents.runs.compare.statistics import estimate
from mtrl_transfer.agents.runs.grouping.choose import ALONE, TOGETHER, Choices
from mtrl_transfer.agents.runs.grouping.options import GroupPlan
from mtrl_transfer.agents.runs.grouping.trained import group_runs
from mtrl_transfer.agents.runs.report.numbers import Estimate
from mtrl_transfer.grouping import Grouping
from mtrl_transfer.grouping.groups import membership
from mtrl_transfer.grouping.program import best_groups


@dataclass(frozen=True)
class Results:
    """Evaluations of all routed agents.

    Attributes:
        plan: plan of the study.
        choices: the groupings that were trained.
        evaluations: label of the grouping -> ``evaluation.json`` for each seed.
    """

    plan: GroupPlan
    choices: Choices
    evaluations: dict[str, list[dict[str, Any]]]

    def values(self, label: str, name: str) -> np.ndarray:
        """Return ``success`` or ``return`` of a grouping, `[seeds, T]`."""
        return np.array([[one["tasks"][task][name] for task in self.choices.names] for one in self.evaluations[label]])

    @cached_property
    def solvable(self) -> np.ndarray:
        """Solvable tasks, `[T]` bool."""
        return np.array(next(iter(self.evaluations.values()))[0]["solvable"])

    def mean_success(self, label: str) -> np.ndarray:
        """Mean success over the solvable tasks, `[seeds]`."""
        return np.array([one["mean_success"] for one in self.evaluations[label]])

    def transitions(self, label: str) -> float:
        """Transitions of all groups together, mean over seeds."""
        return float(np.mean([one["step"] for one in self.evaluations[label]]))

    @cached_property
    def predicted(self) -> np.ndarray:
        """Gains predicted by affinity, `[groupings, T]`; nan for a task alone."""
        return np.stack([one.predicted for one in self.choices.candidates])

    @cached_property
    def gains(self) -> np.ndarray:
        """Realised return beyond that of all together, means over seeds, `[groupings, T]`."""
        base = self.values(TOGETHER, "return").mean(axis=0)
        return np.stack([self.values(one.label, "return").mean(axis=0) - base for one in self.choices.candidates])

    @cached_property
    def company_gains(self) -> np.ndarray | None:
        """Success of all together beyond that of one network per task, `[seeds, T]`; None if these did not train."""
        if ALONE not in self.evaluations:
            return None
        return self.values(TOGETHER, "success") - self.values(ALONE, "success")

    def foretold(self, received: np.ndarray) -> Estimate | None:
        """Return the rank correlation of received affinity `[T]` with gain from company, over tasks that can be solved.

        Its interval is by bootstrap over seeds; None where all received or gained alike.
        """
        gains = self.company_gains
        if gains is None or np.ptp(received[self.solvable]) == 0 or np.ptp(gains.mean(axis=0)[self.solvable]) == 0:
            return None
        ranks = _centred_ranks(received[self.solvable])

        def correlation(drawn: np.ndarray) -> np.ndarray:  # [..., seeds, T]
            others = _centred_ranks(drawn.mean(axis=-2))
            scale = np.linalg.norm(ranks) * np.linalg.norm(others, axis=-1)
            return (others * ranks).sum(axis=-1) / np.where(scale > 0, scale, 1.0)

        return estimate(gains[:, self.solvable], correlation, np.random.default_rng(0))

    def rank_correlation(self) -> np.ndarray:
        """Spearman's of predicted with realised gain over different groups, per task `[T]`; nan below three."""
        found = np.full(len(self.choices.names), np.nan)
        for task in range(len(found)):
            serving = [one.grouping.groups[one.grouping.assignment[task]] for one in self.choices.candidates]
            first = sorted({serving.index(group) for group in serving if len(group) > 1})
            predicted, realised = self.predicted[first, task], self.gains[first, task]
            if len(first) > 2 and np.ptp(predicted) > 0 and np.ptp(realised) > 0:
                found[task] = spearmanr(predicted, realised)[0]
        return found

    def best_found(self, n_groups: int) -> tuple[Grouping, float] | None:
        """Return the best selection of trained groups in hindsight and its mean success; None if budgets differ."""
        if self.plan.options.equal != "transitions":
            return None
        success: dict[tuple[int, ...], np.ndarray] = {}
        for candidate in self.choices.candidates:
            values = self.values(candidate.label, "success").mean(axis=0)
            for task, index in enumerate(candidate.grouping.assignment):
                row = success.setdefault(candidate.grouping.groups[index], np.full(len(values), np.nan))
                row[task] = values[task]
        groups = sorted(success)
        members = membership(groups, len(self.choices.names))
        table = np.where(members, np.stack([success[group] for group in groups]), -np.inf)
        table = np.where(np.isnan(table), -np.inf, np.where(self.solvable | ~members, table, 0.0))
        solved = best_groups(table, members.sum(axis=1), n_groups, None)
        if solved is None:
            return None
        chosen = [groups[index] for index in solved[0]]
        best = table[solved[0]].argmax(axis=0)
        return Grouping(tuple(chosen), tuple(best.tolist())), solved[1] / int(self.solvable.sum())

    def updates(self, label: str) -> int:
        """Return the vector steps of each run of a grouping."""
        candidate = next(one for one in self.choices.candidates if one.label == label)
        return group_runs(self.plan, candidate.grouping, 0)[0].steps


def _centred_ranks(values: np.ndarray) -> np.ndarray:
    return rankdata(values, axis=-1) - (values.shape[-1] + 1) / 2
