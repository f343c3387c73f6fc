"""Constraints on groupings, and the groups that satisfy them."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from mtrl_transfer.grouping.groups import membership


@dataclass(frozen=True)
class Constraints:
    """Limits on groups of `n_tasks` tasks.

    Attributes:
        n_tasks: T.
        units: tasks that must stay together, disjoint; every task is in one unit, mostly alone.
        cannot_link: pairs of tasks that no group may hold both of.
        min_size: 2, or 1 where groups of one are allowed.
        max_size: of a group.
        max_total_size: of all groups together; None: no limit.
    """

    n_tasks: int
    units: tuple[tuple[int, ...], ...]
    cannot_link: tuple[tuple[int, int], ...]
    min_size: int
    max_size: int
    max_total_size: int | None

    def n_groups_at_most(self, limit: int) -> bool:
        """Return True if there are at most `limit` groups, by their sizes alone."""
        n_units = len(self.units)
        return sum(math.comb(n_units, size) for size in range(1, min(n_units, self.max_size) + 1)) <= limit

    def all_groups(self) -> np.ndarray:
        """Every group that is allowed, `[S, T]` bool."""
        n_units = len(self.units)
        chosen = [
            [task for unit in units for task in unit]
            for size in range(1, min(n_units, self.max_size) + 1)
            for units in itertools.combinations(self.units, size)
        ]
        return self.allowed(membership(chosen, self.n_tasks))

    def allowed(self, members: np.ndarray) -> np.ndarray:
        """Rows of `[S, T]` of allowed size with no forbidden pair; assumes that no unit is split."""
        sizes = members.sum(axis=1)
        good = (sizes >= self.min_size) & (sizes <= self.max_size)
        for one, other in self.cannot_link:
            good &= ~(members[:, one] & members[:, other])
        return members[good]


def make_constraints(
    n_tasks: int,
    max_size: int | None,
    max_total_size: int | None,
    must_link: Sequence[Iterable[int]],
    cannot_link: Sequence[Iterable[int]],
    singletons: bool,
) -> Constraints:
    """Check and gather what `select_groups` was given.

    Raises:
        ValueError: naming what is out of range, or which demands contradict each other.
    """
    if n_tasks == 1 and not singletons:
        raise ValueError("a single task can only train alone; pass singleton_score= to allow groups of one")
    smallest = 1 if singletons else 2
    if max_size is not None and max_size < smallest:
        raise ValueError(f"max_size={max_size} must be at least {smallest}")
    if max_total_size is not None and max_total_size < n_tasks:
        raise ValueError(f"max_total_size={max_total_size} must be at least {n_tasks}: every task is in some group")
    units = _units(n_tasks, [_tasks("must_link", entry, n_tasks) for entry in must_link])
    pairs = {pair for entry in cannot_link for pair in itertools.combinations(_tasks("cannot_link", entry, n_tasks), 2)}
    for unit in units:
        for pair in itertools.combinations(unit, 2):
            if pair in pairs:
                raise ValueError(f"must_link joins tasks {unit}, but cannot_link separates {pair[0]} and {pair[1]}")
        if max_size is not None and len(unit) > max_size:
            raise ValueError(f"must_link joins tasks {unit}, but max_size={max_size}")
    size = n_tasks if max_size is None else min(max_size, n_tasks)
    return Constraints(n_tasks, units, tuple(sorted(pairs)), smallest, size, max_total_size)


def _tasks(name: str, entry: Iterable[int], n_tasks: int) -> tuple[int, ...]:
    tasks = tuple(sorted(entry))
    if len(set(tasks)) < 2 or len(set(tasks)) < len(tasks) or tasks[0] < 0 or tasks[-1] >= n_tasks:
        raise ValueError(f"{name} has the entry {tasks}; expected two or more different tasks of 0 to {n_tasks - 1}")
    return tasks


def _units(n_tasks: int, must_link: Sequence[tuple[int, ...]]) -> tuple[tuple[int, ...], ...]:
    """Tasks joined by any chain of demands."""
    unit_of = {task: {task} for task in range(n_tasks)}
    for entry in must_link:
        joined = set().union(*(unit_of[task] for task in entry))
        unit_of.update(dict.fromkeys(joined, joined))
    return tuple(_distinct(unit_of[task] for task in range(n_tasks)))


def _distinct(sets: Iterable[set[int]]) -> Iterator[tuple[int, ...]]:
    seen: set[int] = set()
    for one in sets:
        if not seen & one:
            seen |= one
            yield tuple(sorted(one))
