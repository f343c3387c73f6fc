"""What stable-baselines3's SAC saved, as ours. Its files hold pickles: reading one runs whatever code is in it."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from stable_baselines3.common.buffers import DictReplayBuffer, ReplayBuffer
from stable_baselines3.common.save_util import load_from_pkl, load_from_zip_file
from stable_baselines3.common.vec_env import VecEnv
from torch import Tensor, nn

from mtrl_transfer.agents.mtsac.networks import MultiTaskMLP
from mtrl_transfer.agents.storage.archive import Target, locate
from mtrl_transfer.agents.storage.archive_checks import ARGUMENTS

if TYPE_CHECKING:
    from mtrl_transfer.agents.mtsac.buffers import MultiTaskReplayBuffer
    from mtrl_transfer.agents.mtsac.mtsac import MTSAC

_SAME_MEANING = (
    "learning_rate",
    "buffer_size",
    "learning_starts",
    "tau",
    "gamma",
    "n_steps",
    "gradient_steps",
    "target_entropy",
    "seed",
)
"""Settings of SAC that mean the same in MTSAC."""
_ACTIVATIONS = {nn.ReLU: "relu", nn.ELU: "elu", nn.GELU: "gelu", nn.SiLU: "silu", nn.Tanh: "tanh"}

Linear = tuple[Tensor, Tensor]
"""Weight ``[out, in]`` and bias ``[out]``."""


def is_sb3_archive(source: Target) -> bool:
    """Whether a file is a zip as stable-baselines3 writes it; nothing in it is opened."""
    try:
        with zipfile.ZipFile(locate(source)) as archive:
            return {"data", "policy.pth"} <= set(archive.namelist())
    except (OSError, ValueError, zipfile.BadZipFile):
        return False


def is_pickle(path: str | Path) -> bool:
    """Whether a file is no safetensors file, whose ninth byte opens a JSON object; it is not opened further."""
    with Path(path).open("rb") as file:
        return file.read(9)[8:] != b"{"


def agent_from_sac(
    cls: type[MTSAC], source: Target, env: Any, device: torch.device | str, replaced: Mapping[str, Any]
) -> MTSAC:
    """An MTSAC whose actor, critics and targets compute what those of a saved SAC do, for every task.

    Each head is a copy of SAC's last layer. Where SAC saw the one-hot, our trunks see it too; where it saw only the
    features, as the expert of a single task did, all tasks begin alike. Settings that mean the same are taken over;
    optimizers begin anew.

    Args:
        cls: class to make.
        source: what ``stable_baselines3.SAC.save`` wrote; its pickles are run.
        env: of the tasks; the file does not name them.
        device: as in SB3.
        replaced: arguments of MTSAC that win over SAC's.

    Raises:
        ValueError: if there is no ``env``, or if the file holds no SAC that fits it.
    """
    if env is None:
        raise ValueError(f"{source} holds a SAC, which does not say what tasks it knows: pass env=")
    known = sorted(set(ARGUMENTS) - {"policy_kwargs"})
    if unknown := sorted(set(replaced) - set(known)):
        raise ValueError(f"{', '.join(unknown)}: cannot be set with a SAC's networks; known: {', '.join(known)}")
    data, state, variables = _read(source)
    nets = _networks(state, source)
    env = cls._wrap_env(env, monitor_wrapper=False)
    if data["action_space"] != env.action_space:
        raise ValueError(f"the SAC acts in {data['action_space']}, the environment takes {env.action_space}")
    policy_kwargs = {
        "net_arch": [len(bias) for _, bias in nets["actor"][0][:-1]],
        "critic_net_arch": [len(bias) for _, bias in nets["critic"][0][:-1]],
        "activation": _activation(data["policy_kwargs"]),
        "one_hot_in_trunk": _sees_one_hot(nets["actor"][0][0][0].shape[1], env),
    }
    arguments = {**_arguments(data, variables, env.num_envs), **replaced}
    agent = cls("MultiTaskPolicy", env, policy_kwargs=policy_kwargs, device=device, **arguments)
    for name, saved in nets.items():
        _fill(getattr(agent.policy, name), saved, agent.policy.obs_dim)
    agent.num_timesteps = int(data["num_timesteps"])
    return agent


def load_sb3_replay(replay: MultiTaskReplayBuffer, path: str | Path) -> None:
    """Fill a replay buffer with what ``stable_baselines3.SAC.save_replay_buffer`` wrote; the pickle is run.

    The newest transitions are taken, as many as fit.

    Raises:
        ValueError: if it is not of one environment a task with this agent's observations and actions.
    """
    try:
        stored = load_from_pkl(path)
    except Exception as error:
        raise ValueError(f"{path} cannot be read: {type(error).__name__}: {error}") from error
    if not isinstance(stored, ReplayBuffer) or isinstance(stored, DictReplayBuffer) or stored.optimize_memory_usage:
        raise ValueError(f"{path} should hold a plain ReplayBuffer of stable-baselines3 (no optimize_memory_usage)")
    if stored.n_envs != replay.n_envs:
        raise ValueError(f"{path} is of {stored.n_envs} environments; this agent's are {replay.n_envs}, one a task")
    oldest = stored.pos if stored.full else 0
    order = (np.arange(stored.size()) + oldest)[-replay.buffer_size :] % stored.buffer_size
    ended = stored.dones * (1 - stored.timeouts)  # a time limit does not terminate
    columns = {
        "observations": stored.observations[..., : replay.obs_dim],
        "actions": stored.actions,
        "next_observations": stored.next_observations[..., : replay.obs_dim],
        "rewards": stored.rewards,
        "terminations": ended,
        "ends": stored.dones,
    }
    replay.put_rows(0, {name: torch.from_numpy(column[order]) for name, column in columns.items()})
    replay.place_cursor(len(order))


def _read(source: Target) -> tuple[dict[str, Any], dict[str, Tensor], dict[str, Tensor]]:
    """Attributes, the policy's parameters, and the temperature."""
    try:
        data, parameters, variables = load_from_zip_file(locate(source), device="cpu")
    except Exception as error:  # what a pickle raises is the file's choice
        raise ValueError(f"{source} cannot be read: {type(error).__name__}: {error}") from error
    assert data is not None
    return data, dict(parameters["policy"]), dict(variables or {})


def _networks(state: Mapping[str, Tensor], source: Target) -> dict[str, list[list[Linear]]]:
    """Linear layers, first to last, of the actor and of both critics and targets."""
    left = dict(state)
    try:
        mean, deviation = _linear(left, "actor.mu"), _linear(left, "actor.log_std")
        head = torch.cat([mean[0], deviation[0]]), torch.cat([mean[1], deviation[1]])
        nets = {"actor": [[*_linears(left, "actor.latent_pi"), head]]}
        for name in ("critic", "critic_target"):
            nets[name] = [_linears(left, f"{name}.qf{number}") for number in range(2)]
    except KeyError as error:
        raise ValueError(f"{source} holds no SAC with dense layers and two critics: {error} is missing") from None
    if left:
        raise ValueError(f"{source} holds no SAC with dense layers and two critics: it also has {min(left)}")
    return nets


def _linears(left: dict[str, Tensor], prefix: str) -> list[Linear]:
    ends = {name.removeprefix(f"{prefix}.").split(".")[0] for name in left if name.startswith(f"{prefix}.")}
    if not ends:
        raise KeyError(prefix)
    return [_linear(left, f"{prefix}.{end}") for end in sorted(ends, key=int)]


def _linear(left: dict[str, Tensor], prefix: str) -> Linear:
    return left.pop(f"{prefix}.weight"), left.pop(f"{prefix}.bias")


def _sees_one_hot(width: int, env: VecEnv) -> bool:
    """Whether observations of a width are the environment's; if not, they must be those without the one-hot."""
    whole = env.observation_space.shape[0] if env.observation_space.shape else 0
    features = whole - env.num_envs
    if width not in (whole, features):
        raise ValueError(
            f"the SAC observes {width} numbers, the environment gives {features} and a one-hot of {env.num_envs} tasks"
        )
    return width == whole


def _activation(policy_kwargs: Mapping[str, Any]) -> str:
    activation = policy_kwargs.get("activation_fn", nn.ReLU)
    if activation not in _ACTIVATIONS:
        raise ValueError(f"the SAC's activation {activation} is none of {', '.join(_ACTIVATIONS.values())}")
    return _ACTIVATIONS[activation]


def _arguments(data: Mapping[str, Any], variables: Mapping[str, Tensor], n_tasks: int) -> dict[str, Any]:
    """MTSAC's, as far as SAC has them."""
    size, frequency = data["batch_size"], data["train_freq"]
    learned = "log_ent_coef" in variables
    alpha = variables["log_ent_coef"].exp() if learned else variables["ent_coef_tensor"]
    return {
        **{name: data[name] for name in _SAME_MEANING},
        "train_freq": (frequency.frequency, frequency.unit.value),
        "batch_size": None if size % n_tasks else size,
        "initial_alpha": alpha.item(),
    }


def _fill(net: MultiTaskMLP, saved: Sequence[Sequence[Linear]], obs_dim: int) -> None:
    """Give the trunks the hidden layers, and every task's head the last one.

    SAC's critics read features, one-hot and action; ours features, action and one-hot.
    """
    width = saved[0][0][0].shape[1]
    places = torch.arange(width)
    if net.one_hot_in_trunk:
        one_hot = slice(obs_dim, obs_dim + net.n_tasks)
        places = torch.cat([places[:obs_dim], places[one_hot.stop :], places[one_hot]])
    with torch.no_grad():
        for number, (*hidden, (weight, bias)) in enumerate(saved):
            for layer, (layer_weight, layer_bias) in enumerate(hidden):
                ordered = layer_weight[:, places] if layer == 0 else layer_weight
                net.trunk[f"weight{layer}"][number].copy_(ordered.T)
                net.trunk[f"bias{layer}"][number, 0].copy_(layer_bias)
            net.heads["weight"][:, number].copy_(weight.T)
            net.heads["bias"][:, number, 0].copy_(bias)
