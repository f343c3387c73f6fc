"""What the agent knows of its tasks: their names, their one-hots, and how their training episodes went."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any

import numpy as np
from stable_baselines3.common.vec_env import VecEnv

MEAN = "mean"
"""What stands in a tag for the mean over tasks, where others have a task's name."""


def task_names_of(env: VecEnv) -> list[str]:
    """Names of a vector environment's tasks in order; ``task-0``, ``task-1``, … where it has none."""
    try:
        return [str(name) for name in env.get_attr("task_name")]
    except AttributeError:
        return [f"task-{task}" for task in range(env.num_envs)]


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
    """Which tasks can be solved at all ``[T]``: the environment's ``solvable``; all, where it says nothing."""
    try:
        return np.array(env.get_attr("solvable"), bool)
    except AttributeError:
        return np.ones(env.num_envs, bool)


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


class EpisodeWindows:
    """Success and return of each task's latest training episodes.

    Args:
        task_names: in order.
        size: episodes remembered per task.
    """

    def __init__(self, task_names: list[str], size: int) -> None:
        self.task_names = task_names
        self.returns: list[deque[float]] = [deque(maxlen=size) for _ in task_names]
        self.successes: list[deque[float]] = [deque(maxlen=size) for _ in task_names]

    def update(self, infos: list[dict[str, Any]], dones: np.ndarray | None) -> None:
        """Take one vector step's infos, as SB3 gives them."""
        for task, info in enumerate(infos):
            if "episode" in info:
                self.returns[task].append(float(info["episode"]["r"]))
            if dones is not None and dones[task] and "is_success" in info:
                self.successes[task].append(float(info["is_success"]))

    def state_dict(self) -> dict[str, list[list[float]]]:
        """What is remembered of each task."""
        return {"returns": [list(window) for window in self.returns], "successes": [list(w) for w in self.successes]}

    def load_state_dict(self, state: dict[str, list[list[float]]]) -> None:
        """Restore :meth:`state_dict`."""
        for windows, stored in ((self.returns, state["returns"]), (self.successes, state["successes"])):
            for window, values in zip(windows, stored, strict=True):
                window.clear()
                window.extend(values)

    def means(self) -> dict[str, float]:
        """``train_success/<task>``, ``train_return/<task>`` of tasks that finished an episode, and the tasks' means."""
        tags = {}
        for tag, windows in (("train_success", self.successes), ("train_return", self.returns)):
            values = {
                name: float(np.mean(window)) for name, window in zip(self.task_names, windows, strict=True) if window
            }
            tags.update({f"{tag}/{name}": value for name, value in values.items()})
            if values:
                tags[f"{tag}/{MEAN}"] = float(np.mean(list(values.values())))
        return tags
