"""Suites of gymnasium's own environments: `locomotion` (MuJoCo) and `pendulums`."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import gymnasium as gym

from mtrl_transfer.envs.names import checked_tasks


class _Progress(gym.Wrapper[Any, Any, Any, Any]):
    """Success: the progress of the episode, 0 at its beginning, is at least `needed`."""

    def __init__(self, env: gym.Env, needed: float) -> None:
        super().__init__(env)
        self.needed, self._progress = needed, 0.0

    def after(self, progress: float, observation: Any, reward: float) -> float:
        """Return the progress after a step; a wrapper implements this."""
        raise NotImplementedError

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begin an episode."""
        self._progress = 0.0
        return self.env.reset(seed=seed, options=options)

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Step, and note the progress."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        self._progress = self.after(self._progress, observation, float(reward))
        return observation, float(reward), terminated, truncated, {**info, "success": self._progress >= self.needed}


class ReachesReturn(_Progress):
    """Success: the episode's return so far is at least `needed`."""

    def after(self, progress: float, observation: Any, reward: float) -> float:
        """Return the sum of rewards."""
        return progress + reward


class StaysUpright(_Progress):
    """Success: the pendulum has pointed up (`cos(angle) > 0.95`) for `needed` steps in a row."""

    def after(self, progress: float, observation: Any, reward: float) -> float:
        """Return the number of steps in a row."""
        return progress + 1 if observation[0] > 0.95 else 0.0


def _locomotion(name: str, threshold: float, render_mode: str | None = None, **kwargs: Any) -> gym.Env:
    return ReachesReturn(gym.make(name, render_mode=render_mode, disable_env_checker=True, **kwargs), threshold)


def _pendulum(length: float, render_mode: str | None = None) -> gym.Env:
    env = gym.make("Pendulum-v1", render_mode=render_mode, disable_env_checker=True)
    env.unwrapped.l = length
    return StaysUpright(env, 50)


@dataclasses.dataclass(frozen=True)
class GymnasiumSuite:
    """Tasks by name, each a function of `render_mode`, and the steps of their episodes."""

    name: str
    tasks: Mapping[str, Callable[..., gym.Env]]
    horizon: int

    def factories(self, render_mode: str | None) -> dict[str, Callable[[], gym.Env]]:
        """Return one factory per task."""
        return {name: partial(make, render_mode=render_mode) for name, make in self.tasks.items()}


SUITES: dict[str, GymnasiumSuite] = {
    # Thresholds that standing still for a whole episode (return 1,000 in hopper, walker2d and ant) does not reach.
    "locomotion": GymnasiumSuite(
        "locomotion",
        {
            "hopper": partial(_locomotion, "Hopper-v5", 1_500),
            "walker2d": partial(_locomotion, "Walker2d-v5", 1_500),
            "half_cheetah": partial(_locomotion, "HalfCheetah-v5", 2_000),
            # Contact forces would be 78 of 105 features; without them Ant has 27, as in version 4.
            "ant": partial(_locomotion, "Ant-v5", 1_500, include_cfrc_ext_in_observation=False),
            "swimmer": partial(_locomotion, "Swimmer-v5", 40),
        },
        1_000,
    ),
    "pendulums": GymnasiumSuite(
        "pendulums", {f"length-{length}": partial(_pendulum, length) for length in (0.6, 0.8, 1.0, 1.2, 1.4)}, 200
    ),
}


def gymnasium_suite(spec: object) -> GymnasiumSuite | None:
    """Read `"locomotion"` or `"locomotion:hopper,ant"` (some tasks of it); None if it is no suite of gymnasium's.

    Raises:
        ValueError: If a task does not exist or is named twice.
    """
    name, _, chosen = str(spec).partition(":")
    if not isinstance(spec, str) or name not in SUITES:
        return None
    suite = SUITES[name]
    names = checked_tasks(chosen.split(","), suite.tasks, f"task of {name}") if chosen else tuple(suite.tasks)
    return GymnasiumSuite(spec, {task: suite.tasks[task] for task in names}, suite.horizon)
