"""Between what returns a task's value must lie."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


class ReturnBounds:
    """The discounted returns of the smallest and of the largest reward seen, received forever.

    No policy's value lies outside, so neither should a target (Andrychowicz et al., *Hindsight Experience Replay*,
    arXiv 1707.01495, appendix A, clip theirs so). Without bounds, the smaller of two critics bootstrapped on itself can
    sink far below what any policy earns, where its task's policy then starves.

    Args:
        n_tasks: ``T``.
        gamma: discount per step, below 1.
    """

    def __init__(self, n_tasks: int, gamma: float) -> None:
        self.gamma = gamma
        self.lowest, self.highest = np.full(n_tasks, np.inf), np.full(n_tasks, -np.inf)

    def update(self, rewards: np.ndarray) -> None:
        """Take one vector step's raw rewards ``[T]``."""
        finite = np.isfinite(rewards)
        self.lowest = np.minimum(self.lowest, np.where(finite, rewards, np.inf))
        self.highest = np.maximum(self.highest, np.where(finite, rewards, -np.inf))

    def clip(self, targets: Tensor, factors: Tensor | None) -> Tensor:
        """Targets ``[T, B]`` within the bounds, of rewards that were multiplied by ``factors [T]``."""
        bounds = np.stack([self.lowest, self.highest])[..., None] / (1.0 - self.gamma)
        low, high = torch.from_numpy(bounds.astype(np.float32)).to(targets.device, non_blocking=True)
        if factors is not None:
            low, high = low * factors.unsqueeze(1), high * factors.unsqueeze(1)
        return targets.clamp(low, high)

    def state_dict(self) -> dict[str, Tensor]:
        """Smallest and largest rewards, float64 ``[T]`` each."""
        return {"lowest": torch.from_numpy(self.lowest.copy()), "highest": torch.from_numpy(self.highest.copy())}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restore :meth:`state_dict`."""
        self.lowest, self.highest = state["lowest"].numpy().copy(), state["highest"].numpy().copy()
