"""A vector environment that works while its environments step in other processes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper
from stable_baselines3.common.vec_env.base_vec_env import VecEnvStepReturn


class WorkMeanwhile(VecEnvWrapper):
    """A vector environment that calls a function in every step, between sending the actions and waiting for results.

    No step is under way after ``step`` has returned or has raised the function's exception.

    Args:
        venv: its ``step_async`` hands the actions to other processes.
        work: called in every step.
    """

    def __init__(self, venv: VecEnv, work: Callable[[], None]) -> None:
        super().__init__(venv)
        self._work = work

    def reset(self) -> np.ndarray:
        """Begin an episode of every task."""
        observations = self.venv.reset()
        assert isinstance(observations, np.ndarray)
        return observations

    def step_wait(self) -> VecEnvStepReturn:
        """Work, then wait."""
        try:
            self._work()
        except Exception:  # a signal's SystemExit waits for nothing
            self.venv.step_wait()
            raise
        return self.venv.step_wait()
