"""Tasks side by side as one SB3 vector environment."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from stable_baselines3.common.vec_env import DummyVecEnv


def task_seeds(seed: int, n_tasks: int) -> list[int]:
    """One seed a task, each from a child of `numpy.random.SeedSequence(seed)`.

    Consecutive run seeds share no task seed, as they would if tasks were numbered on from the run's seed.
    """
    children = np.random.SeedSequence(seed).spawn(n_tasks)
    return [int(child.generate_state(1)[0]) for child in children]


class TaskVecEnv(DummyVecEnv):
    """T tasks as an SB3 vector environment whose sub-environment `t` is task `t`.

    Behaves as SB3's `DummyVecEnv` (automatic reset, `terminal_observation`, `TimeLimit.truncated`, fresh arrays),
    except that `seed` gives the tasks unrelated seeds, see `task_seeds`.

    Args:
        env_fns: One factory per task.
        seed: Used at the first `reset`.
        protocol: What `envs.protocol_card` reports.
    """

    def __init__(self, env_fns: Sequence[Callable[[], gym.Env]], seed: int, protocol: dict[str, Any]) -> None:
        super().__init__(list(env_fns))
        self.protocol = protocol
        self.seed(seed)

    def seed(self, seed: int | None = None) -> Sequence[int | None]:
        """Seed all tasks at the next `reset`; None draws a seed from NumPy's global generator, as in SB3."""
        if seed is None:
            seed = int(np.random.randint(0, np.iinfo(np.uint32).max, dtype=np.uint32))  # noqa: NPY002
        self._seeds = list(task_seeds(seed, self.num_envs))
        return self._seeds
