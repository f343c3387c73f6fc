"""A user's own gymnasium environments as tasks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import gymnasium as gym
from gymnasium import spaces
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import VecEnv

from mtrl_transfer.envs.task_env import TaskEnv


def custom_env_fns(factories: Mapping[str, Callable[[], gym.Env]]) -> list[Callable[[], gym.Env]]:
    """One factory of a sub-environment per task.

    Raises:
        TypeError: If a value is not callable.
    """
    if not factories:
        raise ValueError("a dict of tasks needs at least one entry")
    for name, factory in factories.items():
        if not callable(factory):
            raise TypeError(f"task {name!r} must be a function that makes an environment, not {type(factory).__name__}")
    return [
        partial(_make_task, factory, name, index, len(factories))
        for index, (name, factory) in enumerate(factories.items())
    ]


def custom_protocol(factories: Mapping[str, Callable[[], gym.Env]]) -> dict[str, Any]:
    """The suite's part of the protocol card."""
    return {
        "suite": "custom",
        "task_names": list(factories),
        "solvable_tasks": list(range(len(factories))),
        "horizon": None,
        "n_goals": None,
    }


def check_same_spaces(env: VecEnv) -> None:
    """Raise a ValueError unless all tasks have the first one's spaces."""
    names = env.get_attr("task_name")
    for attribute in ("observation_space", "action_space"):
        found = env.get_attr(attribute)
        for name, space in zip(names, found, strict=True):
            if space != found[0]:
                raise ValueError(
                    f"all tasks must have one {attribute.replace('_', ' ')}, but (with the one-hot code) "
                    f"{names[0]!r} has {found[0]} and {name!r} has {space}"
                )


def _make_task(factory: Callable[[], gym.Env], name: str, index: int, n_tasks: int) -> gym.Env:
    env = factory()
    if not isinstance(env.observation_space, spaces.Box):
        raise ValueError(f"task {name!r} must have a Box observation space, not {env.observation_space}")
    return Monitor(TaskEnv(env, name, index, n_tasks))
