"""Environments and agent of a config."""

from __future__ import annotations

from typing import Any

from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.utils import LinearSchedule
from stable_baselines3.common.vec_env import VecEnv

from mtrl_transfer.agents import MTSAC, MeasureTransference, ResetNetworks, ReweightTasks
from mtrl_transfer.agents.runs.config.schema import CombinerConfig, EnvConfig, RunConfig
from mtrl_transfer.agents.runs.errors import InputError
from mtrl_transfer.envs import make_vec_env
from mtrl_transfer.envs.custom_tasks import is_own_suite
from mtrl_transfer.envs.gymnasium_suites import SUITES


def is_point(env: EnvConfig) -> bool:
    """Return True if the suite is Point."""
    return isinstance(env.id, str) and env.id.startswith("Point-")


def is_gymnasium(env: EnvConfig) -> bool:
    """Return True if the suite is one of gymnasium's environments."""
    return isinstance(env.id, str) and env.id.partition(":")[0] in SUITES


def is_metaworld(env: EnvConfig) -> bool:
    """Return True if the suite has Meta-World's settings."""
    return not is_point(env) and not is_gymnasium(env) and not is_own_suite(env.id)


def env_options(env: EnvConfig) -> dict[str, Any]:
    """Meta-World's settings that the config gives."""
    options = {
        "horizon": env.horizon,
        "reward_version": env.reward_version,
        "n_goals": env.n_goals,
        "goal_seed": env.goal_seed,
    }
    return {name: value for name, value in options.items() if value is not None}


def training_env(config: RunConfig) -> VecEnv:
    """Make the environments for training, seeded by the run."""
    options = env_options(config.env)
    if config.env.training_horizon is not None:
        options["horizon"] = config.env.training_horizon
    return _make(config.env, config.seed, options, own_process=not config.agent.overlap)


def evaluation_env(env: EnvConfig, goals: str, seed: int, render_mode: str | None = None) -> VecEnv:
    """Make separate environments that visit ``goals`` ("train" or "unseen") one after the other."""
    options = env_options(env)
    if is_gymnasium(env) or is_metaworld(env):
        options["render_mode"] = render_mode
    if is_metaworld(env):
        options |= {"goals": goals, "goal_order": "sequential"}
    return _make(env, seed, options)


def make_agent(config: RunConfig, env: VecEnv) -> MTSAC:
    """Make the agent of a config, for environments of its tasks."""
    arguments = config.agent.model_dump(exclude={"final_learning_rate"})
    start, end = config.agent.learning_rate, config.agent.final_learning_rate
    return MTSAC(
        "MultiTaskPolicy",
        env,
        **arguments | {"learning_rate": start if end is None else LinearSchedule(start, end, end_fraction=1.0)},
        combiner=config.combiner.name,
        combiner_kwargs=combiner_kwargs(config.combiner),
        seed=config.seed,
    )


def training_callbacks(config: RunConfig) -> list[BaseCallback]:
    """The callbacks that act on updates: measurement of transference, resets, and weights of the tasks' losses."""
    reweighting = config.reweighting
    callbacks: list[BaseCallback] = [MeasureTransference(**config.measure.model_dump())]
    if config.resets.at:
        callbacks.append(ResetNetworks(**config.resets.model_dump()))
    if reweighting.rank is not None:
        callbacks.append(ReweightTasks(**reweighting.model_dump()))
    return callbacks


def combiner_kwargs(combiner: CombinerConfig) -> dict[str, Any]:
    """Settings for `mtrl_transfer.agents.MTSAC`: common ones, and those of one role under its name."""
    own = {role: settings for role, settings in (("critic", combiner.critic), ("actor", combiner.actor)) if settings}
    return {**combiner.kwargs, **own}


def _make(env: EnvConfig, seed: int, options: dict[str, Any], own_process: bool = True) -> VecEnv:
    spec = env.id if isinstance(env.id, str) else list(env.id)
    try:
        return make_vec_env(spec, seed, env.n_procs, env.worker_timeout, own_process, **options)
    except Exception as error:
        if not is_own_suite(spec):
            raise
        told = [f"{type(error).__name__}: {error}", *getattr(error, "__notes__", [])]
        raise InputError(f"env.id={spec}: {', '.join(told)}") from error
