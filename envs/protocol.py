"""The definition of the tasks that a result was obtained on."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from importlib.metadata import version
from typing import Any

import numpy as np
from stable_baselines3.common.vec_env import VecEnv


def protocol_card(env: VecEnv) -> dict[str, Any]:
    """Return everything that defines the tasks of an environment made by `make_vec_env`, as plain JSON values.

    Always `suite`, `task_names`, `solvable_tasks` (indices of the tasks over which success is averaged), `horizon`
    (steps, or None if the tasks set their own), `n_goals` (per task, or None if every episode draws its own) and
    `versions`. Meta-World suites add `reward_version`, `goals`, `goal_seed`, `goal_order`, and `goal_hashes`: per task
    a SHA-256 of its goals' bytes, equal for two runs with the same goals.
    """
    card = dict(env.protocol)
    card["versions"] = {
        name: version(name) for name in ("metaworld", "mujoco", "gymnasium", "stable-baselines3", "numpy")
    }
    return card


def suite_protocol(suite: str, task_names: Iterable[str], horizon: int | None) -> dict[str, Any]:
    """Return the part of a suite in which all tasks can be solved and every episode draws its own goal."""
    names = list(task_names)
    return {
        "suite": suite,
        "task_names": names,
        "solvable_tasks": list(range(len(names))),
        "horizon": horizon,
        "n_goals": None,
    }


def goal_hash(goals: np.ndarray) -> str:
    """Return the SHA-256 of goals as little-endian float64, in hexadecimal."""
    return hashlib.sha256(np.ascontiguousarray(goals, "<f8").tobytes()).hexdigest()
