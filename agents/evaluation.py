"""Evaluation by the protocol: separate environments, each goal once, deterministic policy, success at any step."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import numpy as np
from stable_baselines3.common.vec_env import VecEnv, unwrap_vec_normalize

from mtrl_transfer.agents.normalization import check_same_normalization, copy_normalization
from mtrl_transfer.agents.tasks import attribute_of, check_same_tasks, solvable_tasks_of, succeeded, task_names_of
from mtrl_transfer.choices import check_whole


class Predicts(Protocol):
    """Anything with SB3's ``predict``."""

    def predict(self, observation: np.ndarray, *, deterministic: bool = ...) -> tuple[np.ndarray, object]:
        """Actions ``[R, A]`` for observations ``[R, D + T]``."""
        ...


class Evaluation(NamedTuple):
    """Result of [mtrl_transfer.agents.evaluate][].

    ``success [T]`` is the share of episodes, ``returns [T]`` the mean of raw rewards. ``solvable [T]`` is False for
    tasks that cannot be solved at all, which a suite may contain on purpose.
    """

    task_names: tuple[str, ...]
    success: np.ndarray
    returns: np.ndarray
    episodes: int
    solvable: np.ndarray

    @property
    def mean_success(self) -> float:
        """Mean over the solvable tasks; 0 if there is none."""
        return float(self.success[self.solvable].mean()) if self.solvable.any() else 0.0

    @property
    def score(self) -> tuple[float, float]:
        """Sort key for the better of two agents: mean success, then mean return over the solvable tasks."""
        counted = self.solvable if self.solvable.any() else np.ones_like(self.solvable)
        mean_return = float(self.returns[counted].mean())
        return self.mean_success, mean_return if np.isfinite(mean_return) else -np.inf


def evaluate(model: Predicts, env: VecEnv, n_eval_episodes: int) -> Evaluation:
    """Play ``n_eval_episodes`` episodes of every task with the deterministic policy.

    Sub-environments made with ``goal_order="sequential"`` start at their first goal, so that ``n_eval_episodes``
    episodes play as many goals once each.

    Args:
        model: the agent.
        env: environment other than the training's; sub-environment ``t`` is task ``t``. Success is ``is_success`` above
            0 at the end of an episode. See `begin_evaluation` for ``VecNormalize``.
        n_eval_episodes: episodes per task, at least 1.

    Returns:
        An [mtrl_transfer.agents.Evaluation][]; a task whose environment reports no success counts 0.

    Raises:
        ValueError: if the environment does not suit the agent (`check_evaluation_env`), or
            ``n_eval_episodes`` is not a whole number of at least 1.
    """
    check_whole("n_eval_episodes", n_eval_episodes)
    observations = begin_evaluation(model, env)
    n_tasks, normalization = env.num_envs, unwrap_vec_normalize(env)
    played, successes, returns = np.zeros(n_tasks, int), np.zeros(n_tasks), np.zeros(n_tasks)
    running = np.zeros(n_tasks)
    while (played < n_eval_episodes).any():
        actions, _ = model.predict(observations, deterministic=True)
        observations, rewards, dones, infos = env.step(actions)
        running += rewards if normalization is None else normalization.get_original_reward()
        for task in np.flatnonzero(dones):
            # A task with shorter episodes plays on, uncounted, until the last task has finished.
            if played[task] < n_eval_episodes:
                played[task] += 1
                successes[task] += succeeded(infos[task])
                returns[task] += running[task]
            running[task] = 0.0
    names = tuple(task_names_of(env))
    rates, means = successes / n_eval_episodes, returns / n_eval_episodes
    return Evaluation(names, rates, means, int(n_eval_episodes), solvable_tasks_of(env))


def begin_evaluation(model: Predicts, env: VecEnv) -> np.ndarray:
    """Reset an environment to the start of an evaluation; return its observations ``[T, D + T]``.

    Suites whose tasks say ``takes_goal_option`` start at their first goal. A ``VecNormalize`` around ``env`` gets the
    statistics of the agent's own, if the agent has one, and keeps them fixed.

    Raises:
        ValueError: if the environment does not suit the agent; see `check_evaluation_env`.
    """
    check_evaluation_env(model, env)
    copy_normalization(_training_env(model), env)
    if all(attribute_of(env, "takes_goal_option", [False] * env.num_envs)):
        env.set_options({"goal": 0})
    return env.reset()


def check_evaluation_env(model: Predicts, env: VecEnv) -> None:
    """Check that an agent can be evaluated in an environment.

    Raises:
        ValueError: if the environment is the one that the agent trains in, has other tasks or the same tasks in another
            order, or normalises observations in another way than the training environment does.
    """
    names = task_names_of(env)
    check_same_tasks(getattr(model, "task_names", names), names)
    training = _training_env(model)
    if training is None:
        return
    if training.unwrapped is env.unwrapped:
        raise ValueError(
            "the evaluation environment is the training environment, whose episodes an evaluation would break off: "
            "make another one"
        )
    check_same_normalization(training, env)


def _training_env(model: Any) -> VecEnv | None:
    return model.get_env() if hasattr(model, "get_env") else None
