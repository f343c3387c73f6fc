"""The plain mean of the task gradients."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from mtrl_transfer.combiners.base import Combiner
from mtrl_transfer.combiners.registry import register
from mtrl_transfer.context import Context


@register("mean")
class Mean(Combiner):
    """Every task `1/T`: equals plain backward of the mean of the task losses."""

    sync_free: ClassVar[bool] = True
    needs_gramian: ClassVar[bool] = False

    def weigh(self, gramian: Tensor, context: Context | None) -> Tensor:
        """Weights `[T]`, all `1/T`."""
        return torch.full_like(gramian[0], 1 / len(gramian))
