"""Estimate of a run's duration, from a short measurement."""

from __future__ import annotations

import time
from contextlib import closing
from typing import NamedTuple

from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import VecEnv

from mtrl_transfer.agents import MTSAC
from mtrl_transfer.agents.runs.build import is_metaworld, make_agent, training_callbacks, training_env
from mtrl_transfer.agents.runs.config.schema import RunConfig

WARM_UP = 8
"""Vector steps before a measurement; the first ones allocate memory."""
CHUNK = 16
ENOUGH_SECONDS = 2.0


class Estimate(NamedTuple):
    """Seconds of a run's ``training`` and ``evaluation``, and of one vector step of ``playing`` and ``learning``."""

    training: float
    evaluation: float
    playing: float
    learning: float


def estimate(config: RunConfig, done: int = 0) -> Estimate:
    """Time a temporary agent in separate environments for a few seconds.

    Args:
        config: the run.
        done: transitions that an earlier session has done.
    """
    with closing(training_env(_small(config))) as env:
        model = make_agent(_small(config), env)
        learning = _seconds_per_step(model, training_callbacks(config))
        playing = _seconds_per_evaluation_step(model, env)
    horizon = env.protocol["horizon"] or 0  # unknown for a user's tasks: their evaluation is not counted
    return _extrapolate(config, done, env.num_envs, horizon, playing, learning)


def _extrapolate(config: RunConfig, done: int, n_tasks: int, horizon: int, playing: float, learning: float) -> Estimate:
    random_steps = max(min(config.agent.learning_starts, config.total_timesteps) - done, 0) / n_tasks
    steps = max(config.total_timesteps - done, 0) / n_tasks
    every = config.evaluation.every
    evaluations = 0 if every is None else config.total_timesteps // every - done // every
    episodes = evaluations * config.evaluation.n_goals + config.evaluation.final_n_goals
    training = random_steps * playing + (steps - random_steps) * learning
    return Estimate(training, episodes * horizon * playing, playing, learning)


def _small(config: RunConfig) -> RunConfig:
    """The same work per step with a quick start: one goal a task, a small replay, learning at once."""
    agent = config.agent.model_copy(update={"buffer_size": 10_000, "learning_starts": 0})
    env = config.env.model_copy(update={"n_goals": 1, "training_horizon": None} if is_metaworld(config.env) else {})
    return config.model_copy(update={"agent": agent, "env": env})


def _seconds_per_step(model: MTSAC, callbacks: list[BaseCallback]) -> float:
    tasks = model.env.num_envs
    model.learn(WARM_UP * tasks, callbacks)
    steps, start = 0, time.perf_counter()
    while time.perf_counter() - start < ENOUGH_SECONDS:
        model.learn(CHUNK * tasks, callbacks, reset_num_timesteps=False)
        steps += CHUNK
    return (time.perf_counter() - start) / steps


def _seconds_per_evaluation_step(model: MTSAC, env: VecEnv) -> float:
    observations = env.reset()
    steps, start = 0, time.perf_counter()
    while time.perf_counter() - start < ENOUGH_SECONDS / 4:
        actions, _ = model.predict(observations, deterministic=True)
        observations = env.step(actions)[0]
        steps += 1
    return (time.perf_counter() - start) / steps
