"""Each task's own spaces, where tasks of different shapes are padded to the widest."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from gymnasium import spaces
from stable_baselines3.common.vec_env import VecEnv

from mtrl_transfer.agents.storage.archive import box_from_json, box_to_json
from mtrl_transfer.agents.tasks import attribute_of
from mtrl_transfer.choices import did_you_mean


class TaskSpace(NamedTuple):
    """Number of ``features`` of an observation (without the one-hot), and the ``action_space``, a box ``[A_t]``."""

    features: int
    action_space: spaces.Box

    def __str__(self) -> str:
        low, high = self.action_space.low, self.action_space.high
        return f"{self.features} features and {len(low)} actions from {low.tolist()} to {high.tolist()}"


class TaskSpaces:
    """Spaces of ``T`` tasks whose environment pads them to common ones.

    Args:
        names: the tasks, in order.
        common: what the environment takes and gives: the widest number of features, and the action space.
        own: what each task has; None: all have the common ones.

    Attributes:
        shapes: ``(D_t, A_t)`` of each task; None if all are alike.

    Raises:
        ValueError: if a task is wider than the common spaces.
    """

    def __init__(self, names: Sequence[str], common: TaskSpace, own: Sequence[TaskSpace] | None = None) -> None:
        alike = own is None or all(one == own[0] for one in own)
        self.names, self.common = list(names), common
        self.own = [common] * len(names) if own is None or alike else list(own)
        shapes = [(one.features, *one.action_space.shape) for one in self.own]
        widest = tuple(max(sizes) for sizes in zip(*shapes, strict=True))
        if len(self.own) != len(names) or widest != (common.features, *common.action_space.shape):
            raise ValueError(
                f"the environment has {common}, but the widest of its tasks has {widest[0]} features and {widest[1]} "
                "actions: wrappers around tasks of different shapes may not change observations or actions"
            )
        self.shapes = None if len(set(shapes)) == 1 else shapes

    @classmethod
    def of(cls, env: VecEnv, names: Sequence[str]) -> TaskSpaces:
        """Spaces of an environment: its sub-environments' attribute ``task_space``, or all alike without it.

        Raises:
            ValueError: if observations or actions are no vectors of numbers.
        """
        seen, taken = env.observation_space, env.action_space
        if not (_is_vector(seen) and _is_vector(taken)):
            raise ValueError(
                f"observations {seen} and actions {taken} should both be Box vectors (of any length per task); "
                "Discrete, Dict and pixels are not supported. gymnasium.wrappers.FlattenObservation makes a vector of "
                "observations; actions have to be continuous"
            )
        common = TaskSpace(seen.shape[0] - env.num_envs, taken)
        own = [TaskSpace(*space) for space in attribute_of(env, "task_space", [common] * env.num_envs)]
        return cls(names, common, own)

    def check_same(self, found: TaskSpaces, names: Sequence[str] | None = None) -> None:
        """Check that tasks of an environment (all, or those named) have these spaces.

        Raises:
            ValueError: naming the first that has not.
        """
        for name in self.names if names is None else names:
            trained, now = self.own[self.names.index(name)], found.own[found.names.index(name)]
            if trained != now:
                raise ValueError(f"this agent was trained on {name} with {trained}; the environment's has {now}")

    def predict(self, task: str, observation: Any, predict: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        """A task's own actions ``[R, A_t]``, within its own bounds, for its own observations ``[R, D_t]``.

        Args:
            task: its name.
            observation: a batch, or a single ``[D_t]`` for a single ``[A_t]``.
            predict: common actions ``[R, A]`` for rows ``[R, D + T]``.

        Raises:
            ValueError: for an unknown task, or observations of another width.
        """
        index, given = self._index(task), np.asarray(observation, np.float32)
        features, space = self.own[index]
        if given.ndim not in (1, 2) or given.shape[-1] != features:
            raise ValueError(f"observations of {task} should have {features} features; got shape {list(given.shape)}")
        rows = np.zeros((len(given) if given.ndim == 2 else 1, self.common.features + len(self.names)), np.float32)
        rows[:, :features] = given
        rows[:, self.common.features + index] = 1.0
        actions = self._own_actions(predict(rows), space)
        return actions if given.ndim == 2 else actions[0]

    def _own_actions(self, actions: np.ndarray, own: spaces.Box) -> np.ndarray:
        common = self.common.action_space
        if own == common:
            return actions
        size = own.shape[0]
        share = (actions[:, :size] - common.low[:size]) / (common.high - common.low)[:size]
        return (own.low + share * (own.high - own.low)).astype(own.dtype)

    def to_json(self) -> list[dict[str, Any]] | None:
        """The tasks' own spaces; None if all have the common ones."""
        if all(one == self.common for one in self.own):
            return None
        return [{"features": one.features, "action_space": box_to_json(one.action_space)} for one in self.own]

    @classmethod
    def from_json(
        cls, names: Sequence[str], seen: spaces.Box, taken: spaces.Box, data: list[dict[str, Any]] | None
    ) -> TaskSpaces:
        """Inverse of `to_json`, with the common spaces of observations (one-hot last) and actions.

        Raises:
            ValueError: if they do not fit each other.
        """
        own = None
        if data is not None:
            own = [TaskSpace(int(one["features"]), box_from_json(one["action_space"])) for one in data]
        return cls(names, TaskSpace(seen.shape[0] - len(names), taken), own)

    def _index(self, task: str) -> int:
        if task not in self.names:
            raise ValueError(f"this agent has no task {task!r}{did_you_mean(task, self.names)}")
        return self.names.index(task)


def _is_vector(space: spaces.Space) -> bool:
    return isinstance(space, spaces.Box) and len(space.shape) == 1
