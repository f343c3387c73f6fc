"""Tasks as the agent knows them: names, one-hots, and results of their training episodes."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from stable_baselines3.common.type_aliases import GymEnv
from stable_baselines3.common.vec_env import VecEnv

MEAN = "mean"
"""Ends the tag of a mean over tasks, in place of a task's name."""
ADVICE = (
    "mtrl_transfer.envs.make_vec_env makes one with named tasks and their one-hots: of a suite, make_vec_env('MT10'), "
    "or of your environments, make_vec_env({'mine': lambda: gym.make('Pendulum-v1')})"
)


def attribute_of(env: VecEnv, name: str, default: Sequence[Any]) -> Sequence[Any]:
    """Attribute of each sub-environment ``[T]``, or ``default`` if they do not all have it.

    ``has_attr`` is asked first: in SB3's ``SubprocVecEnv`` a ``get_attr`` of what is missing kills the worker.
    """
    return env.get_attr(name) if env.has_attr(name) else default


def task_names_of(env: GymEnv) -> list[str]:
    """Names of a vector environment's tasks, in order.

    Raises:
        ValueError: for anything but a vector environment, or if its sub-environments have no names, or one twice.
    """
    if not isinstance(env, VecEnv):
        raise ValueError(f"the environment {env!r} should be a vector environment; {ADVICE}")
    names = attribute_of(env, "task_name", [])
    if not names:
        raise ValueError(f"the environment's {env.num_envs} sub-environments have no attribute task_name; {ADVICE}")
    names = [str(name) for name in names]
    if len(set(names)) < len(names):
        twice = max(names, key=names.count)
        raise ValueError(f"two of the environment's tasks are called {twice!r}: every task needs another name")
    return names


def check_same_tasks(trained: Sequence[str], names: Sequence[str]) -> None:
    """Check that an environment's tasks are those that an agent was trained on.

    Raises:
        ValueError: if not, or if they are in another order.
    """
    if list(names) != list(trained):
        raise ValueError(
            f"this agent was trained on the tasks {', '.join(trained)}; the environment has {', '.join(names)}: use "
            "the same tasks in the same order"
        )


def solvable_tasks_of(env: VecEnv) -> np.ndarray:
    """Mask ``[T]`` of tasks that can be solved: the environment's ``solvable``, or all tasks if it has none."""
    return np.array(attribute_of(env, "solvable", [True] * env.num_envs), bool)


def succeeded(info: Mapping[str, Any]) -> bool:
    """Return True if ``info["is_success"]`` is above 0; a missing value, None, nan and negative numbers are not."""
    success = info.get("is_success")
    return success is not None and bool(success > 0)


def check_one_hot(observations: Any, n_tasks: int) -> None:
    """Check that row ``t`` of raw observations ``[T, D + T]`` ends with the one-hot of task ``t``.

    Raises:
        ValueError: if not; the message says what was found.
    """
    codes = np.asarray(observations)[:, -n_tasks:]
    if not np.array_equal(codes, np.eye(n_tasks)):
        wrong = int(np.argmax((codes != np.eye(n_tasks)).any(axis=1)))
        raise ValueError(
            f"sub-environment {wrong} must be task {wrong} and its observations must end with the one-hot of {n_tasks} "
            f"tasks; found {codes[wrong].tolist()}. envs.make_vec_env makes such an environment"
        )


def tasks_of(one_hots: np.ndarray) -> np.ndarray:
    """Task of each row ``[R]``: the place of the largest value of its one-hot ``[R, T]``.

    Normalised one-hots (``VecNormalize``) are read too. With a single task every code means it.

    Raises:
        ValueError: if a row has no single largest value, such as a one-hot of zeros.
    """
    largest = one_hots == one_hots.max(axis=1, keepdims=True)
    unclear = largest.sum(axis=1) != 1
    if unclear.any():
        row = int(unclear.argmax())
        raise ValueError(
            f"observation {row} ends with {one_hots[row].tolist()}, which names no task; expected a one-hot of "
            f"{one_hots.shape[1]} tasks"
        )
    return largest.argmax(axis=1)


class EpisodeWindows:
    """Success and return of each task's latest training episodes.

    Args:
        task_names: in order.
        size: number of episodes remembered per task.
    """

    def __init__(self, task_names: list[str], size: int) -> None:
        self.task_names = task_names
        self.returns: list[deque[float]] = [deque(maxlen=size) for _ in task_names]
        self.successes: list[deque[float]] = [deque(maxlen=size) for _ in task_names]

    def update(self, infos: list[dict[str, Any]], dones: np.ndarray | None) -> None:
        """Add the episodes that ended in one vector step, from SB3's infos."""
        for task, info in enumerate(infos):
            if "episode" in info:
                self.returns[task].append(float(info["episode"]["r"]))
            if dones is not None and dones[task] and info.get("is_success") is not None:
                self.successes[task].append(float(succeeded(info)))

    def state_dict(self) -> dict[str, list[list[float]]]:
        """Returns and successes of each task's remembered episodes."""
        return {"returns": [list(window) for window in self.returns], "successes": [list(w) for w in self.successes]}

    def load_state_dict(self, state: dict[str, list[list[float]]]) -> None:
        """Restore `state_dict`."""
        for windows, stored in ((self.returns, state["returns"]), (self.successes, state["successes"])):
            for window, values in zip(windows, stored, strict=True):
                window.clear()
                window.extend(values)

    def means(self) -> dict[str, float]:
        """Means ``train_success/<task>`` and ``train_return/<task>``; ``.../mean`` once every task has an episode."""
        tags = {}
        for tag, windows in (("train_success", self.successes), ("train_return", self.returns)):
            values = {
                name: float(np.mean(window)) for name, window in zip(self.task_names, windows, strict=True) if window
            }
            tags.update({f"{tag}/{name}": value for name, value in values.items()})
            if len(values) == len(windows):
                tags[f"{tag}/{MEAN}"] = float(np.mean(list(values.values())))
        return tags
