"""Several agents as one: each task is played by one of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from mtrl_transfer.agents.mtsac.mtsac import MTSAC
from mtrl_transfer.agents.storage import archive
from mtrl_transfer.agents.storage.agent_archive import agent_from_archive, agent_to_archive
from mtrl_transfer.agents.storage.archive_checks import blamed_on
from mtrl_transfer.agents.tasks import tasks_of
from mtrl_transfer.choices import check_choice


class RoutedAgent:
    """Agents that were trained on groups of tasks, used as one agent of all of them.

    Args:
        task_names: of all T tasks, in the order of the environment's one-hot.
        agents: one a group; each was trained on some of these tasks.
        assignment: for each task the index, in ``agents``, of the one that plays it.

    Raises:
        ValueError: if an agent does not know a task that it is to serve.
    """

    def __init__(self, task_names: Sequence[str], agents: Sequence[MTSAC], assignment: Sequence[int]) -> None:
        self.task_names, self.agents, self.assignment = list(task_names), list(agents), list(assignment)
        self.n_tasks = len(self.task_names)
        if len(self.assignment) != self.n_tasks or not all(0 <= index < len(self.agents) for index in self.assignment):
            raise ValueError(
                f"assignment={assignment} must name one of {len(self.agents)} agents for each of {self.n_tasks} tasks"
            )
        for name, index in zip(self.task_names, self.assignment, strict=True):
            if name not in self.agents[index].task_names:
                known = ", ".join(self.agents[index].task_names)
                raise ValueError(f"agent {index} is to serve {name}, but was trained on {known}")
        self.obs_dim = max(agent.policy.obs_dim for agent in self.agents)
        self.action_dim = max(agent.action_space.shape[0] for agent in self.agents)
        self.same_actions = all(agent.action_space == self.agents[0].action_space for agent in self.agents)

    @property
    def num_timesteps(self) -> int:
        """Transitions that all agents together were trained on."""
        return sum(agent.num_timesteps for agent in self.agents)

    def predict(
        self,
        observation: np.ndarray,
        state: tuple[np.ndarray, ...] | None = None,
        episode_start: np.ndarray | None = None,
        deterministic: bool = False,
        task: str | None = None,
    ) -> tuple[np.ndarray, tuple[np.ndarray, ...] | None]:
        """Actions ``[R, A]`` for observations ``[R, D + T]``, one-hot last; as SB3's, also for a single ``[D + T]``.

        With a task's name, its own actions ``[R, A_t]`` for its own observations ``[R, D_t]``.

        Raises:
            ValueError: for observations of another width, or an unknown task.
        """
        if task is not None:
            check_choice("task", task, self.task_names)
            agent = self.agents[self.assignment[self.task_names.index(task)]]
            return agent.predict(observation, deterministic=deterministic, task=task)[0], state
        rows = np.atleast_2d(np.asarray(observation, np.float32))
        if rows.shape[1] != self.obs_dim + self.n_tasks:
            raise ValueError(
                f"observations have width {rows.shape[1]}; expected {self.obs_dim} features and a one-hot of "
                f"{self.n_tasks} tasks"
            )
        features, tasks = rows[:, : self.obs_dim], tasks_of(rows[:, self.obs_dim :])
        actions = np.zeros((len(rows), self.action_dim), np.float32)
        serving = np.array(self.assignment)[tasks]
        for index in np.unique(serving):
            own = serving == index
            agent = self.agents[index]
            places = [agent.task_names.index(self.task_names[task]) for task in tasks[own]]
            one_hots = np.eye(agent.n_tasks, dtype=np.float32)[places]
            # An agent of narrow tasks does not know the padding to the widest of all.
            seen = np.concatenate([features[own, : agent.policy.obs_dim], one_hots], axis=1)
            chosen = agent.predict(seen, deterministic=deterministic)[0]
            # An environment of tasks with different actions takes them in [-1, 1].
            chosen = chosen if self.same_actions else agent.policy.scale_action(chosen)
            actions[own, : chosen.shape[1]] = chosen
        return (actions if np.ndim(observation) == 2 else actions[0]), state

    def save(self, path: archive.Target) -> None:
        """Save all agents in one zip of JSON and safetensors; no pickle."""
        parts = [agent_to_archive(agent) for agent in self.agents]
        data = {
            "kind": "routed",
            "task_names": self.task_names,
            "assignment": self.assignment,
            "agents": [own for own, _ in parts],
        }
        tensors = {f"{index}.{name}": value for index, (_, own) in enumerate(parts) for name, value in own.items()}
        archive.write_archive(path, data, tensors)

    @classmethod
    def load(cls, path: archive.Target, device: torch.device | str = "auto") -> RoutedAgent:
        """Load what `save` wrote; opening a file runs no code from it.

        Raises:
            FileNotFoundError: if there is no such file.
            ValueError: if it holds no routed agent.
        """
        agent = load_agent(path, device)
        if not isinstance(agent, cls):
            raise ValueError(f"{path} holds a single agent: use MTSAC.load")
        return agent


def load_agent(path: archive.Target, device: torch.device | str = "auto") -> MTSAC | RoutedAgent:
    """Load the agent in a file, for prediction, whether single or routed.

    Args:
        path: what ``MTSAC.save`` or ``RoutedAgent.save`` wrote.
        device: as in SB3.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is not one of ours.
    """
    data, tensors = archive.read_archive(path)
    if data.get("kind") != "routed":
        return agent_from_archive(MTSAC, path, data, tensors, None, device, {})

    def part(index: int, own: dict[str, Any]) -> MTSAC:
        prefix = f"{index}."
        named = {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
        return agent_from_archive(MTSAC, path, own, named, None, device, {})

    with blamed_on(f"{path} is damaged, or no agent of this version"):
        agents = [part(index, own) for index, own in enumerate(data["agents"])]
        return RoutedAgent(data["task_names"], agents, data["assignment"])
