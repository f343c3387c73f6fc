"""Supervised tasks whose covariance angle and label noise are chosen: one target with few rows, one source with many.

The source is the target seen through a rotation: same function, other inputs. The tasks differ only in the spread of
their inputs, and one linear map removes the difference. Tensors have a leading axis of S independent trials; the
source's have one of A angles before it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

WIDE, NARROW = 1.0, 0.1
"""Variances of the inputs along the two axes of each rotated plane."""
TEST_ROWS = 1_000
Function = Callable[[Tensor], Tensor]
"""`[S, m, d] -> [S, m]`, of unrotated inputs."""


class Task(NamedTuple):
    """`x [..., S, m, d]`, noisy labels `y [..., S, m]`."""

    x: Tensor
    y: Tensor


class Problem(NamedTuple):
    """A target with few rows, a source with many, and noiseless test rows of the target."""

    target: Task
    source: Task
    test: Task


def rotation(angle: Tensor, width: int) -> Tensor:
    """Return rotations of the planes (0, 1), (2, 3), … by `angle [A]`: `[A, d, d]`, to be applied to columns."""
    turn = torch.zeros(len(angle), width, width, dtype=angle.dtype)
    even = torch.arange(0, width, 2)
    cosine, sine = angle.cos()[:, None], angle.sin()[:, None]
    turn[:, even, even], turn[:, even + 1, even + 1] = cosine, cosine
    turn[:, even, even + 1], turn[:, even + 1, even] = -sine, sine
    return turn


def similarity_at(angle: float, width: int) -> float:
    """Covariance similarity of target and source in closed form, for infinitely many rows and the whole spectrum."""
    planes = width // 2
    overlap = (WIDE**2 + NARROW**2) * math.cos(angle) ** 2 + 2 * WIDE * NARROW * math.sin(angle) ** 2
    return math.sqrt(overlap * planes) / ((WIDE + NARROW) * planes)


def rotated_problem(
    function: Function,
    angles: Tensor,
    shape: tuple[int, int],
    rows: tuple[int, int],
    noise: float,
    generator: torch.Generator,
) -> Problem:
    """Draw one problem per trial; only the rotation differs between angles, so they are compared on equal draws.

    Args:
        function: the target's labels without noise.
        angles: angles of the source in radians, `[A]`.
        shape: trials `S` and width `d`, which is even.
        rows: rows of target and source.
        noise: standard deviation of the label noise.
        generator: draws everything, in double precision.
    """

    def draw(number: int, noise: float) -> Task:
        normal = torch.randn(shape[0], number, shape[1], generator=generator, dtype=torch.float64)
        x = normal * torch.tensor([WIDE, NARROW] * (shape[1] // 2), dtype=torch.float64).sqrt()
        return Task(x, function(x) + noise * torch.randn(x.shape[:2], generator=generator, dtype=torch.float64))

    target, source, test = draw(rows[0], noise), draw(rows[1], noise), draw(TEST_ROWS, 0.0)
    turned = source.x @ rotation(angles, shape[1]).mT.unsqueeze(1)
    return Problem(target, Task(turned, source.y.expand(len(angles), -1, -1)), test)
