"""The Point suite: a multi-task problem in which it is known which tasks help each other."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import VecEnv
from stable_baselines3.common.vec_env.base_vec_env import VecEnvIndices

from mtrl_transfer.envs.generators import generator_state, restored_generator
from mtrl_transfer.envs.names import checked_tasks
from mtrl_transfer.envs.protocol import suite_protocol

HORIZON = 50
STEP_LENGTH = 0.2
SUCCESS_RADIUS = 0.15
NOISE_STD = 5.4
"""Standard deviation of the harmful task's reward: ten times that of the others' reward under random actions, 0.54."""

SPREAD = (0.1, 10.0)
"""Least and largest factor of the rewards of reaching tasks under `spread`."""

_WORLD_SEED = 20200515
_GOAL_SPREAD = 0.3
_EPISODE_ARRAYS = ("positions", "goals", "succeeded", "returns")
_PICTURE_SIZE = 160


class PointVecEnv(VecEnv):
    """`n_tasks` points in the square [-1, 1]²: all but the last should reach a goal, the last one's reward is noise.

    A planted answer for methods that choose which tasks learn together. The reaching tasks alternate between two
    families. The state is (position, goal), `[4]`; each family shows it through a different orthogonal matrix. So one
    trunk feature serves all tasks of a family, while the other family needs other features: a trunk narrower than
    the number of tasks must choose, a wide one need not (the capacity rule of Wu, Zhang and Ré, arXiv 2005.00944).
    The goals of a family's tasks lie in different places. The last task harms every task that shares with it: it looks
    like a task of the first family, but its reward is noise of ten times the scale.

    With `rotated`, every task shows its state through a different matrix: all tasks need the same features of the
    state, but see it differently. They can share a trunk after alignment.

    With `spread`, the rewards of the reaching tasks are of unlike sizes: they are multiplied by factors from 0.1 to 10,
    in equal ratios from the first task to the last. Nothing else changes.

    - Observation: float32 `[4 + n_tasks]`, the one-hot code of the task last. Action: `[2]` in [-1, 1], a displacement
      in units of `STEP_LENGTH`.
    - Reward: progress towards the goal (decrease of the distance, in units of `STEP_LENGTH`); for the last task, a
      normal draw with standard deviation `NOISE_STD`.
    - Start: uniform in the square. Goal: uniform within 0.3 (per axis) of the task's centre.
    - Success: within `SUCCESS_RADIUS` of the goal at any step. The last task always reports False: average success over
      `solvable_tasks`.
    - An episode has `HORIZON` steps and is truncated there; all tasks end together.

    The matrices and centres are the same for every seed; the seed decides starts, goals and noise. A task's episodes in
    a part of the suite are those in all of it.

    Attributes:
        families: Per family the indices of its tasks; with `rotated`, each reaching task is a family.
        harmful_tasks: Indices of the tasks that should share with no other.
        solvable_tasks: Indices of all others.

    Args:
        n_tasks: Number of tasks of the suite, at least 3.
        seed: Used at the first `reset`.
        rotated: Give each task a different matrix.
        tasks: Names of the tasks to make, in this order; None: all.
        spread: Give the tasks' rewards unlike sizes.
    """

    def __init__(
        self,
        n_tasks: int,
        seed: int = 0,
        rotated: bool = False,
        tasks: Sequence[str] | None = None,
        spread: bool = False,
    ) -> None:
        if n_tasks < 3:
            raise ValueError(f"Point needs at least 3 tasks (two families and the harmful one); got {n_tasks}")
        members = _families(n_tasks, rotated)
        everything = _task_attributes(members)
        suite = f"Point-{n_tasks}" + "-rotated" * rotated + "-spread" * spread
        names = everything["task_name"]
        chosen = names if tasks is None else checked_tasks(tasks, names, f"task of {suite}")
        self._n_suite, self._chosen = n_tasks, [names.index(name) for name in chosen]
        self._attributes = {name: [values[index] for index in self._chosen] for name, values in everything.items()}
        self._scrambles, self._centres = (every[self._chosen] for every in _world(members))
        sizes = np.append(np.geomspace(*SPREAD, n_tasks - 1), 1.0) if spread else np.ones(n_tasks)
        self._reward_sizes = sizes[self._chosen]
        n_tasks, own = len(self._chosen), self._attributes["family"]
        known = sorted({family for family in own if family is not None})
        self.families = tuple(tuple(index for index in range(n_tasks) if own[index] == family) for family in known)
        self.harmful_tasks = tuple(index for index in range(n_tasks) if own[index] is None)
        self.solvable_tasks = tuple(index for index in range(n_tasks) if own[index] is not None)
        self._one_hot = np.eye(n_tasks, dtype=np.float32)
        super().__init__(
            n_tasks,
            spaces.Box(-np.inf, np.inf, (4 + n_tasks,), np.float32),
            spaces.Box(-1.0, 1.0, (2,), np.float32),
        )
        name = suite if tasks is None else f"{suite}:{','.join(chosen)}"
        self.protocol = suite_protocol(name, chosen, HORIZON) | {"solvable_tasks": list(self.solvable_tasks)}
        self._started = time.time()
        self._positions = self._goals = np.zeros((n_tasks, 2))
        self._actions = np.zeros((n_tasks, 2))
        self._last_seed: int | None = seed
        self.seed(seed)
        self._generator = np.random.default_rng(seed)
        self._begin_episode()

    def seed(self, seed: int | None = None) -> Sequence[int | None]:
        """Seed starts, goals and noise at the next `reset`. One generator serves all tasks."""
        if seed is None:
            seed = int(np.random.randint(0, np.iinfo(np.uint32).max, dtype=np.uint32))  # noqa: NPY002 - as SB3 does
        self._seeds = [seed] * self.num_envs
        return self._seeds

    def reset(self) -> np.ndarray:
        """Begin an episode of every task; return `[T, 4 + T]`.

        After `set_options({"goal": k})` it is the k-th episode since the last seed, as in Meta-World's suites: so an
        evaluation plays the same episodes each time.
        """
        if self._seeds[0] is not None:
            self._last_seed = self._seeds[0]
        goal = self._options[0].get("goal")
        if self._seeds[0] is not None or goal is not None:
            self._generator = np.random.default_rng(self._last_seed)
        for _ in range(goal or 0):
            self._begin_episode()
            self._generator.standard_normal(HORIZON)  # the harmful task's rewards
        self._reset_seeds()
        self._reset_options()
        self._begin_episode()
        return self._observe()

    def step_async(self, actions: np.ndarray) -> None:
        """Take the actions, `[T, 2]`."""
        self._actions = np.clip(np.asarray(actions, np.float64), -1.0, 1.0)

    def step_wait(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[dict[str, Any]]]:
        """Move all points; return observations `[T, 4 + T]`, rewards `[T]`, dones `[T]` and infos."""
        distances_before = np.linalg.norm(self._goals - self._positions, axis=1)
        self._positions = np.clip(self._positions + STEP_LENGTH * self._actions, -1.0, 1.0)
        distances = np.linalg.norm(self._goals - self._positions, axis=1)
        rewards = self._reward_sizes * (distances_before - distances) / STEP_LENGTH
        harmful, noise = list(self.harmful_tasks), NOISE_STD * self._generator.standard_normal()
        rewards[harmful] = noise
        near = distances <= SUCCESS_RADIUS
        near[harmful] = False
        self._succeeded |= near
        self._returns += rewards
        self._steps += 1
        done = self._steps >= HORIZON
        infos: list[dict[str, Any]] = [
            {"success": float(now), "is_success": bool(ever), "TimeLimit.truncated": done}
            for now, ever in zip(near, self._succeeded, strict=True)
        ]
        observations = self._observe()
        if done:
            self._end_episode(infos, observations)
            observations = self._observe()
        return observations, rewards.astype(np.float32), np.full(self.num_envs, done), infos

    def state_dict(self) -> dict[str, Any]:
        """Return the state in mid-episode: nested dicts and lists of numbers and arrays."""
        return {
            "seeds": list(self._seeds),
            "options": list(self._options),
            "last_seed": self._last_seed,
            "steps": self._steps,
            "generator": generator_state(self._generator),
            **{name: getattr(self, f"_{name}").copy() for name in _EPISODE_ARRAYS},
        }

    def load_state_dict(self, state: dict[str, Any]) -> np.ndarray:
        """Continue from `state_dict`, bit for bit; return the observations `[T, 4 + T]`.

        Raises:
            ValueError: If the state is of another number of tasks.
        """
        for name in _EPISODE_ARRAYS:
            own = getattr(self, f"_{name}")
            if state[name].shape != own.shape:
                raise ValueError(f"{name} of the state has shape {list(state[name].shape)}, not {list(own.shape)}")
            setattr(self, f"_{name}", state[name].astype(own.dtype))
        self._seeds, self._options = list(state["seeds"]), list(state["options"])
        self._last_seed, self._steps = state["last_seed"], int(state["steps"])
        self._generator = restored_generator(state["generator"])
        return self._observe()

    def hidden_state(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the true positions and goals, each `[T, 2]`, for scripted policies and tests."""
        return self._positions.copy(), self._goals.copy()

    def get_images(self) -> Sequence[np.ndarray | None]:
        """Draw each task, `[160, 160, 3]` uint8: the point in black, its goal in green (grey for the harmful task)."""
        return [_picture(*task) for task in zip(*self.hidden_state(), self.get_attr("solvable"), strict=True)]

    def scripted_actions(self) -> np.ndarray:
        """Return the best actions, `[T, 2]`: straight towards the goal, per axis as far as a step goes."""
        return np.clip((self._goals - self._positions) / STEP_LENGTH, -1.0, 1.0).astype(np.float32)

    def close(self) -> None:
        """Do nothing: there is nothing to free."""

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        """Return per task: `task_name`, `family` (its number, or None for the harmful task), `solvable`, and others."""
        if attr_name not in self._attributes:
            raise AttributeError(
                f"Point tasks have no attribute {attr_name!r}; they have: {', '.join(self._attributes)}"
            )
        return [self._attributes[attr_name][index] for index in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:
        """Set an attribute of tasks."""
        values = self._attributes.setdefault(attr_name, [None] * self.num_envs)
        for index in self._get_indices(indices):
            values[index] = value

    def env_method(self, method_name: str, *args: Any, indices: VecEnvIndices = None, **kwargs: Any) -> list[Any]:
        """Draw tasks by `render`. There is no other method: tasks are rows of arrays."""
        if method_name == "render":
            images = self.get_images()
            return [images[index] for index in self._get_indices(indices)]
        raise AttributeError(f"Point tasks are rows of arrays and have no method {method_name!r}")

    def env_is_wrapped(self, wrapper_class: type[gym.Wrapper], indices: VecEnvIndices = None) -> list[bool]:
        """Return True for SB3's `Monitor`, because this class also gives `info["episode"]`; False for all others."""
        targets: Iterable[int] = self._get_indices(indices)
        return [wrapper_class is Monitor for _ in targets]

    def _begin_episode(self) -> None:
        self._steps = 0
        self._succeeded = np.zeros(self.num_envs, bool)
        self._returns = np.zeros(self.num_envs)
        # Drawn for the whole suite: a task's episodes do not depend on the choice of tasks.
        everyone = (self._n_suite, 2)
        self._positions = self._generator.uniform(-1.0, 1.0, everyone)[self._chosen]
        self._goals = self._centres + self._generator.uniform(-_GOAL_SPREAD, _GOAL_SPREAD, everyone)[self._chosen]

    def _end_episode(self, infos: list[dict[str, Any]], observations: np.ndarray) -> None:
        elapsed = round(time.time() - self._started, 6)
        for task, info in enumerate(infos):
            info["terminal_observation"] = observations[task]
            info["episode"] = {"r": round(float(self._returns[task]), 6), "l": self._steps, "t": elapsed}
        self._begin_episode()

    def _observe(self) -> np.ndarray:
        states = np.concatenate([self._positions, self._goals], axis=1)
        shown = np.einsum("tij,tj->ti", self._scrambles, states)
        return np.concatenate([shown.astype(np.float32), self._one_hot], axis=1)


def _families(n_tasks: int, rotated: bool) -> np.ndarray:
    """Return the index of each task's matrix, `[T]`: 0, 1, 0, 1, ... and 0 last; with `rotated` 0, 1, 2, ..."""
    members = np.arange(n_tasks) if rotated else np.arange(n_tasks) % 2
    if not rotated:
        members[-1] = 0
    return members


def _world(members: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Each task's scrambling matrix `[T, 4, 4]` and the centre of its goals `[T, 2]`, on a ring of radius 0.6."""
    generator = np.random.default_rng(_WORLD_SEED)
    matrices = [np.linalg.qr(generator.standard_normal((4, 4)))[0] for _ in range(members.max() + 1)]
    angles = 2 * np.pi * np.arange(len(members)) / len(members)
    centres = 0.6 * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    return np.stack([matrices[member] for member in members]), centres


def _task_attributes(members: np.ndarray) -> dict[str, list[Any]]:
    n_tasks = len(members)
    names = [f"point-{'ab'[index % 2]}{index // 2}" for index in range(n_tasks - 1)]
    return {
        "task_name": [*names, "noise"],
        "family": [*members[:-1].tolist(), None],
        "solvable": [*([True] * (n_tasks - 1)), False],
        "takes_goal_option": [True] * n_tasks,
        "render_mode": ["rgb_array"] * n_tasks,
    }


def _picture(position: np.ndarray, goal: np.ndarray, solvable: bool) -> np.ndarray:
    """Draw the square from above, the first axis to the right and the second up."""
    ticks = np.linspace(-1.1, 1.1, _PICTURE_SIZE)
    x, y = np.meshgrid(ticks, -ticks)
    picture = np.full((_PICTURE_SIZE, _PICTURE_SIZE, 3), 255, np.uint8)
    picture[np.maximum(abs(x), abs(y)) > 1.0] = 225
    picture[np.hypot(x - goal[0], y - goal[1]) <= SUCCESS_RADIUS] = (90, 180, 90) if solvable else (190, 190, 190)
    picture[np.hypot(x - position[0], y - position[1]) <= 0.06] = 0
    return picture
