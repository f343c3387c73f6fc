"""The state of one sub-environment, for tasks whose environment has `state_dict`."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
from stable_baselines3.common.monitor import Monitor

from mtrl_transfer.envs.task_env import TaskEnv


def has_state(env: gym.Env) -> bool:
    """Return True if the environment directly under ours has `state_dict` and `load_state_dict`."""
    return isinstance(env, Monitor) and isinstance(env.env, TaskEnv) and hasattr(env.env.env, "load_state_dict")


def task_state(env: gym.Env) -> dict[str, Any]:
    """Return the state as numbers, texts and arrays."""
    assert isinstance(env, Monitor)
    return {
        "rewards": list(env.rewards),
        "needs_reset": env.needs_reset,
        "total_steps": env.total_steps,
        "env": env.env.state_dict(),
    }


def load_task_state(env: gym.Env, state: dict[str, Any]) -> None:
    """Continue from `task_state`."""
    assert isinstance(env, Monitor)
    env.rewards, env.needs_reset = list(state["rewards"]), bool(state["needs_reset"])
    env.total_steps = int(state["total_steps"])
    env.env.load_state_dict(state["env"])
