"""Small supervised multi-task problems: every task labels the same inputs."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from mtrl_transfer.agents.runs.errors import InputError


class Rows(NamedTuple):
    """Inputs `x [n, d]` with every task's label `y [n, T]`: a class (long), or a number."""

    x: Tensor
    y: Tensor


class Suite(NamedTuple):
    """One problem.

    - `names`: names of the T tasks.
    - `train`, `test`: separate rows.
    - `n_outputs`: outputs of each head: classes, or 1 for regression.
    - `width`: width of the shared trunk's only hidden layer.
    """

    names: tuple[str, ...]
    train: Rows
    test: Rows
    n_outputs: int
    width: int

    @property
    def n_tasks(self) -> int:
        """T."""
        return len(self.names)


def digits() -> Suite:
    """Two of scikit-learn's handwritten digits overlaid, and six questions about them.

    The left digit fills columns 0 to 7 of a canvas of 8 by 12, the right one columns 4 to 11; each pixel is the
    brighter of the two (after MultiMNIST, arXiv 1710.09829). Training and test rows use different drawings.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise InputError("suite=digits needs scikit-learn: pip install 'mtrl-transfer[supervised]'") from None
    data = load_digits()
    images, labels = data.images.astype(np.float32) / 16, data.target
    draw = np.random.default_rng(0)
    order = draw.permutation(len(images))
    names = ("left digit", "right digit", "left is even", "right is even", "same parity", "left is larger")
    parts = [_overlaid(images, labels, chosen, n, draw) for chosen, n in ((order[:900], 1_000), (order[900:], 2_000))]
    return Suite(names, parts[0], parts[1], n_outputs=10, width=16)


def _overlaid(images: np.ndarray, labels: np.ndarray, chosen: np.ndarray, n: int, draw: np.random.Generator) -> Rows:
    left, right = draw.choice(chosen, n), draw.choice(chosen, n)
    canvas = np.zeros((n, 8, 12), np.float32)
    canvas[:, :, :8] = images[left]
    canvas[:, :, 4:] = np.maximum(canvas[:, :, 4:], images[right])
    one, other = labels[left], labels[right]
    answers = [one, other, one % 2, other % 2, (one - other) % 2, one > other]
    return Rows(torch.from_numpy(canvas.reshape(n, -1)), torch.from_numpy(np.stack(answers, axis=1).astype(np.int64)))


def regression() -> Suite:
    """Six regressions in two families: within a family the targets mix the same two hidden features of the input.

    The trunk is too narrow for the features of both families and the rows are few, so it should pay to train with
    tasks of the same family. Targets have noise of a third of their standard deviation.
    """
    draw = np.random.default_rng(0)
    features = [draw.standard_normal((10, 2)) / np.sqrt(10) for _ in range(2)]
    mixing = draw.standard_normal((6, 2))
    names = tuple(f"{'ab'[family]}{number}" for family in range(2) for number in range(3))

    def rows(n: int) -> Rows:
        x = draw.standard_normal((n, 10))
        hidden = [np.sin(2 * x @ features[task // 3]) @ mixing[task] for task in range(6)]
        y = np.stack(hidden, axis=1) / np.linalg.norm(mixing, axis=1) / np.sqrt(0.5)
        noisy = y + draw.standard_normal(y.shape) / 3
        return Rows(torch.from_numpy(x.astype(np.float32)), torch.from_numpy(noisy.astype(np.float32)))

    return Suite(names, rows(200), rows(2_000), n_outputs=1, width=6)


SUITES: dict[str, Callable[[], Suite]] = {"digits": digits, "regression": regression}
