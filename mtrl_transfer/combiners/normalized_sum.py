"""Every task's gradient at the same length."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from mtrl_transfer.combiners.base import Combiner
from mtrl_transfer.combiners.registry import register
from mtrl_transfer.context import Context


@register("normalized_sum")
class NormalizedSum(Combiner):
    """Sum of the unit task gradients, so that no task dominates by the size of its gradient.

    One scale: the sum is multiplied by the mean norm over T, so that the result grows with the gradients as the mean
    of them does. A zero gradient gets weight 0.
    """

    recordable: ClassVar[bool] = True

    def weigh(self, gramian: Tensor, context: Context | None) -> Tensor:
        """Weights `[T]`, `mean_s ‖g_s‖ / (T ‖g_t‖)`."""
        norms = gramian.diagonal().clamp(min=0).sqrt()
        present = norms > 0
        return torch.where(present, norms.mean() / torch.where(present, norms, 1), 0) / len(gramian)
