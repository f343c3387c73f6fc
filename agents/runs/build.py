"""From a config to environments and an agent."""

from __future__ import annotations

from typing import Any

from stable_baselines3.common.utils import LinearSchedule
from stable_baselines3.common.vec_env import VecEnv

from mtrl_transfer.agents import MTSAC
from mtrl_transfer.agents.runs.config.schema import AgentConfig, CombinerConfig, EnvConfig, RunConfig
from mtrl_transfer.envs import make_vec_env


def is_point(env: EnvConfig) -> bool:
    """Whether the tasks are the Point suite's, which has none of Meta-World's settings."""
    return isinstance(env.id, str) and env.id.startswith("Point-")


def env_options(env: EnvConfig) -> dict[str, Any]:
    """The Meta-World settings that the config makes."""
    options = {
        "horizon": env.horizon,
        "reward_version": env.reward_version,
        "n_goals": env.n_goals,
        "goal_seed": env.goal_seed,
    }
    return {name: value for name, value in options.items() if value is not None}


def training_env(config: RunConfig) -> VecEnv:
    """The environments that the agent learns in, seeded by the run."""
    options = env_options(config.env)
    if config.env.training_horizon is not None:
        options["horizon"] = config.env.training_horizon
    return _make(config.env, config.seed, options, own_process=not config.agent.overlap)


def evaluation_env(env: EnvConfig, goals: str, seed: int, render_mode: str | None = None) -> VecEnv:
    """Separate environments that visit ``goals`` ("train" or "unseen") one after the other."""
    options = env_options(env)
    if not is_point(env):
        options |= {"goals": goals, "goal_order": "sequential", "render_mode": render_mode}
    return _make(env, seed, options)


def make_agent(config: RunConfig, env: VecEnv) -> MTSAC:
    """The agent of a config, for environments of its tasks."""
    agent, net = config.agent, config.agent.net
    return MTSAC(
        "MultiTaskPolicy",
        env,
        learning_rate=_learning_rate(agent),
        buffer_size=agent.buffer_size,
        learning_starts=agent.learning_starts,
        batch_size=agent.batch_size,
        tau=agent.tau,
        gamma=agent.gamma,
        n_steps=agent.n_steps,
        train_freq=agent.train_freq,
        gradient_steps=agent.gradient_steps,
        max_grad_norm=agent.max_grad_norm,
        max_nonfinite=agent.max_nonfinite,
        combiner=config.combiner.name,
        combiner_kwargs=combiner_kwargs(config.combiner),
        measure_every=agent.measure_every,
        affinity_every=agent.affinity_every,
        affinity_rows=agent.affinity_rows,
        reward_scaling=agent.reward_scaling,
        clip_targets=agent.clip_targets,
        reweighting_rank=agent.reweighting_rank,
        reweighting_every=agent.reweighting_every,
        target_entropy=agent.target_entropy,
        initial_alpha=agent.initial_alpha,
        exploration_correlation=agent.exploration_correlation,
        overlap=agent.overlap,
        cuda_graph=agent.cuda_graph,
        policy_kwargs={
            "net_arch": {"pi": net.hidden, "qf": net.critic_hidden or net.hidden},
            "activation_fn": net.activation,
            "layer_norm": net.layer_norm,
            "one_hot_in_trunk": net.one_hot_in_trunk,
            "alignment": net.alignment,
            "alignment_period": net.alignment_period,
            "standardize_inputs": net.standardize_inputs,
            "actor_tau": agent.actor_tau,
        },
        stats_window_size=agent.stats_window_size,
        device=agent.device,
        seed=config.seed,
    )


def _learning_rate(agent: AgentConfig) -> float | LinearSchedule:
    if agent.final_learning_rate is None:
        return agent.learning_rate
    return LinearSchedule(agent.learning_rate, agent.final_learning_rate, end_fraction=1.0)


def combiner_kwargs(combiner: CombinerConfig) -> dict[str, Any]:
    """As :class:`mtrl_transfer.agents.MTSAC` takes them: common settings, and those of one role under its name."""
    own = {role: settings for role, settings in (("critic", combiner.critic), ("actor", combiner.actor)) if settings}
    return {**combiner.kwargs, **own}


def _make(env: EnvConfig, seed: int, options: dict[str, Any], own_process: bool = True) -> VecEnv:
    spec = env.id if isinstance(env.id, str) else list(env.id)
    return make_vec_env(spec, seed, env.n_procs, env.worker_timeout, own_process, **options)
