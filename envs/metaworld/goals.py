"""The goals of a Meta-World benchmark, drawn without simulating."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from metaworld.env_dict import ALL_V3_ENVIRONMENTS

from mtrl_transfer.envs.metaworld.fast import fast_class

BENCHMARK_GOALS = 50
"""Goals per task in every Meta-World benchmark."""


def draw_goals(task_names: Sequence[str], n_goals: int, goal_seed: int) -> dict[str, np.ndarray]:
    """Draw the goals of a benchmark made of these tasks, in this order.

    Bit-identical to the goals in `metaworld.MT10(seed=goal_seed).train_tasks` (or `MT25`, `MT50`, `MT1(name, seed)`)
    when `task_names` are that benchmark's: one legacy random stream runs through all tasks in order, and a goal is
    what the second of the two `reset_model` calls inside Meta-World's `reset` draws. Only the simulation of the arm's
    homing and the observation are left out, on which no goal depends. NumPy's global generator and Meta-World's module
    globals stay as they are.

    Fewer than 50 goals are the first of the fifty. More than 50 are what Meta-World draws with `num_goals=n_goals`.

    Returns:
        For each task its goals, `[n_goals, D]` float64. A goal is Meta-World's `rand_vec`: the initial position of the
        object and, for most tasks, that of the target; `D` is 3 or 6 (2 for some tasks).
    """
    stream = np.random.RandomState(goal_seed)  # the generator Meta-World itself uses
    drawn = max(n_goals, BENCHMARK_GOALS)
    return {name: _draw_task_goals(name, drawn, stream)[:n_goals] for name in task_names}


def unseen_goal_seed(goal_seed: int) -> int:
    """Return the seed of the unseen goals: a function of the training goals' seed, far from all other seeds."""
    return int(np.random.SeedSequence([goal_seed, 1]).generate_state(1)[0])


def _draw_task_goals(name: str, n_goals: int, stream: Any) -> np.ndarray:
    env = fast_class(ALL_V3_ENVIRONMENTS[name])()
    env.np_random, env.seeded_rand_vec, env._freeze_rand_vec = stream, True, False
    env.do_simulation = env._get_obs = env._get_curr_obs_combined_no_goal = lambda *_args: None
    goals = []
    for _ in range(n_goals):
        env.reset_model()
        env.reset_model()
        goals.append(env._last_rand_vec)
    env.close()
    return np.array(goals)
