"""Evaluation by the protocol: separate environments, each goal once, deterministic policy, success at any step."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np
from stable_baselines3.common.vec_env import VecEnv

from mtrl_transfer.agents.tasks import check_same_tasks, solvable_tasks_of, task_names_of


class Predicts(Protocol):
    """Anything with SB3's ``predict``."""

    def predict(self, observation: np.ndarray, *, deterministic: bool = ...) -> tuple[np.ndarray, object]:
        """Actions ``[R, A]`` for observations ``[R, D + T]``."""
        ...


class Evaluation(NamedTuple):
    """Result of :func:`evaluate`: ``success [T]`` (share of episodes), ``returns [T]`` (mean, raw rewards).

    ``solvable [T]`` says which tasks can be solved at all: a suite may plant others.
    """

    task_names: tuple[str, ...]
    success: np.ndarray
    returns: np.ndarray
    episodes: int
    solvable: np.ndarray

    @property
    def mean_success(self) -> float:
        """Mean over the solvable tasks; 0 where there is none."""
        return float(self.success[self.solvable].mean()) if self.solvable.any() else 0.0


def evaluate(model: Predicts, env: VecEnv, n_episodes: int) -> Evaluation:
    """Play ``n_episodes`` episodes of every task with the deterministic policy.

    Sub-environments made with ``goal_order="sequential"`` start at their first goal, so that ``n_episodes`` of them
    play each of ``n_episodes`` goals once.

    Args:
        model: the agent.
        env: environment apart from the training's, sub-environment ``t`` being task ``t``. Success is ``is_success``
            at an episode's end.
        n_episodes: episodes per task, at least 1.

    Returns:
        An :class:`Evaluation`; a task whose environment reports no success counts 0.

    Raises:
        ValueError: if the environment's tasks are not the agent's, in their order, or ``n_episodes`` is below 1.
    """
    if n_episodes < 1:
        raise ValueError(f"n_episodes={n_episodes} must be at least 1")
    names = task_names_of(env)
    check_same_tasks(getattr(model, "task_names", names), names)
    env.set_options({"goal": 0})
    observations = env.reset()
    n_tasks = env.num_envs
    played, successes, returns = np.zeros(n_tasks, int), np.zeros(n_tasks), np.zeros(n_tasks)
    running = np.zeros(n_tasks)
    while (played < n_episodes).any():
        actions, _ = model.predict(observations, deterministic=True)
        observations, rewards, dones, infos = env.step(actions)
        running += rewards
        for task in np.flatnonzero(dones):
            # A task with shorter episodes plays on until the last is through, uncounted.
            if played[task] < n_episodes:
                played[task] += 1
                successes[task] += float(infos[task].get("is_success", 0.0))
                returns[task] += running[task]
            running[task] = 0.0
    rates, means = successes / n_episodes, returns / n_episodes
    return Evaluation(tuple(names), rates, means, n_episodes, solvable_tasks_of(env))
