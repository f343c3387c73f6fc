"""The best few of given groups, exactly: a p-median problem by Lagrangian bounds and an integer program.

Choosing `b` groups such that the best group of every task scores most is a p-median problem with groups as facilities.
Lagrangian multipliers (one a task, Held and Karp's subgradient method) bound from above what any solution with a given
group can reach; groups that cannot be part of a better one are dropped, and HiGHS solves the rest.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import block_array, coo_array, csr_array

ASCENT_STEPS = 150
FIRST_COLUMNS = 64
_RANGE = 1e3
"""Scores are brought to this range, for HiGHS stops at an absolute gap of 1e-6."""


class Duals(NamedTuple):
    """`price`: `[T]` of being served; `size_price`: of one place in a group; `value`: the bound they prove."""

    price: np.ndarray
    size_price: float
    value: float


def profits(table: np.ndarray, sizes: np.ndarray, duals: Duals) -> np.ndarray:
    """Gain of each group `[S]` beyond the prices of its members and places; may be negative."""
    return np.maximum(table - duals.price, 0.0).sum(axis=1) - duals.size_price * sizes


def bound_by_prices(table: np.ndarray, sizes: np.ndarray, n_groups: int, max_total: int | None) -> Duals:
    """Prices found by subgradient steps, and the upper bound on the score of any grouping that they prove.

    Args:
        table: `[S, T]`, minus infinity where a task is no member.
        sizes: `[S]`.
        n_groups: largest number of groups.
        max_total: of the sizes of the chosen; None: no limit.
    """
    finite = np.where(np.isfinite(table), table, np.nan)
    price = np.nanmax(finite, axis=0)
    step = float((price - np.nanmin(finite, axis=0)).mean()) / 4
    best = current = Duals(price, 0.0, np.inf)
    for _ in range(ASCENT_STEPS):
        earned = profits(table, sizes, current)
        chosen = np.argpartition(-earned, min(n_groups, len(earned)) - 1)[:n_groups]
        chosen = chosen[earned[chosen] > 0]
        limit = current.size_price * (max_total or 0)
        value = float(current.price.sum() + limit + earned[chosen].sum())
        if value < best.value:
            best = current._replace(value=value)
        served = (table[chosen] > current.price).sum(axis=0)
        places = 0.0 if max_total is None else (sizes[chosen].sum() - max_total) / len(price)
        current = Duals(current.price - step * (1 - served), max(current.size_price + step * places, 0.0), np.inf)
        step *= 0.96
    return best


def best_groups(
    table: np.ndarray, sizes: np.ndarray, n_groups: int, max_total: int | None
) -> tuple[np.ndarray, float] | None:
    """Indices of the groups that together score most, and that score; None where no choice serves all tasks.

    Of choices that score the same, one with the least total size.

    Args:
        table: `[S, T]`, each task's score in each group; minus infinity where it is no member.
        sizes: `[S]`.
        n_groups: largest number of groups.
        max_total: of the sizes of the chosen; None: no limit.
    """
    if not len(table) or not np.isfinite(table).any(axis=0).all():
        return None
    duals = bound_by_prices(table, sizes, n_groups, max_total)
    earned = profits(table, sizes, duals)
    order = np.argsort(-earned, kind="stable")
    # Any solution with one more group beyond the best few gives up the least of them for it.
    reach = duals.value + earned - max(earned[order[min(n_groups, len(order)) - 1]], 0.0)
    n_columns = min(max(FIRST_COLUMNS, 8 * n_groups), len(order))
    while True:
        columns = np.sort(order[:n_columns])
        program = _Program(table[columns], sizes[columns], n_groups, max_total)
        solved = program.most()
        needed = len(order) if solved is None else int((reach > solved[1] - 1e-9 * (1 + abs(duals.value))).sum())
        if n_columns >= needed:
            return None if solved is None else (columns[program.smallest(*solved)], solved[1])
        n_columns = min(max(needed, 2 * n_columns) if solved is not None else 4 * n_columns, len(order))


class _Program:
    """The whole integer program, solved by HiGHS.

    Variables: one for each group, 1 if it is chosen `[S]`; then one for each task and group, 1 if the group serves it.
    """

    def __init__(self, table: np.ndarray, sizes: np.ndarray, n_groups: int, max_total: int | None) -> None:
        self.table, self.sizes, self.n_groups = table, sizes.astype(float), n_groups
        self.max_total = np.inf if max_total is None else max_total
        self.rows, self.tasks = np.nonzero(np.isfinite(table))
        self.serves_all = np.isfinite(table).any(axis=0).all()
        # Each task is served once, so what all its scores have in common decides nothing.
        lowest = np.where(np.isfinite(table), table, np.inf).min(axis=0)
        gains = table[self.rows, self.tasks] - lowest[self.tasks]
        self.gains = gains * (_RANGE / (gains.max(initial=0.0) or 1.0))

    def most(self) -> tuple[np.ndarray, float] | None:
        """Chosen groups with the largest score, and that score."""
        if not self.serves_all:
            return None
        solution = self._solve(np.concatenate([np.zeros(len(self.table)), -self.gains]), -np.inf)
        if solution is None:
            return None
        chosen = np.flatnonzero(solution)
        return chosen, float(self.table[chosen].max(axis=0).sum())

    def smallest(self, chosen: np.ndarray, score: float) -> np.ndarray:
        """Return a choice with this score and the least total size."""
        gains = np.zeros(self.table.shape)
        gains[self.rows, self.tasks] = self.gains
        reached = float(gains[chosen].max(axis=0).sum())
        solution = self._solve(np.concatenate([self.sizes, np.zeros(len(self.rows))]), reached - 1e-6)
        if solution is None:
            return chosen
        again = np.flatnonzero(solution)
        same = self.table[again].max(axis=0).sum() >= score - 1e-9 * (1 + abs(score))
        return again if same else chosen

    def _solve(self, cost: np.ndarray, at_least: float) -> np.ndarray | None:
        n_sets, n_tasks = self.table.shape
        n_pairs = len(self.rows)
        pairs, ones = np.arange(n_pairs), np.ones(n_pairs)
        blocks = [
            [csr_array((n_tasks, n_sets)), coo_array((ones, (self.tasks, pairs)), (n_tasks, n_pairs))],
            [coo_array((-ones, (pairs, self.rows)), (n_pairs, n_sets)), coo_array((ones, (pairs, pairs)))],
            [csr_array(np.ones((1, n_sets))), csr_array((1, n_pairs))],
            [csr_array(self.sizes[None]), csr_array((1, n_pairs))],
            [csr_array((1, n_sets)), csr_array(self.gains[None])],
        ]
        low = np.concatenate([np.ones(n_tasks), np.full(n_pairs + 2, -np.inf), [at_least]])
        high = np.concatenate([np.ones(n_tasks), np.zeros(n_pairs), [self.n_groups, self.max_total, np.inf]])
        found = milp(
            cost,
            constraints=LinearConstraint(block_array(blocks, format="csr"), low, high),
            integrality=np.concatenate([np.ones(n_sets), np.zeros(n_pairs)]),
            bounds=Bounds(0.0, 1.0),
            options={"mip_rel_gap": 0.0},
        )
        return None if found.x is None else found.x[:n_sets] > 0.5
