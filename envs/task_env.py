"""The wrapper of every sub-environment of a multi-task vector environment."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces


class TaskEnv(gym.Wrapper[np.ndarray, Any, Any, Any]):
    """Task `index` of `n_tasks`: a gymnasium environment with the task's one-hot code appended to its observation.

    - Observation: float32 `[D + n_tasks]`, unbounded box, where `D` is the number of elements of the wrapped one's;
      after `share_shapes` that of the widest task.
    - `info["is_success"]` (bool): success at any step of the episode so far. A step is a success if the wrapped
      environment's `info["success"]`, or `info["is_success"]` if it gives no `"success"`, is above 0: nan and -1 are
      none. Absent if it gives neither.
    - Everything else is the wrapped environment's.

    Attributes:
        task_space: The number of elements of an observation, and the action space, of the wrapped environment.

    Args:
        env: A gymnasium environment with a `Box` observation space.
        task_name: The task's name.
        index: The task's place in the benchmark, from 0.
        n_tasks: Number of tasks in the benchmark.
    """

    def __init__(self, env: gym.Env, task_name: str, index: int, n_tasks: int) -> None:
        super().__init__(env)
        self.task_name = task_name
        self._one_hot = np.eye(n_tasks, dtype=np.float32)[index]
        self._succeeded = False
        self.task_space = (int(np.prod(env.observation_space.shape)), env.action_space)
        self.share_shapes(self.task_space[0], None)

    def share_shapes(self, width: int, n_actions: int | None) -> None:
        """Take the shapes of the widest task.

        Args:
            width: Elements of an observation before the one-hot code. Missing ones are 0.
            n_actions: Elements of an action, each in [-1, 1]. The wrapped environment gets the first ones, brought to
                its bounds. None: actions are the wrapped environment's.
        """
        self._width, self._scales_actions = width, n_actions is not None
        self.observation_space = spaces.Box(-np.inf, np.inf, (width + len(self._one_hot),), np.float32)
        if n_actions is not None:
            self.action_space = spaces.Box(-1.0, 1.0, (n_actions,), np.float32)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Begin an episode; seed and options go to the wrapped environment."""
        self._succeeded = False
        observation, info = self.env.reset(seed=seed, options=options)
        return self._encode(observation), info

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Step the wrapped environment."""
        own = self._own_action(action) if self._scales_actions else action
        observation, reward, terminated, truncated, info = self.env.step(own)
        success = info.get("success", info.get("is_success"))
        if success is not None:
            self._succeeded = self._succeeded or bool(success > 0)
            info = {**info, "is_success": self._succeeded}
        return self._encode(observation), float(reward), bool(terminated), bool(truncated), info

    def state_dict(self) -> dict[str, Any]:
        """Return the state, if the wrapped environment has `state_dict`."""
        return {"succeeded": self._succeeded, "env": self.env.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state_dict`."""
        self._succeeded = bool(state["succeeded"])
        self.env.load_state_dict(state["env"])

    def _own_action(self, action: np.ndarray) -> np.ndarray:
        own = self.env.action_space
        assert isinstance(own, spaces.Box)
        share = 0.5 * (np.asarray(action)[: own.shape[0]] + 1.0)
        return (own.low + share * (own.high - own.low)).astype(own.dtype)

    def _encode(self, observation: Any) -> np.ndarray:
        encoded, given = np.zeros(self._width + len(self._one_hot), np.float32), np.ravel(observation)
        if given.size != self.task_space[0]:  # NumPy would spread a single value
            space = self.env.observation_space
            raise ValueError(f"an observation has shape {list(np.shape(observation))}, and its space {space} another")
        encoded[: self.task_space[0]] = given
        encoded[self._width :] = self._one_hot
        return encoded
