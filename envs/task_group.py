"""Some tasks, stepped one after another in one process."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from stable_baselines3.common.env_util import is_wrapped

Steps = tuple[np.ndarray, np.ndarray, np.ndarray, list[dict[str, Any]], list[dict[str, Any]]]


class TaskGroup:
    """The environments of some tasks; what SB3's `DummyVecEnv` does, for the tasks of one process.

    Args:
        env_fns: One factory per task.

    Attributes:
        current: Index of the task last worked on: the one to blame for an exception.
    """

    def __init__(self, env_fns: Sequence[Callable[[], gym.Env]]) -> None:
        self.current = 0
        self.envs: list[gym.Env] = []
        for index, env_fn in enumerate(env_fns):
            self.current = index
            self.envs.append(env_fn())
        if len({id(env.unwrapped) for env in self.envs}) < len(self.envs):
            raise ValueError("two tasks share one environment object; every factory must make a new one")

    def step(self, actions: np.ndarray) -> Steps:
        """Step each task, and reset those whose episode ended.

        Returns:
            Observations `[n, D]`, rewards `[n]`, dones `[n]`, infos, and the infos of each task's last reset.
        """
        results = [self._step_task(index, action) for index, action in enumerate(actions)]
        observations, rewards, dones, infos = zip(*results, strict=True)
        return np.stack(observations), np.array(rewards, np.float32), np.array(dones), list(infos), self.reset_infos

    def reset(
        self, seeds: Sequence[int | None], options: Sequence[dict[str, Any]]
    ) -> tuple[np.ndarray, list[dict[str, Any]]]:
        """Reset every task; returns observations `[n, D]` and infos."""
        results = [
            self._task(index).reset(seed=seed, options=chosen or None)
            for index, (seed, chosen) in enumerate(zip(seeds, options, strict=True))
        ]
        observations, infos = zip(*results, strict=True)
        self.reset_infos = list(infos)
        return np.stack(observations), self.reset_infos

    def get_attr(self, name: str, indices: Sequence[int]) -> list[Any]:
        """An attribute of some tasks, looked up through their wrappers."""
        return [self._task(index).get_wrapper_attr(name) for index in indices]

    def set_attr(self, name: str, value: Any, indices: Sequence[int]) -> list[None]:
        """Set an attribute of some tasks, on their outermost wrapper (as SB3 does)."""
        return [setattr(self._task(index), name, value) for index in indices]  # type: ignore[func-returns-value]

    def env_method(self, name: str, args: Sequence[Any], kwargs: dict[str, Any], indices: Sequence[int]) -> list[Any]:
        """Call a method of some tasks."""
        return [self._task(index).get_wrapper_attr(name)(*args, **kwargs) for index in indices]

    def env_is_wrapped(self, wrapper_class: type[gym.Wrapper], indices: Sequence[int]) -> list[bool]:
        """Whether some tasks are wrapped in a class."""
        return [is_wrapped(self._task(index), wrapper_class) for index in indices]

    def close(self) -> None:
        """Close all tasks."""
        for env in self.envs:
            env.close()

    def _task(self, index: int) -> gym.Env:
        self.current = index
        return self.envs[index]

    def _step_task(self, index: int, action: Any) -> tuple[np.ndarray, float, bool, dict[str, Any]]:
        env = self._task(index)
        observation, reward, terminated, truncated, info = env.step(action)
        info["TimeLimit.truncated"] = truncated and not terminated
        done = terminated or truncated
        if done:
            info["terminal_observation"] = observation
            observation, self.reset_infos[index] = env.reset()
        return observation, float(reward), done, info
