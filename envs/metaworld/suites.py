"""Suites of Meta-World tasks: their names, options, and factories of sub-environments."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
from metaworld.env_dict import ALL_V3_ENVIRONMENTS, MT10_V3, MT25_V3, MT50_V3
from stable_baselines3.common.monitor import Monitor

from mtrl_transfer.choices import check_choice
from mtrl_transfer.envs.gymnasium_suites import SUITES as GYMNASIUM_SUITES
from mtrl_transfer.envs.metaworld.goals import draw_goals, unseen_goal_seed
from mtrl_transfer.envs.metaworld.task import GOAL_ORDERS, MAX_HORIZON, REWARD_VERSIONS, MetaWorldTask
from mtrl_transfer.envs.names import checked_tasks
from mtrl_transfer.envs.protocol import goal_hash
from mtrl_transfer.envs.task_env import TaskEnv

SUITES: dict[str, tuple[str, ...]] = {"MT10": tuple(MT10_V3), "MT25": tuple(MT25_V3), "MT50": tuple(MT50_V3)}
"""Task names of Meta-World's multi-task benchmarks, in their order."""


@dataclasses.dataclass(frozen=True)
class MetaWorldOptions:
    """Options of Meta-World tasks; see `envs.make_vec_env`."""

    horizon: int = MAX_HORIZON
    reward_version: str = "v2"
    n_goals: int = 50
    goal_seed: int = 0
    goals: str = "train"
    goal_order: str = "random"
    render_mode: str | None = None
    fast: bool = True

    def __post_init__(self) -> None:
        if not 1 <= self.horizon <= MAX_HORIZON:
            raise ValueError(f"horizon must be 1 to {MAX_HORIZON} steps, Meta-World's limit; got {self.horizon}")
        if self.n_goals < 1:
            raise ValueError(f"n_goals must be at least 1; got {self.n_goals}")
        if self.goal_seed < 0:
            raise ValueError(f"goal_seed must not be negative; got {self.goal_seed}")
        for key, known in _CHOICES.items():
            check_choice(key, getattr(self, key), known)


_CHOICES: dict[str, tuple[str | None, ...]] = {
    "reward_version": REWARD_VERSIONS,
    "goals": ("train", "unseen"),
    "goal_order": GOAL_ORDERS,
    "render_mode": (None, "rgb_array"),
}


@dataclasses.dataclass(frozen=True)
class MetaWorldSuite:
    """Some Meta-World tasks and the source of their goals.

    Args:
        name: As the user wrote it, for the protocol card.
        task_names: The tasks, in order.
        benchmark: The tasks through which one random stream of goals runs; None: every task has a separate stream.
    """

    name: str
    task_names: tuple[str, ...]
    benchmark: tuple[str, ...] | None = None

    def draw_goals(self, options: MetaWorldOptions) -> dict[str, np.ndarray]:
        """Draw the goals of each task, `[n_goals, D]`."""
        seed = options.goal_seed if options.goals == "train" else unseen_goal_seed(options.goal_seed)
        if self.benchmark is not None:
            return draw_goals(self.benchmark, options.n_goals, seed)
        return {name: draw_goals([name], options.n_goals, seed)[name] for name in self.task_names}

    def env_fns(self, options: MetaWorldOptions, goals: dict[str, np.ndarray]) -> list[Callable[[], gym.Env]]:
        """Return one factory per task."""
        return [
            partial(_make_task, name, index, len(self.task_names), goals[name], options)
            for index, name in enumerate(self.task_names)
        ]

    def protocol(self, options: MetaWorldOptions, goals: dict[str, np.ndarray]) -> dict[str, Any]:
        """Return the suite's part of the protocol card."""
        chosen = dataclasses.asdict(options)
        del chosen["render_mode"], chosen["fast"]  # neither changes a result
        return {
            "suite": self.name,
            "task_names": list(self.task_names),
            "solvable_tasks": list(range(len(self.task_names))),
            **chosen,
            "goal_hashes": {name: goal_hash(goals[name]) for name in self.task_names},
        }


def parse_metaworld_suite(spec: str | Sequence[str]) -> MetaWorldSuite:
    """Read `"MT10"`, `"MT10:reach-v3,push-v3"` (some tasks of it, with its goals), `"MT1:reach-v3"` or a list of names.

    Raises:
        ValueError: If a suite or task does not exist or a task is named twice; names the nearest that exist.
    """
    _refuse_single_environments(spec)
    if not isinstance(spec, str):
        return MetaWorldSuite("custom", checked_tasks(spec, ALL_V3_ENVIRONMENTS))
    suite, _, chosen = spec.partition(":")
    if suite == "MT1" and chosen:
        return MetaWorldSuite(spec, checked_tasks([chosen], ALL_V3_ENVIRONMENTS))
    if suite not in SUITES:
        check_choice("suite", spec, _known_suites(spec))
    tasks = checked_tasks(chosen.split(","), SUITES[suite]) if chosen else SUITES[suite]
    return MetaWorldSuite(spec, tasks, benchmark=SUITES[suite])


def _refuse_single_environments(spec: str | Sequence[str]) -> None:
    names = [spec] if isinstance(spec, str) or not isinstance(spec, Sequence) else spec
    for name in names:
        if not isinstance(name, str) or name in gym.registry:
            raise ValueError(
                f"{name!r} is neither a suite nor a Meta-World task: tasks of your own or of gymnasium are a dict of "
                "functions, make_vec_env({'mine': lambda: gym.make('Pendulum-v1')}), or 'module.NAME' of such a dict"
            )


def _known_suites(spec: str) -> list[str]:
    """All names of suites; those of Point with the number that was given."""
    number = re.search(r"\d+", spec)
    point = f"Point-{number[0] if number else 5}"
    single = (f"MT1:{name}" for name in ALL_V3_ENVIRONMENTS)
    return [*SUITES, point, f"{point}-rotated", f"{point}-spread", *GYMNASIUM_SUITES, *single]


def _make_task(name: str, index: int, n_tasks: int, goals: np.ndarray, options: MetaWorldOptions) -> gym.Env:
    task = MetaWorldTask(
        name,
        goals,
        horizon=options.horizon,
        reward_version=options.reward_version,
        goal_order=options.goal_order,
        render_mode=options.render_mode,
        fast=options.fast,
    )
    return Monitor(TaskEnv(task, name, index, n_tasks))
