"""More groups than can be listed: columns are generated, and a relaxation bounds how far off the result may be."""

from __future__ import annotations

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import coo_array, csr_array, hstack, vstack

from mtrl_transfer.grouping.cluster import linkage
from mtrl_transfer.grouping.constraints import Constraints
from mtrl_transfer.grouping.groups import membership, scores_of
from mtrl_transfer.grouping.program import bound_by_prices, profits

ROUNDS = 30
GROWN = 60
"""Groups with the highest profit that each round looks for better neighbours of."""
POOL = 6_000


def generated_groups(matrix: np.ndarray, limits: Constraints, n_groups: int, single: np.ndarray | None) -> np.ndarray:
    """A pool of promising groups, `[S, T]` bool: column generation with local search for the pricing problem.

    Each round prices the tasks by the Lagrangian of the groups so far and adds the neighbours (one unit more or fewer)
    of the most profitable groups that beat them.
    """
    pool = limits.allowed(_first_groups(matrix, limits))
    for _ in range(ROUNDS):
        table, sizes = scores_of(pool, matrix, single), pool.sum(axis=1)
        if not pool.any(axis=0).all():
            break
        duals = bound_by_prices(table, sizes, n_groups, limits.max_total_size)
        earned = profits(table, sizes, duals)
        best = np.argsort(-earned, kind="stable")
        near = _unlisted(limits.allowed(_neighbours(pool[best[:GROWN]], limits)), pool)
        gains = profits(scores_of(near, matrix, single), near.sum(axis=1), duals)
        worth = near[gains > max(earned[best[min(GROWN, len(best)) - 1]], 0.0)]
        if not len(worth):
            break
        pool = np.concatenate([pool[best[:POOL]], worth])
    return pool


def bound_by_sizes(matrix: np.ndarray, limits: Constraints, n_groups: int, single: np.ndarray | None) -> float:
    """An upper bound on the score of any grouping.

    Few groups must be large, and in a group of `k` a task scores at most the mean of its best `k - 1` givers: how
    many groups there are of each size, and which size serves whom, is an integer program.
    """
    n_tasks = len(matrix)
    sizes = np.arange(limits.min_size, limits.max_size + 1)
    ordered = -np.sort(-np.where(np.eye(n_tasks, dtype=bool), -np.inf, matrix), axis=0)[: n_tasks - 1]
    running = np.cumsum(ordered, axis=0) / np.arange(1, n_tasks)[:, None]
    best = np.stack([running[size - 2] if single is None or size > 1 else single for size in sizes])
    n_sizes, n_pairs = best.shape[0], best.size
    pairs = np.arange(n_pairs)
    of_size, of_task = np.divmod(pairs, n_tasks)
    each_once = coo_array((np.ones(n_pairs), (of_task, pairs)), (n_tasks, n_pairs))
    served = coo_array((np.ones(n_pairs), (of_size, pairs)), (n_sizes, n_pairs))
    none = csr_array((1, n_pairs))
    total = np.inf if limits.max_total_size is None else limits.max_total_size
    constraints = vstack(
        [
            hstack([csr_array((n_tasks, n_sizes)), each_once]),
            hstack([coo_array((-sizes.astype(float), (np.arange(n_sizes),) * 2)), served]),
            hstack([csr_array(np.ones((1, n_sizes))), none]),
            hstack([csr_array(sizes[None, :].astype(float)), none]),
        ],
        format="csr",
    )
    found = milp(
        np.concatenate([np.zeros(n_sizes), -best.ravel()]),
        constraints=LinearConstraint(
            constraints,
            np.concatenate([np.ones(n_tasks), np.full(n_sizes + 2, -np.inf)]),
            np.concatenate([np.ones(n_tasks), np.zeros(n_sizes), [n_groups, total]]),
        ),
        integrality=np.concatenate([np.ones(n_sizes), np.zeros(n_pairs)]),
        bounds=Bounds(np.zeros(n_sizes + n_pairs), np.concatenate([np.full(n_sizes, n_groups), np.ones(n_pairs)])),
        options={"time_limit": 10.0},
    )
    return float(-found.mip_dual_bound) if found.mip_dual_bound is not None else float(best.max(axis=0).sum())


def _first_groups(matrix: np.ndarray, limits: Constraints) -> np.ndarray:
    """Units and their pairs, each task with its best few givers, and all nodes of a dendrogram; in whole units."""
    n_tasks = len(matrix)
    eye = np.eye(n_tasks, dtype=bool)
    pairs = eye[:, None] | eye[None, :]
    ranks = np.argsort(np.argsort(-np.where(eye, np.inf, matrix), axis=0), axis=0)
    best_givers = [count >= ranks.T for count in range(1, limits.max_size)]
    nodes = [{task} for task in range(n_tasks)]
    for one, other, *_ in linkage(matrix):
        nodes.append(nodes[int(one)] | nodes[int(other)])
    rows = np.concatenate([pairs.reshape(-1, n_tasks), *best_givers, membership(nodes, n_tasks)])
    return np.unique(_whole_units(rows, limits), axis=0)


def _whole_units(members: np.ndarray, limits: Constraints) -> np.ndarray:
    unit = membership(limits.units, limits.n_tasks)
    return (members.astype(int) @ unit.T.astype(int) > 0) @ unit


def _neighbours(members: np.ndarray, limits: Constraints) -> np.ndarray:
    """Each group with one unit put in or taken out."""
    return (members[:, None] ^ membership(limits.units, limits.n_tasks)[None]).reshape(-1, limits.n_tasks)


def _unlisted(members: np.ndarray, pool: np.ndarray) -> np.ndarray:
    """Distinct rows that the pool does not hold."""
    known = {row.tobytes() for row in pool}
    distinct = np.unique(members, axis=0)
    return distinct[[row.tobytes() not in known for row in distinct]]
