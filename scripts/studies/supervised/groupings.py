"""Regret of chosen groups against the best ones."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.stats import spearmanr

from mtrl_transfer.agents.runs.report.numbers import Estimate, mean_with_interval
from mtrl_transfer.grouping import (
    Grouping,
    all_together,
    checked_affinity,
    cluster,
    one_per_task,
    random_groups,
    select_groups,
)
from mtrl_transfer.grouping.groups import scores_of
from mtrl_transfer.grouping.program import best_groups

RANDOM_DRAWS = 200


class Truth(NamedTuple):
    """Results of every group.

    - `relative`: `[S, T]`, test loss over that of all tasks together, means over the seeds; nan for tasks outside.
    - `members`: `[S, T]` bool.
    """

    relative: np.ndarray
    members: np.ndarray

    @property
    def sizes(self) -> np.ndarray:
        """`[S]`."""
        return self.members.sum(axis=1)

    def of(self, grouping: Grouping) -> float:
        """Return the mean over tasks of the loss in their assigned group, over that of all together."""
        rows = [sum(1 << task for task in group) - 1 for group in grouping.groups]
        tasks = np.arange(self.members.shape[1])
        return float(self.relative[np.array(rows)[list(grouping.assignment)], tasks].mean())

    def best(self, n_groups: int, smallest: int) -> float:
        """Return the lowest loss of any grouping into at most `n_groups` groups of at least `smallest` tasks."""
        chosen = self.sizes >= smallest
        table = np.where(self.members, -self.relative, -np.inf)[chosen]
        solved = best_groups(table, self.sizes[chosen], n_groups, None)
        assert solved is not None
        return -solved[1] / self.members.shape[1]


def truth(losses: np.ndarray) -> Truth:
    """Make a `Truth` of test losses `[seeds, S, T]` of all groups; the last group is all tasks."""
    means = losses.mean(axis=0)
    return Truth(means / means[-1], np.isfinite(means))


class Row(NamedTuple):
    """Losses relative to all-together with at most `n_groups` networks.

    - `best`, `best_with_single`: lowest loss of any grouping into groups of two or more, and of any at all.
    - `chosen`, `clustered`: groups chosen from each seed's affinity, and clusters of it.
    - `random`: mean of random groupings.
    - `size`: tasks in all chosen groups.
    - `members`: the groups chosen from the mean affinity of all seeds.
    - `regret`: of the chosen groups against the best.
    """

    n_groups: int
    best: float
    best_with_single: float
    chosen: Estimate
    clustered: Estimate
    random: float
    size: float
    members: tuple[tuple[int, ...], ...]
    regret: float


def study(found: Truth, affinities: np.ndarray) -> list[Row]:
    """Evaluate the groups chosen for each number of networks.

    Args:
        found: results of every group.
        affinities: `[seeds, T, T]`; groups are chosen from each separately.
    """
    n_tasks = found.members.shape[1]
    rows = []
    for n_groups in range(1, n_tasks + 1):
        groupings = [select_groups(affinity, n_groups) for affinity in affinities]
        clusters = [cluster(affinity, n_groups) for affinity in affinities]
        drawn = [random_groups(n_tasks, n_groups, seed) for seed in range(RANDOM_DRAWS)]
        best, chosen = found.best(n_groups, 2), mean_with_interval([found.of(one) for one in groupings])
        rows.append(
            Row(
                n_groups=n_groups,
                best=best,
                best_with_single=found.best(n_groups, 1),
                chosen=chosen,
                clustered=mean_with_interval([found.of(one) for one in clusters]),
                random=float(np.mean([found.of(one) for one in drawn])),
                size=float(np.mean([sum(map(len, one.groups)) for one in groupings])),
                members=select_groups(affinities.mean(axis=0), n_groups).groups,
                regret=chosen.value - best,
            )
        )
    return rows


def controls(found: Truth) -> dict[str, float]:
    """Relative losses of the groupings that need no choice."""
    n_tasks = found.members.shape[1]
    return {"all together": found.of(all_together(n_tasks)), "one per task": found.of(one_per_task(n_tasks))}


def costs(n_tasks: int, row: Row, overhead: float) -> dict[str, float]:
    """Compute in units of training one task once: measuring and training the chosen groups, and the alternatives.

    `pairs` is training every pair of tasks (Standley et al., arXiv 1905.07553, predict larger groups from these)
    and then the groups.
    """
    return {
        "chosen": n_tasks * (1 + overhead) + row.size,
        "every_group": n_tasks * 2.0 ** (n_tasks - 1),
        "pairs": n_tasks * (n_tasks - 1) + row.size,
    }


class Predictions(NamedTuple):
    """Predicted and realised gain of each member of each group of two or more.

    - `predicted`, `realised`: `[S, T]`, the latter one minus the relative loss; nan where there is nothing to predict.
    - `correlation`: `[T]`, Spearman's rank correlation over groups.
    """

    predicted: np.ndarray
    realised: np.ndarray
    correlation: np.ndarray


def predictions(found: Truth, affinities: np.ndarray) -> Predictions:
    """Compare realised gains with the predictions of the mean of `affinities [seeds, T, T]`."""
    counted = found.members & (found.sizes > 1)[:, None]
    scores = scores_of(found.members, checked_affinity(affinities.mean(axis=0)), None)
    predicted = np.where(counted, scores, np.nan)
    realised = np.where(counted, 1 - found.relative, np.nan)
    ranks = [spearmanr(predicted[own, task], realised[own, task])[0] for task, own in enumerate(counted.T)]
    return Predictions(predicted, realised, np.array(ranks))
