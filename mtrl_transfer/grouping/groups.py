"""Groupings of tasks, and what affinity says of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from mtrl_transfer.grouping.affinity import Affinity, checked_affinity

Group = tuple[int, ...]


class Grouping(NamedTuple):
    """Groups of tasks that train together, and the group whose network each task uses.

    - `groups`: tasks of each group, ascending; one network each. A task may be in several.
    - `assignment`: for each task the index, in `groups`, of the group whose network is used for it.
    """

    groups: tuple[Group, ...]
    assignment: tuple[int, ...]


def disjoint(groups: Iterable[Iterable[int]]) -> Grouping:
    """Return the grouping of groups that hold each task once."""
    ordered = sorted(tuple(sorted(group)) for group in groups)
    assignment = {task: index for index, group in enumerate(ordered) for task in group}
    return Grouping(tuple(ordered), tuple(assignment[task] for task in range(len(assignment))))


def check_n_groups(n_groups: int, n_tasks: int) -> None:
    """Raise `ValueError` unless there are 1 to T groups."""
    if not 1 <= n_groups <= n_tasks:
        raise ValueError(f"n_groups={n_groups} must be 1 to {n_tasks}, the number of tasks")


def scores_of(members: np.ndarray, matrix: np.ndarray, single: np.ndarray | None) -> np.ndarray:
    """Each task's score in each group: the mean affinity of its mates to it; minus infinity where it is no member.

    Args:
        members: `[S, T]` bool.
        matrix: `[T giver, T receiver]`, checked.
        single: `[T]`, scores in groups of one; None: minus infinity.

    Returns:
        `[S, T]`.
    """
    sizes = members.sum(axis=1, keepdims=True)
    means = members.astype(np.float64) @ matrix / np.maximum(sizes - 1, 1)
    lone = -np.inf if single is None else single
    return np.where(members, np.where(sizes > 1, means, lone), -np.inf)


def membership(groups: Sequence[Iterable[int]], n_tasks: int) -> np.ndarray:
    """Groups as `[S, T]` bool."""
    members = np.zeros((len(groups), n_tasks), bool)
    for row, group in zip(members, groups, strict=True):
        row[list(group)] = True
    return members


def singleton_scores(score: ArrayLike | None, n_tasks: int) -> np.ndarray | None:
    """Scores of groups of one `[T]`, from a number or one a task."""
    if score is None:
        return None
    scores = np.asarray(score, np.float64)
    if scores.shape not in ((), (n_tasks,)) or not np.isfinite(scores).all():
        raise ValueError(f"singleton_score={score!r} must be a finite number, or one for each of the {n_tasks} tasks")
    return np.broadcast_to(scores, (n_tasks,))


def task_scores(affinity: Affinity, grouping: Grouping, singleton_score: ArrayLike | None = None) -> np.ndarray:
    """Predicted score of each task, `[T]`: the mean affinity over its mates in the group that serves it.

    Args:
        affinity: `[T giver, T receiver]`; see `checked_affinity`.
        grouping: of these tasks.
        singleton_score: score of a task that trains alone, a number or one a task; None: minus infinity.
    """
    matrix = checked_affinity(affinity)
    single = singleton_scores(singleton_score, len(matrix))
    table = scores_of(membership(grouping.groups, len(matrix)), matrix, single)
    return table[list(grouping.assignment), np.arange(len(matrix))]


def serve_best(
    affinity: Affinity, groups: Sequence[Iterable[int]], singleton_score: ArrayLike | None = None
) -> Grouping:
    """The grouping in which each task is served from the group with the best mates for it.

    Groups that serve nobody are left out; of equals the first serves.

    Raises:
        ValueError: if a task is in no group, or a group names no task.
    """
    matrix = checked_affinity(affinity)
    single = singleton_scores(singleton_score, len(matrix))
    named = sorted({tuple(sorted(set(group))) for group in groups})
    for group in named:
        if not group or group[0] < 0 or group[-1] >= len(matrix):
            raise ValueError(f"group {group} must name some of the tasks 0 to {len(matrix) - 1}")
    table = scores_of(membership(named, len(matrix)), matrix, single)
    members = membership(named, len(matrix))
    if not members.any(axis=0).all():
        raise ValueError(f"task {int(members.any(axis=0).argmin())} is in no group")
    # A task whose only group is its own is served there, whatever that scores.
    best = np.where(np.isfinite(table), table, np.where(members, -np.finfo(float).max, -np.inf)).argmax(axis=0)
    kept = sorted(set(best.tolist()))
    return Grouping(tuple(named[index] for index in kept), tuple(kept.index(index) for index in best.tolist()))
