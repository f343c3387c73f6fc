"""Groups that maximise every task's affinity from its mates (Fifty et al., TAG, arXiv 2109.04617, section 3.2)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from mtrl_transfer.grouping.affinity import Affinity, checked_affinity
from mtrl_transfer.grouping.constraints import Constraints, make_constraints
from mtrl_transfer.grouping.groups import Grouping, check_n_groups, scores_of, serve_best, singleton_scores, task_scores

MAX_LISTED = 2**14
"""At most this many groups are enumerated; the optimum is then exact. All groups of 14 tasks, or small ones of more."""
MAX_TASKS = 50


class Selection(NamedTuple):
    """A grouping with its `score` (total over tasks) and an upper `bound` on that of any; equal where it is optimal."""

    grouping: Grouping
    score: float
    bound: float

    @property
    def gap(self) -> float:
        """Largest distance of the score from the optimum; 0 if it is the optimum."""
        return self.bound - self.score


def select_groups(affinity: Affinity, n_groups: int, **limits: Any) -> Grouping:
    """The best grouping into at most `n_groups` groups; arguments as of `best_selection`.

    Returns:
        `Grouping(groups, assignment)`; groups may overlap, and one that would serve nobody is left out.
    """
    return best_selection(affinity, n_groups, **limits).grouping


def best_selection(
    affinity: Affinity,
    n_groups: int,
    *,
    max_size: int | None = None,
    max_total_size: int | None = None,
    must_link: Sequence[Iterable[int]] = (),
    cannot_link: Sequence[Iterable[int]] = (),
    singleton_score: ArrayLike | None = None,
) -> Selection:
    """The best grouping with its score and a bound.

    A task's score in a group is the mean affinity of its mates to it; it is served from the group where that is
    highest, and the total over tasks is maximised. Up to 14 tasks the result is the optimum; with more, too, where the
    limits leave at most 16,384 groups. Otherwise groups are generated, and `gap` says how far off it may be.

    Args:
        affinity: `[T giver, T receiver]`, numpy or torch, T up to 50. Its diagonal is not used, nan is "not measured",
            and all values may be negative; see `checked_affinity`.
        n_groups: largest number of networks, 1 to T.
        max_size: of a group.
        max_total_size: of all groups together: the compute of training them, in tasks (T: no task trains twice).
        must_link: sets of tasks that every group holds all or none of.
        cannot_link: sets of tasks of which no group holds two.
        singleton_score: score of a task that trains alone, a number or one a task; None: groups of one are not chosen.

    Raises:
        ValueError: for arguments out of range, or demands that no grouping meets.
    """
    from mtrl_transfer.grouping.many_tasks import bound_by_sizes, generated_groups  # scipy takes long to import

    matrix = checked_affinity(affinity)
    n_tasks = len(matrix)
    if n_tasks > MAX_TASKS:
        raise ValueError(f"select_groups takes up to {MAX_TASKS} tasks, got {n_tasks}; `cluster` takes any number")
    check_n_groups(n_groups, n_tasks)
    single = singleton_scores(singleton_score, n_tasks)
    constraints = make_constraints(n_tasks, max_size, max_total_size, must_link, cannot_link, single is not None)
    listed = constraints.n_groups_at_most(MAX_LISTED)
    groups = constraints.all_groups() if listed else generated_groups(matrix, constraints, n_groups, single)
    solved = _solved(scores_of(groups, matrix, single), groups.sum(axis=1), n_groups, max_total_size)
    if solved is None:
        raise ValueError(_infeasible(constraints, n_groups, listed))
    chosen = [np.flatnonzero(groups[index]).tolist() for index in solved[0]]
    grouping = serve_best(matrix, chosen, single)
    score = float(task_scores(matrix, grouping, single).sum())
    bound = score if listed else max(bound_by_sizes(matrix, constraints, n_groups, single), score)
    return Selection(grouping, score, bound)


def _solved(
    table: np.ndarray, sizes: np.ndarray, n_groups: int, max_total: int | None
) -> tuple[np.ndarray, float] | None:
    """Solve by `best_groups`, first without single-task groups too poor to be in any optimum.

    Such a score (TAG's is -1e6) says "only if there is no other way"; beside it, a program finds no real differences.
    """
    from mtrl_transfer.grouping.program import best_groups

    last_resort = _last_resorts(table, sizes)
    if last_resort.any():
        solved = best_groups(np.where(last_resort[:, None], -np.inf, table), sizes, n_groups, max_total)
        if solved is not None:
            return solved
    return best_groups(table, sizes, n_groups, max_total)


def _last_resorts(table: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Return which groups of one, `[S]` bool, are in no best choice where there is a choice without them."""
    last = sizes == 1
    while last.any():
        others = np.where(last[:, None], -np.inf, table)
        if not np.isfinite(others).any(axis=0).all():
            return np.zeros_like(last)
        highest = others.max(axis=0)
        lowest = np.where(np.isfinite(others), others, np.inf).min(axis=0)
        spread = highest - lowest
        least = lowest - (spread.sum() - spread)  # of a task's score, whatever the others lose
        kept = last & ~((table < least) | ~np.isfinite(table)).all(axis=1)
        if not kept.any():
            return last
        last = last & ~kept
    return last


def _infeasible(limits: Constraints, n_groups: int, listed: bool) -> str:
    covered = limits.all_groups().any(axis=0) if listed else np.ones(limits.n_tasks, bool)
    if not covered.all():
        task = int(covered.argmin())
        return f"task {task} fits in no group under these limits; pass singleton_score= to let it train alone"
    certainty = "no grouping" if listed else "no grouping found that"
    return (
        f"{certainty} into at most {n_groups} groups serves all {limits.n_tasks} tasks within "
        f"max_size={limits.max_size}, max_total_size={limits.max_total_size}, "
        f"{len(limits.cannot_link)} pairs of cannot_link; allow more groups"
    )
