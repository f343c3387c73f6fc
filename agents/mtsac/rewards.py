"""Scales of rewards and bounds of TD targets in training; replay and reported returns stay raw."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from mtrl_transfer.agents.mtsac.buffers import MultiTaskReplayBuffer
from mtrl_transfer.agents.mtsac.return_bounds import ReturnBounds
from mtrl_transfer.agents.mtsac.reward_scaling import REWARD_SCALINGS

Stateful = dict[str, dict[str, Tensor]]


class Rewards:
    """Scales of rewards and bounds of returns, as far as they are asked for.

    Args:
        scaling: a name in `REWARD_SCALINGS`; None: rewards are not scaled.
        clip_targets: keep targets within `ReturnBounds`.
        n_tasks: ``T``.
        gamma: discount per step.
        device: of scales and bounds.
    """

    def __init__(
        self, scaling: str | None, clip_targets: bool, n_tasks: int, gamma: float, device: torch.device
    ) -> None:
        self.scaler = None if scaling is None else REWARD_SCALINGS[scaling](n_tasks, gamma, device)
        self.bounds = ReturnBounds(n_tasks, gamma, device) if clip_targets else None

    def update(self, rewards: np.ndarray, dones: np.ndarray, terminations: np.ndarray) -> None:
        """Take one vector step's raw rewards, episode ends and terminations, ``[T]`` each."""
        if self.scaler is not None:
            self.scaler.update(rewards, dones)
        if self.bounds is not None:
            self.bounds.update(rewards, terminations)

    def end_episodes(self) -> None:
        """Begin new episodes without the rest of those under way."""
        if self.scaler is not None:
            self.scaler.end_episodes()

    def take_stored(self, replay: MultiTaskReplayBuffer) -> None:
        """Bound returns by all rewards in a replay that was loaded."""
        if self.bounds is None or not replay.size():
            return
        rewards = replay.storage.rewards[: replay.size()].cpu().numpy()
        terminates = replay.storage.terminations[: replay.size()].bool().any(dim=0).cpu().numpy()
        for row in (rewards.min(axis=0), rewards.max(axis=0)):
            self.bounds.update(row, terminates)

    def scaled(self, rewards: Tensor) -> Tensor:
        """Rewards ``[T, B]`` times their tasks' scales."""
        return rewards if self.scaler is None else rewards * self.scaler.factors.unsqueeze(1)

    def clipped(self, targets: Tensor) -> Tensor:
        """TD targets ``[T, B]`` of scaled rewards, within the bounds of scaled returns."""
        if self.bounds is None:
            return targets
        return self.bounds.clip(targets, None if self.scaler is None else self.scaler.factors)

    def state_dict(self) -> Stateful:
        """States of the parts there are."""
        return {name: part.state_dict() for name, part in self._parts().items()}

    def load_state_dict(self, state: Stateful) -> None:
        """Restore `state_dict`; a part that had no state begins anew."""
        for name, part in self._parts().items():
            if name in state:
                part.load_state_dict(state[name])

    def _parts(self) -> dict[str, Any]:
        parts = {"scaler": self.scaler, "bounds": self.bounds}
        return {name: part for name, part in parts.items() if part is not None}
