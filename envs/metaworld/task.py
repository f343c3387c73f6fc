"""One Meta-World task as a plain gymnasium environment."""

from __future__ import annotations

import pickle
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from metaworld.env_dict import ALL_V3_ENVIRONMENTS
from metaworld.types import Task

from mtrl_transfer.envs.generators import generator_state, restored_generator
from mtrl_transfer.envs.metaworld.fast import fast_class
from mtrl_transfer.envs.metaworld.rendering import choose_backend, draw_plainly, upright
from mtrl_transfer.envs.metaworld.state import restore_sawyer, sawyer_state

MAX_HORIZON = 500
"""Meta-World raises when stepped beyond this many steps."""

REWARD_VERSIONS = ("v1", "v2")
GOAL_ORDERS = ("random", "sequential")


class MetaWorldTask(gym.Env[np.ndarray, np.ndarray]):
    """One Meta-World task over a fixed list of goals.

    Wraps by composition: Meta-World's classes carry `compute_reward`, which SB3 takes for a goal-conditioned
    environment, and an observation space that its own observations leave.

    - Observation: float32 `[39]`, unbounded box; Meta-World's fully observable state, cast down from float64.
    - Action: float32 `[4]` in [-1, 1]: displacement of the gripper in x, y, z, and its opening.
    - `info["success"]` is Meta-World's: 1.0 if the task is solved at this instant, otherwise 0.0.
    - Never terminates; truncates after `horizon` steps.

    Every `reset` goes to the next goal: a uniformly random one from this environment's generator
    (`goal_order="random"`), or the one after the last (`"sequential"`; a `reset` with a seed begins again with goal 0).
    `reset(options={"goal": k})` goes to goal `k`.

    Args:
        task_name: A Meta-World v3 task.
        goals: Meta-World's `rand_vec`s, `[n_goals, D]`; see `mtrl_transfer.envs.metaworld.goals`.
        horizon: Steps in an episode, 1 to 500.
        reward_version: Meta-World's reward function, `"v1"` or `"v2"`.
        goal_order: `"random"` or `"sequential"`.
        render_mode: None or `"rgb_array"`.
        fast: Use `mtrl_transfer.envs.metaworld.fast`, which has equal results.
    """

    takes_goal_option = True
    metadata = {"render_modes": ["rgb_array"], "render_fps": 80}  # noqa: RUF012 - gymnasium's own form

    def __init__(
        self,
        task_name: str,
        goals: np.ndarray,
        *,
        horizon: int = MAX_HORIZON,
        reward_version: str = "v2",
        goal_order: str = "random",
        render_mode: str | None = None,
        fast: bool = True,
    ) -> None:
        self.task_name = task_name
        self.render_mode = render_mode
        self.n_goals = len(goals)
        self.goal = -1
        self._horizon = horizon
        self._sequential = goal_order == "sequential"
        self._steps = 0
        env_cls = ALL_V3_ENVIRONMENTS[task_name]
        self._tasks = [_encode(task_name, env_cls, goal) for goal in goals]
        if render_mode is not None:
            choose_backend()
        make = fast_class(env_cls) if fast else env_cls
        self._env = make(reward_function_version=reward_version, render_mode=render_mode, camera_name="corner2")
        if render_mode is not None:
            draw_plainly(self._env.model)
        self.observation_space = spaces.Box(-np.inf, np.inf, (39,), np.float32)
        self.action_space = spaces.Box(-1.0, 1.0, (4,), np.float32)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Begin an episode at the next goal, or at `options["goal"]`."""
        super().reset(seed=seed)
        self.goal = self._choose_goal(seed is not None, options or {})
        self._steps = 0
        self._env.set_task(self._tasks[self.goal])
        observation, _ = self._env.reset()
        return observation.astype(np.float32), {"goal": self.goal}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Advance by one control step (12.5 ms of simulated time)."""
        observation, reward, _, _, info = self._env.step(action)
        self._steps += 1
        return observation.astype(np.float32), float(reward), False, self._steps >= self._horizon, info

    def state_dict(self) -> dict[str, Any]:
        """Return the state in mid-episode: numbers, texts and arrays, from which it goes on bit for bit."""
        return {
            "goal": self.goal,
            "steps": self._steps,
            "generator": generator_state(self.np_random),
            "simulation": None if self.goal < 0 else sawyer_state(self._env),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state_dict` of the same task with the same goals.

        Raises:
            ValueError: If the state is another task's.
        """
        goal, steps = int(state["goal"]), int(state["steps"])
        if not (-1 <= goal < self.n_goals and 0 <= steps < self._horizon):
            raise ValueError(
                f"{self.task_name!r} has goals 0 to {self.n_goals - 1} and {self._horizon} steps an episode; "
                f"this state is of goal {goal}, step {steps}"
            )
        self.goal, self._steps = goal, steps
        self.np_random = restored_generator(state["generator"])
        if goal >= 0:
            self._env.set_task(self._tasks[goal])
            restore_sawyer(self._env, state["simulation"])

    def render(self) -> np.ndarray | None:
        """Return the picture of camera `corner2`, upright, `[480, 480, 3]` uint8, or None without a render mode."""
        return None if self.render_mode is None else upright(self._env)

    def close(self) -> None:
        """Free the renderer."""
        self._env.close()

    def _choose_goal(self, seeded: bool, options: dict[str, Any]) -> int:
        if "goal" in options:
            goal = int(options["goal"])
            if not 0 <= goal < self.n_goals:
                raise ValueError(
                    f"goal {goal} of {self.task_name!r} does not exist: it has goals 0 to {self.n_goals - 1}"
                )
            return goal
        if self._sequential:
            return 0 if seeded else (self.goal + 1) % self.n_goals
        return int(self.np_random.integers(self.n_goals))


def _encode(task_name: str, env_cls: type, goal: np.ndarray) -> Task:
    """Return a goal as Meta-World's benchmarks store it for a multi-task (fully observable) task."""
    return Task(task_name, pickle.dumps({"rand_vec": goal, "env_cls": env_cls, "partially_observable": False}))
