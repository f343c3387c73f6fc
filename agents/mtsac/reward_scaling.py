"""Per-task reward scales, applied when replay is sampled; replay itself and every reported return stay raw."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np
import torch
from torch import Tensor

LARGEST_RETURN = 10.0


class RewardScaling(ABC):
    """Scale each task's rewards so that the largest return seen so far is `LARGEST_RETURN`.

    Args:
        n_tasks: ``T``.
        gamma: discount per step.
        device: of the factors.

    Attributes:
        factors: ``[T]``, 1 for a task that has paid nothing yet; always in the same memory.
    """

    def __init__(self, n_tasks: int, gamma: float, device: torch.device) -> None:
        self.gamma = gamma
        self.running = np.zeros(n_tasks)
        self.largest = np.zeros(n_tasks)
        self.factors = torch.ones(n_tasks, device=device)

    def update(self, rewards: np.ndarray, dones: np.ndarray) -> None:
        """Take one vector step's raw rewards ``[T]`` and episode ends ``[T]``."""
        # A reward that is not finite says nothing of the scale, and would stay in the sum.
        self.running = self.returns(np.where(np.isfinite(rewards), rewards, 0.0))
        size = np.abs(self.running)
        if (size > self.largest).any():
            self.largest = np.maximum(self.largest, size)
            self._refresh()
        self.running[dones] = 0.0

    def end_episodes(self) -> None:
        """Begin new episodes without the rest of those under way."""
        self.running[:] = 0.0

    @abstractmethod
    def returns(self, rewards: np.ndarray) -> np.ndarray:
        """Returns ``[T]`` that rewards ``[T]`` count as."""

    def _refresh(self) -> None:
        seen = self.largest > 0
        factors = np.where(seen, LARGEST_RETURN / np.where(seen, self.largest, 1.0), 1.0)
        self.factors.copy_(torch.from_numpy(factors), non_blocking=True)

    def state_dict(self) -> dict[str, Tensor]:
        """Running and largest returns, float64 ``[T]`` each."""
        return {"running": torch.from_numpy(self.running.copy()), "largest": torch.from_numpy(self.largest.copy())}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restore `state_dict`."""
        self.running, self.largest = state["running"].cpu().numpy().copy(), state["largest"].cpu().numpy().copy()
        self._refresh()


class MaxReturnScaling(RewardScaling):
    """Scale by the largest discounted return, summed forwards as SB3's ``VecNormalize`` does, ``G <- gamma G + r``.

    That is causal, and needs no finished episode.
    """

    def returns(self, rewards: np.ndarray) -> np.ndarray:
        """The discounted return ``[T]`` so far."""
        return self.gamma * self.running + rewards


class MaxRewardScaling(RewardScaling):
    """Scale by the return of the largest reward, received forever: ``r / (1 - gamma)``.

    A task that pays next to nothing but for rare spikes (peg-insert, push) never sees a large return, so by
    `MaxReturnScaling` one spike would count as much as a solved episode; its TD errors then outweigh all other
    tasks' in the trunk.
    """

    def returns(self, rewards: np.ndarray) -> np.ndarray:
        """Return ``[T]`` of each reward if it went on forever."""
        return rewards / (1.0 - self.gamma)


REWARD_SCALINGS: dict[str, type[RewardScaling]] = {"max_return": MaxReturnScaling, "max_reward": MaxRewardScaling}
