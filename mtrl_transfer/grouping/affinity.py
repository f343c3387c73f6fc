"""Affinity matrices: what is accepted, and what within them can be compared."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from torch import Tensor

Affinity = ArrayLike | Tensor


def checked_affinity(affinity: Affinity) -> np.ndarray:
    """Affinity as float64 `[T giver, T receiver]` with a zero diagonal and nothing missing.

    Only differences within a receiver's column mean anything: which giver is better for it. So a missing value (nan)
    becomes the mean of its column, which speaks neither for nor against that giver; a column without any value becomes
    zeros. A task's affinity to itself is never used.

    Args:
        affinity: `[T, T]`, numpy or torch; nan where nothing was measured.

    Raises:
        ValueError: for another shape, or values that are infinite.
    """
    array = affinity.detach().cpu().double().numpy() if isinstance(affinity, Tensor) else np.asarray(affinity)
    if array.ndim != 2 or array.shape[0] != array.shape[1] or not len(array):
        raise ValueError(f"affinity must be square, [giver, receiver]; got shape {list(array.shape)}")
    matrix = array.astype(np.float64)
    np.fill_diagonal(matrix, 0.0)
    if np.isinf(matrix).any():
        giver, receiver = np.argwhere(np.isinf(matrix))[0]
        raise ValueError(f"affinity[{giver}, {receiver}] is infinite; give nan for what was not measured")
    missing = np.isnan(matrix)
    known = ~missing & ~np.eye(len(matrix), dtype=bool)
    means = np.where(known, matrix, 0.0).sum(axis=0) / np.maximum(known.sum(axis=0), 1)
    return np.where(missing, means, matrix)


def standardized(affinity: Affinity) -> np.ndarray:
    """Affinity `[T, T]` with every receiver's column at mean 0 and standard deviation 1, the diagonal left out.

    Sums over receivers then weigh all tasks alike, where raw columns differ by orders of magnitude (a solved task's
    tiny loss). A column without differences becomes zeros; the diagonal is zero.
    """
    matrix = checked_affinity(affinity)
    others = ~np.eye(len(matrix), dtype=bool)
    count = max(len(matrix) - 1, 1)
    centred = np.where(others, matrix - matrix.sum(axis=0) / count, 0.0)
    spread = np.sqrt(np.square(centred).sum(axis=0) / count)
    negligible = spread <= 1e-12 * np.abs(matrix).max(axis=0)
    return np.where(negligible, 0.0, centred / np.where(negligible, 1.0, spread))
