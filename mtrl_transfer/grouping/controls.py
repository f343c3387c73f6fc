"""Groupings that no affinity chose, to compare with."""

from __future__ import annotations

import numpy as np

from mtrl_transfer.grouping.groups import Grouping, check_n_groups, disjoint


def all_together(n_tasks: int) -> Grouping:
    """One network for all tasks."""
    return disjoint([range(n_tasks)])


def one_per_task(n_tasks: int) -> Grouping:
    """A network for each task."""
    return disjoint([task] for task in range(n_tasks))


def random_groups(n_tasks: int, n_groups: int, seed: int) -> Grouping:
    """Disjoint groups of nearly equal sizes, tasks drawn at random.

    Args:
        n_tasks: T.
        n_groups: 1 to T.
        seed: of the draw.

    Raises:
        ValueError: for another number of groups.
    """
    check_n_groups(n_groups, n_tasks)
    order = np.random.default_rng(seed).permutation(n_tasks)
    return disjoint(part.tolist() for part in np.array_split(order, n_groups))
