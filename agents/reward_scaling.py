"""Per-task reward scales, applied when replay is sampled; replay itself and every reported return stay raw."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

LARGEST_RETURN = 10.0


class MaxReturnScaling:
    """Scale each task's rewards so that the largest discounted return seen so far is :data:`LARGEST_RETURN`.

    The return is accumulated forwards, ``G <- gamma G + r``, as SB3's ``VecNormalize`` does: it is causal, and needs no
    finished episode.

    Args:
        n_tasks: ``T``.
        gamma: discount per step.
    """

    def __init__(self, n_tasks: int, gamma: float) -> None:
        self.gamma = gamma
        self.running = np.zeros(n_tasks)
        self.largest = np.zeros(n_tasks)

    def update(self, rewards: np.ndarray, dones: np.ndarray) -> None:
        """Take one vector step's raw rewards ``[T]`` and episode ends ``[T]``."""
        # A reward that is not finite says nothing of the scale, and would stay in the sum.
        self.running = self.gamma * self.running + np.where(np.isfinite(rewards), rewards, 0.0)
        self.largest = np.maximum(self.largest, np.abs(self.running))
        self.running[dones] = 0.0

    def factors(self, device: torch.device) -> Tensor:
        """Factors ``[T]``; 1 for a task that has paid nothing yet."""
        seen = self.largest > 0
        factors = np.where(seen, LARGEST_RETURN / np.where(seen, self.largest, 1.0), 1.0)
        return torch.from_numpy(factors.astype(np.float32)).to(device, non_blocking=True)

    def state_dict(self) -> dict[str, Tensor]:
        """Running and largest returns, float64 ``[T]`` each."""
        return {"running": torch.from_numpy(self.running.copy()), "largest": torch.from_numpy(self.largest.copy())}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restore :meth:`state_dict`."""
        self.running, self.largest = state["running"].numpy().copy(), state["largest"].numpy().copy()
