"""Take over what an agent has learned of some tasks, for an agent of other tasks."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from mtrl_transfer.agents.task_spaces import TaskSpaces

if TYPE_CHECKING:
    from mtrl_transfer.agents.mtsac.mtsac import MTSAC

NETWORKS = ("actor", "actor_average", "critic", "critic_target")


class Places(NamedTuple):
    """Entries of an axis: the ``n``-th of ``old`` becomes the ``n``-th of ``new``."""

    old: list[int]
    new: list[int]


def take_over(agent: MTSAC, spaces: TaskSpaces, state: dict[str, Any]) -> list[str]:
    """Give an agent all that a stored one has learned of the tasks that both have.

    Taken over are the trunks; the heads, temperatures, reward scales and return bounds of common tasks; and the
    statistics that standardise inputs. The rest is as it was: heads, temperatures and statistics of new tasks, rows of
    the first layer that no common task uses, optimizers, combiners and counters.

    Args:
        agent: the new agent.
        spaces: tasks of the stored one.
        state: the stored one's, as in its archive.

    Returns:
        The common tasks.

    Raises:
        ValueError: if there is none, if one has other spaces now, or if the networks differ.
    """
    own = agent.task_spaces
    kept = [name for name in own.names if name in spaces.names]
    if not kept:
        raise ValueError(f"no task in common: trained were {', '.join(spaces.names)}, now {', '.join(own.names)}")
    tasks = Places([spaces.names.index(name) for name in kept], [own.names.index(name) for name in kept])
    spaces.check_same(own, kept)
    with torch.no_grad():
        for role in NETWORKS:
            if getattr(agent.policy, role) is not None:
                _take_network(agent, role, spaces, tasks, state["policy"])
        if agent.temperatures.optimizer is not None and state["temperatures"] is not None:
            _put(agent.temperatures.log_alpha, state["temperatures"]["log_alpha"], [tasks])
        rewards = agent.rewards.state_dict()
        for part, values in rewards.items():
            for name, value in values.items() if part in state["rewards"] else ():
                _put(value, state["rewards"][part][name], [tasks])
        agent.rewards.load_state_dict(rewards)
    return kept


def _take_network(agent: MTSAC, role: str, spaces: TaskSpaces, tasks: Places, stored: dict[str, Tensor]) -> None:
    network, now = getattr(agent.policy, role), agent.task_spaces
    is_actor = role.startswith("actor")
    sizes = [(one.common.features, one.common.action_space.shape[0]) for one in (spaces, now)]
    blocks = _blocks(sizes, 1 if is_actor else 2)
    inputs, outputs = _joined(blocks), _joined(_blocks([(n_actions,) * 2 for _, n_actions in sizes], 2))
    rows = inputs
    if network.one_hot_in_trunk:
        starts = [size[0] + (0 if is_actor else size[1]) for size in sizes]
        rows = _joined([inputs, Places(*([s + i for i in at] for s, at in zip(starts, tasks, strict=True)))])
    axes: dict[str, list[Places | None]] = {
        "trunk.weight0": [None, rows, None],
        "heads.weight": [tasks, None, None, outputs if is_actor else None],
        "heads.bias": [tasks, None, None, outputs if is_actor else None],
        "heads.alignment": [tasks, None, inputs, inputs],
        "input_mean": [tasks, None, inputs],
        "input_scale": [tasks, None, inputs],
    }
    values, before = network.state_dict(), {name for name in stored if name.startswith(f"{role}.")}
    if different := sorted(before ^ {f"{role}.{name}" for name in values}):
        raise ValueError(f"only one of the two agents has {', '.join(different)}: policy_kwargs should be the same")
    for name, value in values.items():
        old = stored[f"{role}.{name}"]
        if name.startswith("input_") and old.dim() == 1:
            # Statistics of tasks of one shape are those of each of them.
            old = old.expand(len(spaces.names), 1, -1) if value.dim() == 3 else old
        elif old.dim() != value.dim():
            raise ValueError(f"{role}.{name} has shape {list(old.shape)}, and {list(value.shape)} now")
        _put(value, old, axes.get(name, [None] * value.dim())[-value.dim() :])


def _blocks(sizes: Sequence[Sequence[int]], n_blocks: int) -> list[Places]:
    """The common part of each of the first blocks that lie one after the other, in the old and the new axis."""
    found, starts = [], [0, 0]
    for old, new in list(zip(*sizes, strict=True))[:n_blocks]:
        common = range(min(old, new))
        found.append(Places(*([start + index for index in common] for start in starts)))
        starts = [starts[0] + old, starts[1] + new]
    return found


def _joined(parts: Sequence[Places]) -> Places:
    return Places(*(list(chain(*entries)) for entries in zip(*parts, strict=True)))


def _put(into: Tensor, old: Tensor, axes: Sequence[Places | None]) -> None:
    """Copy entries of ``old`` to their places in ``into``; None: the whole axis, which must be of one size."""
    index = []
    for axis, places in enumerate(axes):
        if places is None and old.shape[axis] != into.shape[axis]:
            raise ValueError(
                f"a network of shape {list(old.shape)} does not fit one of {list(into.shape)}: "
                "are net_arch and n_critics the same?"
            )
        if places is not None:
            old = old.index_select(axis, torch.tensor(places.old, device=old.device))
        index.append(torch.arange(into.shape[axis]) if places is None else torch.tensor(places.new))
    into[torch.meshgrid(*index, indexing="ij")] = old.to(into)
