"""A shard: the tasks that one process steps, one after another."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import gymnasium as gym
import numpy as np
from stable_baselines3.common.env_util import is_wrapped

from mtrl_transfer.envs.workers.episode_log import EpisodeLog
from mtrl_transfer.envs.workers.task_state import has_state, load_task_state, task_state

EnvFns = Sequence[Callable[[], gym.Env]]
Steps = tuple[np.ndarray, np.ndarray, np.ndarray, list[dict[str, Any]], list[dict[str, Any]]]


class Shard(Protocol):
    """Tasks of this process or of a worker. A call is sent first and its result received later."""

    def send(self, method: str, *args: Any) -> None:
        """Begin a method of `TaskShard`."""

    def receive(self) -> Any:
        """Return the result of the last `send`, or raise what the method raised."""

    def close(self) -> None:
        """Close the environments and end the worker."""


class TaskShard:
    """The environments of some tasks: SB3's `DummyVecEnv` for the tasks of one process.

    Args:
        env_fns: One factory per task.
        task_names: The tasks' names, for errors.
        progress: Called after each environment made and each step of a replayed episode, which may be many in one call.
    """

    def __init__(self, env_fns: EnvFns, task_names: Sequence[str], progress: Callable[[], object] = bool) -> None:
        self.envs: list[gym.Env] = []
        self._env_fns, self._task_names, self._progress = env_fns, task_names, progress
        self._current = 0
        """Index of the task last worked on, which is named in exceptions."""

    def call(self, method: str, args: Sequence[Any]) -> Any:
        """Call a method by name. An exception gets a note of the task that raised it."""
        try:
            return getattr(self, method)(*args)
        except Exception as error:
            _add_note(error, f"in task {self._task_names[self._current]!r}")
            raise

    def make(self) -> None:
        """Make the environments."""
        for index, env_fn in enumerate(self._env_fns):
            self._current = index
            env = env_fn()
            if any(env.unwrapped is other.unwrapped for other in self.envs):
                raise ValueError("two tasks share one environment object; every factory must make a new one")
            self.envs.append(env)
            self._progress()
        self.logs = [None if has_state(env) else EpisodeLog(env, self._progress) for env in self.envs]
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
        """Reset every task; return observations `[n, D]` and infos."""
        self.reset_infos = list(self.reset_infos)
        for index, (seed, chosen) in enumerate(zip(seeds, options, strict=True)):
            self._reset_task(index, seed, chosen or None)
        return np.stack(self.observations), self.reset_infos

    def state_dict(self) -> list[dict[str, Any]]:
        """Return the state of each task in the middle of its episode: numbers, texts and arrays."""
        return [
            {
                "observation": observation,
                "task": task_state(self._task(index)) if log is None else log.state_dict(),
            }
            for index, (observation, log) in enumerate(zip(self.observations, self.logs, strict=True))
        ]

    def load_state_dict(self, states: Sequence[dict[str, Any]]) -> np.ndarray:
        """Continue from `state_dict`; return the observations `[n, D]` of the tasks after that.

        They equal the stored ones, except for a task that cannot be brought back; a warning names it.
        """
        self.reset_infos = [{} for _ in self.envs]
        for index, (state, log) in enumerate(zip(states, self.logs, strict=True)):
            env = self._task(index)
            if log is None:
                load_task_state(env, state["task"])
                self.observations[index] = state["observation"].copy()
            else:
                self.observations[index] = log.replay(state["task"], state["observation"], self._task_names[index])
        return np.stack(self.observations)

    def snapshot(self) -> dict[str, Any]:
        """Return the argument of `restore`."""
        return {"states": self.state_dict(), "reset_infos": self.reset_infos}

    def restore(self, snapshot: dict[str, Any]) -> np.ndarray:
        """Do as `load_state_dict`, and bring back the infos of the last resets."""
        observations = self.load_state_dict(snapshot["states"])
        self.reset_infos = snapshot["reset_infos"]
        return observations

    def get_attr(self, name: str, indices: Sequence[int]) -> list[Any]:
        """Return an attribute of some tasks, looked up through their wrappers."""
        return [self._task(index).get_wrapper_attr(name) for index in indices]

    def set_attr(self, name: str, value: Any, indices: Sequence[int]) -> list[None]:
        """Set an attribute of some tasks, on their outermost wrapper (as SB3 does)."""
        return [setattr(self._task(index), name, value) for index in indices]  # type: ignore[func-returns-value]

    def share_shapes(self, width: int, n_actions: int | None, indices: Sequence[int]) -> list[None]:
        """Let some tasks take the shapes of the widest, see `TaskEnv.share_shapes`."""
        return [self._task(index).get_wrapper_attr("share_shapes")(width, n_actions) for index in indices]

    def env_method(self, name: str, args: Sequence[Any], kwargs: dict[str, Any], indices: Sequence[int]) -> list[Any]:
        """Call a method of some tasks."""
        return [self._task(index).get_wrapper_attr(name)(*args, **kwargs) for index in indices]

    def env_is_wrapped(self, wrapper_class: type[gym.Wrapper], indices: Sequence[int]) -> list[bool]:
        """Return True for each of some tasks that is wrapped in a class."""
        return [is_wrapped(self._task(index), wrapper_class) for index in indices]

    def close(self) -> None:
        """Close all tasks."""
        for env in self.envs:
            env.close()

    def _task(self, index: int) -> gym.Env:
        self._current = index
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


class LocalShard:
    """Tasks of this process. A call runs when its result is received."""

    def __init__(self, env_fns: EnvFns, task_names: Sequence[str]) -> None:
        self.tasks = TaskShard(env_fns, task_names)
        self.send("make")

    def send(self, method: str, *args: Any) -> None:
        """Note the call."""
        self._call = (method, args)

    def receive(self) -> Any:
        """Make the call."""
        return self.tasks.call(*self._call)

    def close(self) -> None:
        """Close the environments."""
        self.tasks.close()


def _add_note(error: Exception, note: str) -> None:
    if sys.version_info >= (3, 11):
        error.add_note(note)
    elif error.__cause__ is None:  # shown above the exception
        error.__cause__ = RuntimeError(note)
