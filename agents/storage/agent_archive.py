"""Agents in archives."""

from __future__ import annotations

import reprlib
import warnings
from typing import TYPE_CHECKING, Any

import torch
from stable_baselines3.common.utils import LinearSchedule, check_for_correct_spaces
from torch import Tensor

from mtrl_transfer.agents.storage.archive import (
    Target,
    box_from_json,
    box_to_json,
    flatten,
    read_archive,
    to_device,
    unflatten,
)
from mtrl_transfer.agents.storage.archive_checks import ARGUMENTS, COUNTERS, blamed_on, check_archive
from mtrl_transfer.agents.storage.policy_archive import class_of, parameters_of, usable_device
from mtrl_transfer.generators import restore_generator

if TYPE_CHECKING:
    from mtrl_transfer.agents.mtsac.mtsac import MTSAC

REPLACEABLE = (*ARGUMENTS, "policy", "policy_class")
"""Names of arguments that loading an agent can replace."""

_OBJECT = "object: "


def agent_to_archive(agent: MTSAC) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """JSON-able data and named tensors of an agent."""
    arguments = {name: getattr(agent, name) for name in ARGUMENTS}
    arguments["_stats_window_size"] = agent._stats_window_size
    arguments["train_freq"] = [agent.train_freq.frequency, agent.train_freq.unit.value]
    if isinstance(agent.learning_rate, LinearSchedule):
        rate = agent.learning_rate
        arguments["learning_rate"] = [rate.start, rate.end, rate.end_fraction]
    elif callable(agent.learning_rate):
        arguments["learning_rate"] = f"{_OBJECT}{agent.learning_rate!r}"
    arguments["combiner"] = _combiner_name(agent.combiner)
    parts: dict[str, Any] = {
        "policy": parameters_of(agent.policy),
        "actor_optimizer": _optimizer_state(agent.policy.actor_optimizer),
        "critic_optimizer": _optimizer_state(agent.policy.critic_optimizer),
        "alpha_optimizer": _optimizer_state(agent.alpha_optimizer),
        "log_alpha": agent.log_alpha,
        "noise_generator": agent.noise_generator.get_state(),
        "critic_update": agent.critic_update.state_dict(),
        "actor_update": agent.actor_update.state_dict(),
        "reward_scaler": agent.reward_scaler.state_dict() if agent.reward_scaler else None,
        "return_bounds": agent.return_bounds.state_dict() if agent.return_bounds else None,
        "statistics": agent._statistics.state_dict(),
        "episodes": agent._episodes.state_dict(),
        "task_weighting": agent.task_weighting.state_dict() if agent.task_weighting else None,
    }
    tree, tensors = flatten(parts, "agent")
    data = {
        "policy": class_of(agent.policy),
        "task_names": agent.task_names,
        "observation_space": box_to_json(agent.observation_space),
        "action_space": box_to_json(agent.action_space),
        "arguments": arguments,
        "counters": {name: getattr(agent, name) for name in COUNTERS},
        "state": tree,
    }
    return data, tensors


def _combiner_name(combiner: Any) -> str:
    return combiner if isinstance(combiner, str) else f"{_OBJECT}{type(combiner).__name__}"


def _optimizer_state(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """State with a plain number as learning rate; while updates are captured it is a tensor."""
    state = optimizer.state_dict()
    groups = [{**group, "lr": float(group["lr"]), "capturable": False} for group in state["param_groups"]]
    return {**state, "param_groups": groups}


def agent_from_archive(
    cls: type[MTSAC],
    path: Target,
    data: dict[str, Any],
    tensors: dict[str, Tensor],
    env: Any,
    device: torch.device | str,
    replaced: dict[str, Any],
) -> MTSAC:
    """An agent as :func:`agent_to_archive` described it.

    Args:
        cls: class of the agent.
        path: file that errors name.
        data: data of the archive.
        tensors: tensors of the archive.
        env: environment to train in, or None.
        device: device of the agent.
        replaced: arguments in place of the stored ones; ``policy`` and ``policy_class`` name the policy.

    Raises:
        ValueError: if the archive is damaged; if the environment's spaces or tasks differ; if the device cannot be
            used; if a replaced argument does not exist or does not suit the stored agent; if the agent had a combiner
            object or a policy class of your own and none is given.
        MemoryError: if the replay does not fit.
    """
    damaged = f"{path} is damaged, or no agent of this version"
    with blamed_on(damaged):
        _check_kind(path, data)
        check_archive(data, tensors)
        arguments = {**data["arguments"], "train_freq": tuple(data["arguments"]["train_freq"])}
        observation_space, action_space = box_from_json(data["observation_space"]), box_from_json(data["action_space"])
    named = ", ".join(f"{name}={reprlib.repr(value)}" for name, value in replaced.items())
    with blamed_on(subject := f"{path} cannot be loaded with {named}" if replaced else damaged):
        given = dict(replaced)
        policy = _policy_of(cls, given.pop("policy_class", given.pop("policy", data["policy"])))
        unknown = sorted(set(given) - set(arguments))
        if unknown:
            raise ValueError(f"{', '.join(unknown)}: no such argument of MTSAC; known: {', '.join(sorted(arguments))}")
        same_combiner = _is_same_combiner(arguments, given)
        if _combiner_name(given.get("combiner", arguments["combiner"])) != arguments["combiner"]:
            arguments["combiner_kwargs"] = None  # they are the stored one's
        arguments.update(given)
        _check_objects(arguments)
    agent = cls(policy, env, device=usable_device(device), _init_setup_model=False)
    # Names first: other tasks mostly mean another observation width too, and the names say more.
    agent.task_names, agent.n_tasks = data["task_names"], len(data["task_names"])
    agent._identify_tasks()
    if agent.env is not None:
        check_for_correct_spaces(agent.env, observation_space, action_space)
    agent.observation_space, agent.action_space, agent.n_envs = observation_space, action_space, agent.n_tasks
    with blamed_on(subject):
        agent.__dict__.update(arguments)
        agent._setup_model()
        _restore(agent, unflatten(data["state"], to_device(tensors, agent.device)), same_combiner)
        agent.__dict__.update(data["counters"])
    return agent


def stored_parameters(path: Target, device: torch.device) -> dict[str, Any]:
    """State dicts of a stored agent's networks and optimizers, by the names of SB3's ``get_parameters``.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it holds no agent.
    """
    data, tensors = read_archive(path)
    with blamed_on(f"{path} is damaged, or no agent of this version"):
        _check_kind(path, data)
        check_archive(data, tensors)
        state = unflatten(data["state"], to_device(tensors, device))
        optimizers = ("actor_optimizer", "critic_optimizer")
        policy = {"policy": state["policy"], **{f"policy.{name}": state[name] for name in optimizers}}
        return {**policy, "alpha_optimizer": state["alpha_optimizer"]}


def _check_kind(path: Target, data: dict[str, Any]) -> None:
    kind = data.get("kind")
    if kind == "routed":
        raise ValueError(f"{path} holds a RoutedAgent, several agents in one: use mtrl_transfer.agents.load_agent")
    if kind == "policy":
        raise ValueError(f"{path} holds a policy alone: use its class's load, such as MultiTaskPolicy.load")


def _policy_of(cls: type[MTSAC], policy: Any) -> Any:
    if isinstance(policy, str) and policy not in cls.policy_aliases:
        raise ValueError(
            f"this agent's policy is a {policy}, whose code is not stored: pass policy={policy}, the class"
        )
    return policy


def _is_same_combiner(stored: dict[str, Any], replaced: dict[str, Any]) -> bool:
    """Return True if the combiner is the stored one, whose state it then takes over."""
    now = {**stored, **replaced}
    same_settings = (now["combiner_kwargs"] or {}) == (stored["combiner_kwargs"] or {})
    return same_settings and _combiner_name(now["combiner"]) == stored["combiner"]


def _check_objects(arguments: dict[str, Any]) -> None:
    combiner, rate = arguments["combiner"], arguments["learning_rate"]
    if isinstance(combiner, str) and combiner.startswith(_OBJECT):
        name = combiner.removeprefix(_OBJECT)
        raise ValueError(f"this agent was trained with a {name} object, which is not stored: pass combiner={name}(...)")
    if isinstance(rate, list):
        arguments["learning_rate"] = LinearSchedule(*rate)
    if isinstance(rate, str):
        warnings.warn(
            f"the agent's learning-rate schedule ({rate.removeprefix(_OBJECT)}) is not stored; 3e-4 is used: pass "
            "learning_rate to load to train on",
            stacklevel=4,
        )
        arguments["learning_rate"] = 3e-4


def _restore(agent: MTSAC, state: dict[str, Any], same_combiner: bool) -> None:
    agent.policy.load_state_dict(state["policy"])
    agent.policy.actor_optimizer.load_state_dict(state["actor_optimizer"])
    agent.policy.critic_optimizer.load_state_dict(state["critic_optimizer"])
    agent.alpha_optimizer.load_state_dict(state["alpha_optimizer"])
    with torch.no_grad():
        agent.log_alpha.copy_(state["log_alpha"])
    restore_generator(agent.noise_generator, state["noise_generator"])
    agent.critic_update.load_state_dict(state["critic_update"], same_combiner)
    agent.actor_update.load_state_dict(state["actor_update"], same_combiner)
    if agent.reward_scaler and state["reward_scaler"]:
        agent.reward_scaler.load_state_dict(state["reward_scaler"])
    if agent.return_bounds and state["return_bounds"]:
        agent.return_bounds.load_state_dict(state["return_bounds"])
    agent._statistics.load_state_dict(state["statistics"])
    agent._episodes.load_state_dict(state["episodes"])
    if agent.task_weighting and state["task_weighting"]:
        agent.task_weighting.load_state_dict(state["task_weighting"])
