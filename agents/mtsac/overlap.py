"""Work done while environments step in other processes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper
from stable_baselines3.common.vec_env.base_vec_env import VecEnvStepReturn


class WorkMeanwhile(VecEnvWrapper):
    """A vector environment that, once the actions are on their way, does some work before it waits for the results.

    When ``step`` returns, or raises what the work raised, no step is under way.

    Args:
        venv: one whose ``step_async`` hands the actions to other processes.
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
        finally:
            results = self.venv.step_wait()
        return results
