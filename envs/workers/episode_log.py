"""Bring a task back to the middle of an episode by playing the episode again."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np

from mtrl_transfer.envs.generators import generator_state, is_storable, restored_generator


class EpisodeLog:
    """The cause of a task's episode so far: its generator, the arguments of its reset, and its actions.

    For environments without `state_dict`. It brings back exactly those that depend on nothing but gymnasium's
    `np_random`, the reset and the actions; their last observation shows if they do.

    Args:
        env: The task.
        progress: Called after each step of a replay.
    """

    def __init__(self, env: gym.Env, progress: Callable[[], object]) -> None:
        self._env, self._progress = env, progress
        self._generator: dict[str, Any] | None = None
        self._reset: dict[str, Any] = {}
        self._actions: list[np.ndarray] = []

    def note_reset(self, seed: int | None, options: dict[str, Any] | None) -> None:
        """Call before every reset."""
        generator = self._env.unwrapped._np_random
        self._generator = generator_state(generator) if is_storable(generator) else None
        self._reset = {"seed": seed, "options": options}
        self._actions = []

    def note_step(self, action: Any) -> None:
        """Call before every step."""
        self._actions.append(np.array(action))

    def state_dict(self) -> dict[str, Any]:
        """Return all that `replay` needs."""
        actions = np.stack(self._actions) if self._actions else np.zeros(0)
        return {"generator": self._generator, "reset": self._reset, "actions": actions}

    def replay(self, state: dict[str, Any], observation: np.ndarray, task_name: str) -> np.ndarray:
        """Play the episode of `state` again and return its last observation.

        If that is not `observation`, the environment depends on more than it may: a warning names the task, and a new
        episode begins.
        """
        if state["generator"] is not None:
            self._env.unwrapped._np_random = restored_generator(state["generator"])
        self.note_reset(**state["reset"])
        now, _ = self._env.reset(**state["reset"])
        for action in state["actions"]:
            self._progress()
            self.note_step(action)
            now, _, terminated, truncated, _ = self._env.step(action)
            if terminated or truncated:
                break
        if not np.array_equal(now, observation, equal_nan=True):
            warnings.warn(
                f"task {task_name!r} cannot be continued in mid-episode: the same actions led elsewhere, so it depends "
                "on more than its np_random. It begins a new episode, and the run is not bit for bit the one before",
                stacklevel=2,
            )
            self.note_reset(None, None)
            now, _ = self._env.reset()
        return now
