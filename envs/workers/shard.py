"""Some tasks, stepped one after another in one process."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from stable_baselines3.common.env_util import is_wrapped

from mtrl_transfer.envs.episode_log import EpisodeLog
from mtrl_transfer.envs.workers.task_state import load_task_state, task_state, tells_state

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
        self.logs = [None if tells_state(env) else EpisodeLog(env) for env in self.envs]
        self.observations = [np.zeros(0)] * len(self.envs)
        self.reset_infos: list[dict[str, Any]] = [{}] * len(self.envs)

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
        self.reset_infos = list(self.reset_infos)
        for index, (seed, chosen) in enumerate(zip(seeds, options, strict=True)):
            self._reset_task(index, seed, chosen or None)
        return np.stack(self.observations), self.reset_infos

    def state_dict(self) -> list[dict[str, Any]]:
        """The state of each task in the middle of its episode: numbers, texts and arrays."""
        return [
            {
                "observation": observation,
                "task": task_state(self._task(index)) if log is None else log.state_dict(),
            }
            for index, (observation, log) in enumerate(zip(self.observations, self.logs, strict=True))
        ]

    def load_state_dict(self, states: Sequence[dict[str, Any]], task_names: Sequence[str]) -> np.ndarray:
        """Continue from `state_dict`; returns the observations `[n, D]` at which the tasks then are.

        They are the stored ones but for a task that cannot be brought back, which a warning names.
        """
        self.reset_infos = [{} for _ in self.envs]
        for index, (state, log, name) in enumerate(zip(states, self.logs, task_names, strict=True)):
            env = self._task(index)
            if log is None:
                load_task_state(env, state["task"])
                self.observations[index] = state["observation"].copy()
            else:
                self.observations[index] = log.replay(state["task"], state["observation"], name)
        return np.stack(self.observations)

    def snapshot(self) -> dict[str, Any]:
        """What `restore` needs."""
        return {"states": self.state_dict(), "reset_infos": self.reset_infos}

    def restore(self, snapshot: dict[str, Any], task_names: Sequence[str]) -> np.ndarray:
        """`load_state_dict`, and the infos of the last resets."""
        observations = self.load_state_dict(snapshot["states"], task_names)
        self.reset_infos = snapshot["reset_infos"]
        return observations

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

    def _reset_task(self, index: int, seed: int | None, options: dict[str, Any] | None) -> None:
        env, log = self._task(index), self.logs[index]
        if log is not None:
            log.note_reset(seed, options)
        self.observations[index], self.reset_infos[index] = env.reset(seed=seed, options=options)

    def _step_task(self, index: int, action: Any) -> tuple[np.ndarray, float, bool, dict[str, Any]]:
        env, log = self._task(index), self.logs[index]
        if log is not None:
            log.note_step(action)
        self.observations[index], reward, terminated, truncated, info = env.step(action)
        info["TimeLimit.truncated"] = truncated and not terminated
        done = terminated or truncated
        if done:
            info["terminal_observation"] = self.observations[index]
            self._reset_task(index, None, None)
        return self.observations[index], float(reward), done, info
