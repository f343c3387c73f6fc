"""Small tasks of different shapes, and agents of them."""

from __future__ import annotations

from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from mtrl_transfer.agents import MTSAC
from mtrl_transfer.envs import make_vec_env


class Reach(gym.Env):
    """Actions should equal the last observation's first features."""

    def __init__(self, features: int, low: list[float], high: list[float]) -> None:
        self.observation_space = spaces.Box(-np.inf, np.inf, (features,), np.float32)
        self.action_space = spaces.Box(np.array(low, np.float32), np.array(high, np.float32))

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self.n_steps = 0
        return self._observed(), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict]:
        assert self.action_space.contains(action)
        self.n_steps += 1
        return self._observed(), -float(np.square(action).sum()), False, self.n_steps == 5, {"success": False}

    def _observed(self) -> np.ndarray:
        return self.np_random.standard_normal(self.observation_space.shape).astype(np.float32)


TASKS = {
    "one": partial(Reach, 3, [-2.0], [2.0]),
    "two": partial(Reach, 5, [-1.0, 0.0], [1.0, 3.0]),
    "four": partial(Reach, 2, [-1.0] * 4, [1.0] * 4),
}


def make(tasks: dict[str, Any] = TASKS, **kwargs: Any) -> MTSAC:
    arguments: dict[str, Any] = {
        "combiner": "mean",
        "batch_size": 8 * len(tasks),
        "learning_starts": 12,
        "buffer_size": 600,
        "policy_kwargs": {"net_arch": [8, 8], "standardize_inputs": True},
        "seed": 0,
    }
    return MTSAC("MultiTaskPolicy", make_vec_env(tasks, seed=0), **{**arguments, **kwargs})
