"""Agents in archives."""

from __future__ import annotations

import reprlib
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from gymnasium import spaces
from stable_baselines3.common.utils import check_for_correct_spaces
from torch import Tensor

from mtrl_transfer.agents.mtsac.arguments import ATTRIBUTES
from mtrl_transfer.agents.storage.archive import (
    Target,
    box_from_json,
    box_to_json,
    flatten,
    read_archive,
    to_device,
    unflatten,
)
from mtrl_transfer.agents.storage.archive_checks import COUNTERS, blamed_on, check_archive
from mtrl_transfer.agents.storage.extension import take_over
from mtrl_transfer.agents.storage.policy_archive import class_of, parameters_of, usable_device
from mtrl_transfer.agents.storage.schedules import OBJECT, schedule_from_json, schedule_to_json
from mtrl_transfer.agents.task_spaces import TaskSpaces
from mtrl_transfer.generators import restore_generator

if TYPE_CHECKING:
    from mtrl_transfer.agents.mtsac.mtsac import MTSAC


def agent_to_archive(agent: MTSAC) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """JSON-able data and named tensors of an agent."""
    temperatures, learner = agent.temperatures, agent.learner
    parts: dict[str, Any] = {
        "policy": parameters_of(agent.policy),
        "actor_optimizer": _optimizer_state(agent.policy.actor_optimizer),
        "critic_optimizer": _optimizer_state(agent.policy.critic_optimizer),
        "temperatures": None,
        "noise_generator": learner.noise_generator.get_state(),
        "updates": {role: update.state_dict() for role, update in agent.updates.items()},
        "rewards": agent.rewards.state_dict(),
        "task_weights": learner.task_weights,
        "means": learner.means.state_dict(),
        "episodes": agent._episodes.state_dict(),
    }
    if temperatures.optimizer is not None:
        own = {"log_alpha": temperatures.log_alpha, "optimizer": _optimizer_state(temperatures.optimizer)}
        parts["temperatures"] = own
    tree, tensors = flatten(parts, "agent")
    data = {
        "policy": class_of(agent.policy),
        "task_names": agent.task_names,
        "observation_space": box_to_json(agent.observation_space),
        "action_space": box_to_json(agent.action_space),
        "task_spaces": agent.task_spaces.to_json(),
        "arguments": _arguments(agent),
        "counters": {name: getattr(agent, name) for name in COUNTERS},
        "state": tree,
    }
    return data, tensors


def _arguments(agent: MTSAC) -> dict[str, Any]:
    return {
        **{name: getattr(agent, ATTRIBUTES.get(name, name)) for name in stored_names(agent)},
        "train_freq": [agent.train_freq.frequency, agent.train_freq.unit.value],
        "learning_rate": schedule_to_json(agent.learning_rate),
        "combiner": _combiner_name(agent.combiner),
    }


def stored_names(agent: MTSAC | type[MTSAC]) -> set[str]:
    """Names of the arguments that are stored: all but the device."""
    return set(agent.arguments.model_fields) - {"device"}


def _combiner_name(combiner: Any) -> Any:
    return combiner if isinstance(combiner, str | dict) else f"{OBJECT}{type(combiner).__name__}"


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
    """An agent as `agent_to_archive` described it.

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
    stored = _read(cls, path, data, tensors, replaced)
    agent = cls(stored.policy, env, device=usable_device(device), _init_setup_model=False)
    # Names first: other tasks mostly mean another observation width too, and the names say more.
    names = stored.task_spaces.names
    agent.task_names, agent.n_tasks, agent.task_spaces = names, len(names), stored.task_spaces
    agent._identify_tasks()
    if agent.env is not None:
        check_for_correct_spaces(agent.env, stored.observation_space, stored.action_space)
    agent.observation_space, agent.action_space = stored.observation_space, stored.action_space
    agent.n_envs = agent.n_tasks
    with blamed_on(stored.subject):
        stored.set_up(agent)
        _restore(agent, unflatten(data["state"], to_device(tensors, agent.device)), stored.same_combiner)
        agent.__dict__.update(data["counters"])
    return agent


def extended_from_archive(
    cls: type[MTSAC],
    path: Target,
    data: dict[str, Any],
    tensors: dict[str, Tensor],
    env: Any,
    device: torch.device | str,
    replaced: dict[str, Any],
) -> MTSAC:
    """A new agent for the tasks of an environment, which takes over what the stored one has learned of them.

    Arguments and errors are those of `agent_from_archive`; rows per task stay, unless ``batch_size`` is replaced.

    Raises:
        ValueError: also if there is no environment, or if it has none of the stored agent's tasks.
    """
    if env is None:
        raise ValueError("tasks='extend' needs env, the environment with the tasks to train on")
    stored = _read(cls, path, data, tensors, replaced)
    agent = cls(stored.policy, env, device=usable_device(device), _init_setup_model=False)
    agent._identify_tasks()
    if "batch_size" not in replaced:
        stored.arguments["batch_size"] = stored.arguments["batch_size"] // len(stored.task_spaces.names) * agent.n_tasks
    with blamed_on(stored.subject):
        stored.set_up(agent)
        take_over(agent, stored.task_spaces, unflatten(data["state"], to_device(tensors, agent.device)))
    return agent


def take_over_from(agent: MTSAC, path: Target) -> list[str]:
    """Give a new agent what the one in a file has learned of the tasks that both have; return these.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it holds no agent, or if `take_over` refuses it.
    """
    data, tensors = read_archive(path)
    with blamed_on(f"{path} is damaged, or no agent of this version"):
        _check(agent, path, data, tensors)
        spaces, state = _spaces(data)[0], unflatten(data["state"], to_device(tensors, agent.device))
        return take_over(agent, spaces, state)


@dataclass
class _Stored:
    """An archive's description of an agent, checked, with arguments replaced."""

    subject: str
    """Begins errors."""
    policy: Any
    arguments: dict[str, Any]
    same_combiner: bool
    task_spaces: TaskSpaces
    observation_space: spaces.Box
    action_space: spaces.Box

    def set_up(self, agent: MTSAC) -> None:
        """Make the agent's parts by the arguments."""
        for name, value in self.arguments.items():
            setattr(agent, ATTRIBUTES.get(name, name), value)
        agent._setup_model()


def _read(
    cls: type[MTSAC], path: Target, data: dict[str, Any], tensors: dict[str, Tensor], replaced: dict[str, Any]
) -> _Stored:
    damaged = f"{path} is damaged, or no agent of this version"
    with blamed_on(damaged):
        _check(cls, path, data, tensors)
        arguments: dict[str, Any] = dict(data["arguments"])
        arguments["learning_rate"] = schedule_from_json(arguments["learning_rate"])
        found = _spaces(data)
    named = ", ".join(f"{name}={reprlib.repr(value)}" for name, value in replaced.items())
    with blamed_on(subject := f"{path} cannot be loaded with {named}" if replaced else damaged):
        given = dict(replaced)
        policy = _policy_of(cls, given.pop("policy_class", given.pop("policy", data["policy"])))
        same_combiner = _is_same_combiner(arguments, given)
        if _combiner_name(given.get("combiner", arguments["combiner"])) != arguments["combiner"]:
            arguments["combiner_kwargs"] = None  # they are the stored one's
        arguments.update(given)
        _check_objects(arguments)
    return _Stored(subject, policy, arguments, same_combiner, *found)


def _spaces(data: dict[str, Any]) -> tuple[TaskSpaces, spaces.Box, spaces.Box]:
    seen, taken = box_from_json(data["observation_space"]), box_from_json(data["action_space"])
    # Older archives have tasks of one shape.
    return TaskSpaces.from_json(data["task_names"], seen, taken, data.get("task_spaces")), seen, taken


def stored_parameters(agent: MTSAC, path: Target) -> dict[str, Any]:
    """State dicts of networks and optimizers in a file, by the names of SB3's ``get_parameters``.

    Args:
        agent: for which they are.
        path: what ``agent.save`` wrote.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it holds no agent.
    """
    data, tensors = read_archive(path)
    with blamed_on(f"{path} is damaged, or no agent of this version"):
        _check(agent, path, data, tensors)
        state = unflatten(data["state"], to_device(tensors, agent.device))
        optimizers = {f"policy.{name}": state[name] for name in ("actor_optimizer", "critic_optimizer")}
        if state["temperatures"] is not None:
            optimizers["temperatures.optimizer"] = state["temperatures"]["optimizer"]
        return {"policy": state["policy"], **optimizers}


def _check(owner: MTSAC | type[MTSAC], path: Target, data: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    """Refuse what is no agent; arguments that did not exist when it was stored get their defaults."""
    _check_kind(path, data)
    fields = owner.arguments.model_fields
    data["arguments"] = {name: fields[name].default for name in stored_names(owner)} | data["arguments"]
    check_archive(data, tensors, stored_names(owner))


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
    if isinstance(combiner, str) and combiner.startswith(OBJECT):
        name = combiner.removeprefix(OBJECT)
        raise ValueError(f"this agent was trained with a {name} object, which is not stored: pass combiner={name}(...)")
    if isinstance(rate, str):
        warnings.warn(
            f"the agent's learning-rate schedule ({rate.removeprefix(OBJECT)}) is not stored; 3e-4 is used: pass "
            "learning_rate to load to train on",
            stacklevel=4,
        )
        arguments["learning_rate"] = 3e-4


def _restore(agent: MTSAC, state: dict[str, Any], same_combiner: bool) -> None:
    temperatures, learner = agent.temperatures, agent.learner
    agent.policy.load_state_dict(state["policy"])
    agent.policy.actor_optimizer.load_state_dict(state["actor_optimizer"])
    agent.policy.critic_optimizer.load_state_dict(state["critic_optimizer"])
    if temperatures.optimizer is not None and state["temperatures"] is not None:
        temperatures.optimizer.load_state_dict(state["temperatures"]["optimizer"])
        with torch.no_grad():
            temperatures.log_alpha.copy_(state["temperatures"]["log_alpha"])
    restore_generator(learner.noise_generator, state["noise_generator"])
    for role, update in agent.updates.items():
        update.load_state_dict(state["updates"][role], same_combiner)
    agent.rewards.load_state_dict(state["rewards"])
    if state["task_weights"] is not None:
        learner.set_task_weights(state["task_weights"])
    learner.means.load_state_dict(state["means"])
    agent._episodes.load_state_dict(state["episodes"])
