"""Bounds on each task's return, from the rewards seen."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


class ReturnBounds:
    """The discounted returns of the smallest and of the largest reward seen, received forever.

    Where episodes terminate, nothing is received any more: then 0 lies between the bounds too.

    No policy's value lies outside, so neither should a target (Andrychowicz et al., *Hindsight Experience Replay*,
    arXiv 1707.01495, appendix A, clip theirs so). Without bounds, the smaller of two critics bootstrapped on itself can
    sink far below what any policy earns, where its task's policy then starves.

    Args:
        n_tasks: ``T``.
        gamma: discount per step, below 1.
        device: of the bounds.

    Attributes:
        bounds: the lowest and the highest return ``[2, T]``; always in the same memory.
    """

    def __init__(self, n_tasks: int, gamma: float, device: torch.device) -> None:
        self.gamma = gamma
        self.lowest, self.highest = np.full(n_tasks, np.inf), np.full(n_tasks, -np.inf)
        self.terminates = np.zeros(n_tasks, bool)
        self.bounds = torch.empty(2, n_tasks, device=device)
        self._refresh()

    def update(self, rewards: np.ndarray, terminations: np.ndarray) -> None:
        """Take one vector step's raw rewards ``[T]``, and which episodes terminated ``[T]``."""
        finite = np.isfinite(rewards)
        lowest = np.minimum(self.lowest, np.where(finite, rewards, np.inf))
        highest = np.maximum(self.highest, np.where(finite, rewards, -np.inf))
        terminates = self.terminates | terminations
        if (lowest < self.lowest).any() or (highest > self.highest).any() or (terminates > self.terminates).any():
            self.lowest, self.highest, self.terminates = lowest, highest, terminates
            self._refresh()

    def _refresh(self) -> None:
        lowest = np.where(self.terminates, np.minimum(self.lowest, 0.0), self.lowest)
        highest = np.where(self.terminates, np.maximum(self.highest, 0.0), self.highest)
        bounds = np.stack([lowest, highest]) / (1.0 - self.gamma)
        self.bounds.copy_(torch.from_numpy(bounds), non_blocking=True)

    def clip(self, targets: Tensor, factors: Tensor | None) -> Tensor:
        """Targets ``[T, B]`` within the bounds, of rewards that were multiplied by ``factors [T]``."""
        low, high = self.bounds if factors is None else self.bounds * factors
        return targets.clamp(low.unsqueeze(1), high.unsqueeze(1))

    def state_dict(self) -> dict[str, Tensor]:
        """Smallest and largest rewards, float64 ``[T]`` each, and which tasks' episodes terminate, bool ``[T]``."""
        return {name: torch.from_numpy(getattr(self, name).copy()) for name in ("lowest", "highest", "terminates")}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restore `state_dict`."""
        self.lowest, self.highest = state["lowest"].cpu().numpy().copy(), state["highest"].cpu().numpy().copy()
        if "terminates" in state:  # older agents' states do not say
            self.terminates = state["terminates"].cpu().numpy().copy()
        self._refresh()
