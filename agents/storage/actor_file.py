"""The actor alone, in one safetensors file with JSON metadata: enough to play, small enough to travel in a package."""

from __future__ import annotations

import json
from collections.abc import Mapping
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from mtrl_transfer.agents.mtsac.distributions import squashed_mean
from mtrl_transfer.agents.mtsac.networks import ACTIVATIONS, MultiTaskMLP, action_mask
from mtrl_transfer.agents.storage.archive import box_from_json, box_to_json, copies, written_whole
from mtrl_transfer.agents.storage.archive_checks import blamed_on, check_parameters
from mtrl_transfer.agents.storage.policy_archive import parameters_of
from mtrl_transfer.agents.task_spaces import TaskSpaces
from mtrl_transfer.agents.tasks import tasks_of

if TYPE_CHECKING:
    from mtrl_transfer.agents.mtsac.mtsac import MTSAC

ACTOR_SUFFIX = ".safetensors"
FORMAT = 1
METADATA = "actor"
"""Key under which safetensors' metadata holds the JSON."""


class Actor:
    """The deterministic policy of an [mtrl_transfer.agents.MTSAC][]: it plays, and cannot be trained.

    [mtrl_transfer.agents.load_actor][] reads it from a file.

    Attributes:
        task_names: the T tasks in the order of the one-hot.
        observation_space: box ``[D + T]``.
        action_space: box ``[A]``.
        task_spaces: what each task has of them.
        num_timesteps: transitions that the agent was trained on.
        env: section ``env`` of a config, which says what it plays; None if the file does not tell.
    """

    def __init__(self, network: MultiTaskMLP, about: Mapping[str, Any]) -> None:
        self.network = network
        self.task_names = list(about["task_names"])
        self.observation_space = box_from_json(about["observation_space"])
        self.action_space = box_from_json(about["action_space"])
        self.task_spaces = TaskSpaces.from_json(
            self.task_names, self.observation_space, self.action_space, about.get("task_spaces")
        )
        network.action_mask = action_mask(self.task_spaces.shapes, self.action_space.shape[0])
        self.num_timesteps = int(about["num_timesteps"])
        self.env: dict[str, Any] | None = about["env"]

    @torch.no_grad()
    def predict(
        self,
        observation: np.ndarray,
        state: tuple[np.ndarray, ...] | None = None,
        episode_start: np.ndarray | None = None,
        deterministic: bool = True,
        task: str | None = None,
    ) -> tuple[np.ndarray, tuple[np.ndarray, ...] | None]:
        """Actions ``[R, A]`` for observations ``[R, D + T]``, one-hot last; as SB3's, also for a single ``[D + T]``.

        With a task's name, its own actions ``[R, A_t]`` for its own observations ``[R, D_t]``.

        Raises:
            ValueError: for observations of another width, an unknown task, or ``deterministic=False``.
        """
        if not deterministic:
            raise ValueError("an Actor has only the deterministic policy; load the agent's archive to sample actions")
        if task is not None:
            return self.task_spaces.predict(task, observation, lambda rows: self.predict(rows)[0]), state
        rows = np.atleast_2d(np.asarray(observation, np.float32))
        (width,) = self.observation_space.shape
        if rows.shape[1] != width:
            raise ValueError(f"observations have width {rows.shape[1]}; expected {width}")
        features, one_hots = np.split(rows, [width - len(self.task_names)], axis=1)
        tasks = torch.from_numpy(tasks_of(one_hots))
        mask = None if self.network.action_mask is None else self.network.action_mask[tasks, 0]
        scaled = squashed_mean(self.network.of_tasks(torch.from_numpy(features), tasks).squeeze(0), mask).numpy()
        low, high = self.action_space.low, self.action_space.high
        actions = low + 0.5 * (scaled + 1.0) * (high - low)
        return (actions if np.ndim(observation) == 2 else actions[0]), state


def save_actor(agent: MTSAC, path: str | Path, env: Mapping[str, Any] | None = None) -> None:
    """Write the network behind an agent's deterministic actions, and what it needs, to one file.

    Args:
        agent: a trained agent.
        path: of the file, by custom ``*.safetensors``.
        env: section ``env`` of a config, e.g. ``{"id": "MT10"}``; with it ``mtrl-evaluate`` can play the file.

    Raises:
        ValueError: if the agent sees observations through ``VecNormalize``, whose statistics the file does not hold.
    """
    normalization = agent.get_vec_normalize_env()
    if normalization is not None and normalization.norm_obs:
        raise ValueError("the agent sees observations through VecNormalize; train with standardize_inputs=True instead")
    policy = agent.policy
    network = policy.actor if policy.actor_average is None else policy.actor_average
    about = {
        "format": FORMAT,
        "task_names": agent.task_names,
        "num_timesteps": agent.num_timesteps,
        "observation_space": box_to_json(agent.observation_space),
        "action_space": box_to_json(agent.action_space),
        "task_spaces": agent.task_spaces.to_json(),
        "network": {
            "activation": next(name for name, function in ACTIVATIONS.items() if function is network.activation),
            "layer_norm": network.layer_norm,
            "one_hot_in_trunk": network.one_hot_in_trunk,
            "alignment": network.aligned,
            "standardize": network.standardized,
            "standardize_each": network.standardized and network.input_mean.dim() == 3,
        },
        "env": None if env is None else dict(env),
    }
    content = safetensors.torch.save(copies(parameters_of(network)), {METADATA: json.dumps(about)})
    with written_whole(Path(path)) as temporary:
        temporary.write_bytes(content)


def load_actor(path: str | Path) -> Actor:
    """Read what [mtrl_transfer.agents.save_actor][] wrote, on the CPU. Opening a file runs no code from it.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it holds no actor, or a damaged one.
    """
    subject = f"{path} is damaged, or no actor saved by save_actor"
    with blamed_on(subject):
        try:
            with safe_open(path, "pt") as file:
                about = json.loads((file.metadata() or {})[METADATA])
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (not a dict)
            if about["format"] != FORMAT:
                raise ValueError(f"it has format {about['format']}; this version reads format {FORMAT}")
            return Actor(_network(about, tensors), about)
        except FileNotFoundError:
            raise
        except (ValueError, OSError, SafetensorError) as error:
            raise ValueError(f"{subject}: {error}") from error


def _network(about: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> MultiTaskMLP:
    """The network that the tensors belong to. Nothing larger than them is allocated."""
    n_tasks, settings = len(about["task_names"]), about["network"]
    weights = [
        tensors[f"trunk.weight{i}"] for i in range(next(i for i in count() if f"trunk.weight{i}" not in tensors))
    ]
    one_hot = n_tasks * settings["one_hot_in_trunk"]
    sizes = (weights[0].shape[1] - one_hot, tensors["heads.weight"].shape[-1], [weight.shape[2] for weight in weights])
    expected = (about["observation_space"]["shape"], about["action_space"]["shape"])
    if expected != ([sizes[0] + n_tasks], [sizes[1] // 2]):
        raise ValueError(f"spaces of shapes {expected} do not fit a network of {sizes[0]} inputs, {sizes[1]} outputs")
    with torch.device("meta"):
        shapes = {name: value.shape for name, value in MultiTaskMLP(*sizes, n_tasks, **settings).state_dict().items()}
    for name in shapes.keys() | tensors.keys():
        if name not in tensors or tensors[name].shape != shapes.get(name) or tensors[name].dtype != torch.float32:
            raise ValueError(f"tensor {name!r} is missing, unknown, or of another shape than {shapes.get(name)}")
    check_parameters(tensors)
    network = MultiTaskMLP(*sizes, n_tasks, **settings)
    network.load_state_dict(dict(tensors))
    return network.requires_grad_(False)
