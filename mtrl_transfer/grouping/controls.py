"""Groupings that no affinity chose, to compare with."""

from __future__ import annotations

import numpy as np

from mtrl_transfer.grouping.groups import Grouping


def all_together(n_tasks: int) -> Grouping:
    """One network for all tasks."""
    return Grouping((tuple(range(n_tasks)),), (0,) * n_tasks)


def one_per_task(n_tasks: int) -> Grouping:
    """A network for each task."""
    return Grouping(tuple((task,) for task in range(n_tasks)), tuple(range(n_tasks)))


def random_groups(n_tasks: int, n_groups: int, seed: int) -> Grouping:
    """Disjoint groups of nearly equal sizes, tasks drawn at random.

    Args:
        n_tasks: T.
        n_groups: 1 to T.
        seed: of the draw.

    Raises:
        ValueError: for another number of groups.
    """
    if not 1 <= n_groups <= n_tasks:
        raise ValueError(f"n_groups={n_groups} must be 1 to {n_tasks}, the number of tasks")
    order = np.random.default_rng(seed).permutation(n_tasks)
    groups = sorted(tuple(sorted(part.tolist())) for part in np.array_split(order, n_groups))
    assignment = {task: index for index, group in enumerate(groups) for task in group}
    return Grouping(tuple(groups), tuple(assignment[task] for task in range(n_tasks)))
