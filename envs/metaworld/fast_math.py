"""Scalar versions of the small numeric helpers in Meta-World's rewards: the same bits, without array overhead."""

from __future__ import annotations

import math
import types
from typing import Any

import numpy as np
from metaworld.utils import reward_utils
from scipy.spatial.transform import Rotation


def norm(x: Any, *args: Any, **kwargs: Any) -> Any:
    """`numpy.linalg.norm`, quick for a float64 vector."""
    if args or kwargs or type(x) is not np.ndarray or x.ndim != 1 or x.dtype != np.float64:
        return np.linalg.norm(x, *args, **kwargs)
    return np.sqrt(x.dot(x))


def clip(x: Any, *args: Any, **kwargs: Any) -> Any:
    """`numpy.clip`, quick for a float64 array between given bounds."""
    if kwargs or len(args) != 2 or type(x) is not np.ndarray:
        return np.clip(x, *args, **kwargs)
    return x.clip(*args)


def tolerance(
    x: Any,
    bounds: tuple[float, float] = (0.0, 0.0),
    margin: Any = 0.0,
    sigmoid: str = "gaussian",
    value_at_margin: float = 0.1,
) -> Any:
    """`metaworld.utils.reward_utils.tolerance`, quick for a float under the long-tailed sigmoid."""
    lower, upper = bounds
    if not isinstance(x, float) or sigmoid != "long_tail" or lower > upper or not margin > 0.0:
        return reward_utils.tolerance(x, bounds, margin, sigmoid, value_at_margin)
    if lower <= x <= upper:
        return 1.0
    distance = np.float64(lower - x if x < lower else x - upper) / margin
    scale = math.sqrt(1 / value_at_margin - 1)
    return float(1 / ((distance * scale) ** 2 + 1))


class QuickRotation:
    """`scipy.spatial.transform.Rotation` as far as Meta-World uses it: one rotation matrix to a quaternion."""

    def __init__(self, quaternion: np.ndarray) -> None:
        self._quaternion = quaternion

    @classmethod
    def from_matrix(cls, matrix: np.ndarray) -> QuickRotation | Rotation:
        """Read a rotation matrix, `[3, 3]`; SciPy reads anything else."""
        if matrix.shape != (3, 3):
            return Rotation.from_matrix(matrix)
        rows = matrix.tolist()
        if not _is_rotation(rows):
            return Rotation.from_matrix(matrix)
        return cls(_quaternion(rows))

    def as_quat(self) -> np.ndarray:
        """Return the quaternion (x, y, z, w)."""
        return self._quaternion


def _is_rotation(m: list[list[float]]) -> bool:
    """Return True if SciPy would use the matrix without orthogonalising it (its tolerance is 1e-12)."""
    (a, b, c), (d, e, f), (g, h, i) = m
    return (
        abs(a * a + b * b + c * c - 1) < 1e-12
        and abs(d * d + e * e + f * f - 1) < 1e-12
        and abs(g * g + h * h + i * i - 1) < 1e-12
        and abs(a * d + b * e + c * f) < 1e-12
        and abs(a * g + b * h + c * i) < 1e-12
        and abs(d * g + e * h + f * i) < 1e-12
        and a * (e * i - f * h) - b * (d * i - f * g) + c * (d * h - e * g) > 0
    )


def _quaternion(m: list[list[float]]) -> np.ndarray:
    """Return a rotation matrix's normalised quaternion, by its largest component, in SciPy's order of operations."""
    trace = m[0][0] + m[1][1] + m[2][2]
    candidates = (m[0][0], m[1][1], m[2][2], trace)
    largest = candidates.index(max(candidates))
    q = [0.0, 0.0, 0.0, 0.0]
    if largest == 3:
        q = [m[2][1] - m[1][2], m[0][2] - m[2][0], m[1][0] - m[0][1], 1 + trace]
    else:
        i, j, k = largest, (largest + 1) % 3, (largest + 2) % 3
        q[i] = 1 - trace + 2 * m[i][i]
        q[j] = m[j][i] + m[i][j]
        q[k] = m[k][i] + m[i][k]
        q[3] = m[k][j] - m[j][k]
    length = math.sqrt(q[0] * q[0] + q[1] * q[1] + q[2] * q[2] + q[3] * q[3])
    return np.array([q[0] / length, q[1] / length, q[2] / length, q[3] / length])


def _copy_module(module: types.ModuleType, **changes: Any) -> types.ModuleType:
    """Return a copy of a module with some names changed; the original stays as it is."""
    changed = types.ModuleType(module.__name__)
    changed.__dict__.update({**module.__dict__, **changes})
    return changed


REPLACEMENTS: dict[str, Any] = {
    "np": _copy_module(np, linalg=_copy_module(np.linalg, norm=norm), clip=clip),
    "reward_utils": _copy_module(reward_utils, tolerance=tolerance),
    "tolerance": tolerance,
    "Rotation": QuickRotation,
}
"""Replacements of these names of Meta-World's modules in `mtrl_transfer.envs.metaworld.fast`."""
