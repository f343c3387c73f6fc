"""Controls: tasks left out, or weighted, at random."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from mtrl_transfer.combiners.base import Combiner, live_tasks
from mtrl_transfer.combiners.registry import register
from mtrl_transfer.context import Context
from mtrl_transfer.steps import check_norm_factor, match_mean


class _RandomControl(Combiner):
    """Random weights, brought to the norm of the mean gradient as `Transference` brings its candidates."""

    sync_free: ClassVar[bool] = True

    renamed: ClassVar[Mapping[str, str]] = {"norm_matching": "max_norm_factor=None for False"}

    def __init__(self, max_norm_factor: float | None = 2.0, generator: torch.Generator | None = None) -> None:
        super().__init__(generator)
        check_norm_factor(max_norm_factor)
        self.max_norm_factor = max_norm_factor


@register("random_drop")
class RandomDrop(_RandomControl):
    """Leaves tasks out by chance, as often as another combiner does by choice: does the *choice* matter?

    Every task is left out with its own rate, independently; where none would be left, all are kept.

    Args:
        rates: share of updates in which a task is left out, one number or one a task; 0 is the mean.
        max_norm_factor: largest factor by which the rest is brought to the norm of the mean gradient; None leaves it.
        generator: source of the chance.
    """

    def __init__(
        self,
        rates: float | Sequence[float] = 0.1,
        max_norm_factor: float | None = 2.0,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__(max_norm_factor, generator)
        try:
            given = np.asarray(rates, float)
        except (TypeError, ValueError):
            raise ValueError(f"rates={rates!r} must be a number, or a list of one a task") from None
        if given.ndim > 1 or not ((given >= 0) & (given < 1)).all():
            raise ValueError(f"rates must be at least 0 and below 1, got {rates}")
        self.rates: float | list[float] = given.tolist()
        self._rates: Tensor | None = None

    def check(self, n_tasks: int, signed: bool) -> None:
        """Raise `ValueError` for another number of rates."""
        if isinstance(self.rates, list) and len(self.rates) != n_tasks:
            raise ValueError(f"rates has {len(self.rates)} entries for {n_tasks} tasks")

    def weigh(self, gramian: Tensor, context: Context | None) -> Tensor:
        """Weights `[T]`: of those kept the norm-matched `1/T`, of the others 0."""
        n_tasks = len(gramian)
        self.check(n_tasks, signed=False)
        draws = torch.rand(n_tasks, generator=self.generator(gramian.device), device=gramian.device)
        live = live_tasks(gramian)
        kept = (draws >= self._rates_on(gramian)) & live
        kept = torch.where(kept.any(), kept, live)
        return match_mean(kept.to(gramian.dtype) / n_tasks, gramian, self.max_norm_factor)

    def _rates_on(self, gramian: Tensor) -> Tensor | float:
        if isinstance(self.rates, float):
            return self.rates
        if self._rates is None or self._rates.device != gramian.device:  # once, since they cross to the device
            self._rates = torch.tensor(self.rates, device=gramian.device)
        return self._rates


@register("random_weights")
class RandomWeights(_RandomControl):
    """Softmax of normal draws as task weights (random loss weighting; Lin et al., 2022, arXiv 2111.10603).

    Args:
        max_norm_factor: largest factor by which the result is brought to the norm of the mean gradient; None leaves it.
        generator: source of the draws.
    """

    def weigh(self, gramian: Tensor, context: Context | None) -> Tensor:
        """Weights `[T]`, positive."""
        generator = self.generator(gramian.device)
        draws = torch.randn(len(gramian), generator=generator, device=gramian.device, dtype=torch.float64)
        live = live_tasks(gramian)
        shares = torch.softmax(torch.where(live, draws, -torch.inf), 0) * (live.sum() / len(live))
        return match_mean(shares.to(gramian.dtype), gramian, self.max_norm_factor)
