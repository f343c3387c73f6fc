"""The best subset of many tasks, and the best continuous weights, of a score that costs no forward pass."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from mtrl_transfer.scales import divide, squared_norms

MULTIPLIERS = 24
STEPS = 100
RANK_TOLERANCE = 1e-6
"""Singular values of the task gradients below this share of the largest count as zero."""


def starting_subsets(score: Callable[[Tensor], Tensor], gain: Tensor, norms: Tensor) -> Tensor:
    """Return where a search starts: all tasks, those that gain, the best single one, the best few by gain per length.

    Args:
        score: scores `[K]` of subsets `[K, T]` bool.
        gain: `[T]`, what each task adds to first order.
        norms: `[T]`, of the task gradients.

    Returns:
        `[4, T]` bool, none empty.
    """
    everyone = torch.ones_like(gain, dtype=torch.bool)
    gaining = torch.where((gain > 0).any(), gain > 0, everyone)
    rank = (-gain / norms.clamp(min=torch.finfo(norms.dtype).tiny)).argsort().argsort()
    places = torch.arange(len(gain), device=gain.device)[:, None]
    families = (rank <= places, places == places.mT)
    best = [family.index_select(0, score(family).nan_to_num(-torch.inf).argmax()[None])[0] for family in families]
    return torch.stack([everyone, gaining, *best])


def best_subset(score: Callable[[Tensor], Tensor], starts: Tensor) -> Tensor:
    """Local search over subsets: from every start, T times the one flip that raises the score most.

    Exact where the score is a sum over members (first order without norm matching); a local optimum otherwise (from
    `starting_subsets`, over 95% of the best of all 2^12 in the tests). The number of rounds is fixed, so that nothing
    waits for the device.

    Args:
        score: scores `[K]` of subsets `[K, T]` bool.
        starts: `[S, T]` bool, none empty.

    Returns:
        `[T]` bool, never empty; at least as good as every start.
    """
    n_starts, n_tasks = starts.shape
    flips = torch.eye(n_tasks, dtype=torch.bool, device=starts.device)

    def scored(subsets: Tensor) -> Tensor:
        found = score(subsets)
        return torch.where(found.isfinite() & subsets.any(1), found, -torch.inf)

    subsets, scores = starts, scored(starts)
    for _ in range(n_tasks):
        neighbours = subsets[:, None] ^ flips
        found, which = scored(neighbours.flatten(0, 1)).view(n_starts, n_tasks).max(1)
        better = found > scores
        subsets = torch.where(better[:, None], subsets ^ flips[which], subsets)
        scores = torch.where(better, found, scores)
    return subsets.index_select(0, scores.argmax()[None])[0]


def best_direction(gain: Tensor, gramian: Tensor, limit: Tensor) -> Tensor:
    """Weights that maximise `gain · w` under `w ≥ 0` and `wᵀGw ≤ limit`, exactly: `best_weights` without a cost.

    With `AᵀA = G`, they point as the `w ≥ 0` with the least `‖A w − A⁻ᵀ gain‖`. Waits for the device.

    Args:
        gain: `[T]`.
        gramian: `[T, T]`.
        limit: `[]`, largest squared norm of the trunk gradient.

    Returns:
        `[T]`; zero where nothing gains.
    """
    from scipy.optimize import nnls  # takes long to import

    gain = torch.where(gain.isfinite(), gain, 0)
    values, vectors = np.linalg.eigh(gramian.double().cpu().numpy())
    roots = np.sqrt(np.clip(values, 0, None))[:, None]
    root = roots * vectors.T
    inverse = np.divide(vectors.T, roots, out=np.zeros_like(root), where=roots > RANK_TOLERANCE * roots.max())
    found = torch.as_tensor(nnls(root, inverse @ gain.double().cpu().numpy())[0]).to(gain)
    return found * divide(limit, squared_norms(gramian, found)).sqrt()


def best_weights(gain: Tensor, cost: Tensor, gramian: Tensor, limit: Tensor) -> Tensor:
    """Weights that maximise `gain · w − wᵀ cost w` under `w ≥ 0` and `wᵀGw ≤ limit`.

    Accelerated projected gradient for a grid of multipliers of the norm constraint at once; each solution is then
    brought to its best feasible length, and the best one taken: within 1% of the largest value in the tests. The number
    of steps is fixed, so that nothing waits for the device.

    Args:
        gain: `[T]`.
        cost: `[T, T]`, symmetric.
        gramian: `[T, T]`.
        limit: `[]`, largest squared norm of the trunk gradient.

    Returns:
        `[T]`; zero where nothing gains.
    """
    norms = gramian.diagonal().clamp(min=0).sqrt()
    unit = divide(limit.sqrt(), norms)  # w = unit * v: all of order one
    gain, cost = gain * unit, cost * unit[:, None] * unit
    metric = divide(gramian * unit[:, None] * unit, limit)
    multipliers = torch.logspace(-4, 1, MULTIPLIERS, dtype=gain.dtype, device=gain.device) * gain.norm()
    hessian = 2 * (cost + multipliers[:, None, None] * metric)  # [M, T, T]
    largest = hessian.abs().sum(-1)  # a diagonal matrix that bounds the Hessian: one rate a coordinate
    rate = divide(1, largest)
    found = momentum = torch.zeros(MULTIPLIERS, len(gain), dtype=gain.dtype, device=gain.device)
    for step in range(STEPS):
        ascent = gain - torch.bmm(hessian, momentum[..., None])[..., 0]
        moved = (momentum + rate * ascent).clamp(min=0)
        momentum = moved + step / (step + 3) * (moved - found)
        found = moved
    found = found * _best_length(found, gain, cost, metric)[:, None]
    values = found @ gain - ((found @ cost) * found).sum(1)
    best = torch.where(values.isfinite(), values, -torch.inf).argmax()
    return found.index_select(0, best[None])[0] * unit


def _best_length(found: Tensor, gain: Tensor, cost: Tensor, metric: Tensor) -> Tensor:
    """Factor `[M]` of each row with the largest value among those within the norm."""
    linear, curved, length = found @ gain, ((found @ cost) * found).sum(1), squared_norms(metric, found).sqrt()
    longest = divide(1, length)
    return torch.minimum(divide(linear, 2 * curved, longest), longest).clamp(min=0)
