"""State of a training besides the agent's: random generators, unfinished episodes, environments."""

from __future__ import annotations

import random
from collections import deque
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from mtrl_transfer.generators import restore_generator

if TYPE_CHECKING:
    from mtrl_transfer.agents.mtsac.mtsac import MTSAC


def training_state(agent: MTSAC) -> dict[str, Any]:
    """State between two rollouts: nested dicts and lists of numbers, texts, arrays and tensors.

    Together with the agent's archive and its replay it is all that a bit-exact continuation on a CPU needs. The
    environment must have ``state_dict`` and ``load_state_dict``, as those of ``make_vec_env`` do.
    """
    assert agent.env is not None
    assert agent.ep_info_buffer is not None
    assert agent.ep_success_buffer is not None
    noise = agent.exploration_noise
    return {
        "environment": agent.env.state_dict(),
        "observations": agent._last_obs,
        "episode_starts": agent._last_episode_starts,
        "episode_infos": [dict(info) for info in agent.ep_info_buffer],
        "successes": [float(success) for success in agent.ep_success_buffer],
        "action_space": _numpy_state(agent.action_space.np_random.bit_generator.state),
        "exploration": None if noise is None else noise.state_dict(),
        "replay_generator": agent.replay_buffer.generator.get_state(),
        "replay_starts": agent.replay_buffer.starts,
        "generators": _global_generators(),
    }


def restore_training_state(agent: MTSAC, state: dict[str, Any]) -> None:
    """Continue from `training_state`; ``agent.learn(..., reset_num_timesteps=False)`` then goes on from there."""
    assert agent.env is not None
    observations = agent.env.load_state_dict(state["environment"])
    agent._last_obs, agent._last_episode_starts = observations, state["episode_starts"]
    agent.ep_info_buffer = deque(state["episode_infos"], agent._stats_window_size)
    agent.ep_success_buffer = deque(state["successes"], agent._stats_window_size)
    agent.action_space.np_random.bit_generator.state = state["action_space"]
    if agent.exploration_noise is not None:
        agent.exploration_noise.load_state_dict(state["exploration"])
    restore_generator(agent.replay_buffer.generator, state["replay_generator"])
    agent.replay_buffer.starts = state.get("replay_starts", agent.replay_buffer.starts)
    _restore_global_generators(state["generators"])


def _global_generators() -> dict[str, Any]:
    version, numbers, gauss = random.getstate()
    return {
        "python": [version, list(numbers), gauss],
        "numpy": _numpy_state(np.random.get_state(legacy=False)),  # noqa: NPY002 - the global one is what SB3 uses
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def _restore_global_generators(state: dict[str, Any]) -> None:
    version, numbers, gauss = state["python"]
    random.setstate((version, tuple(numbers), gauss))
    np.random.set_state(state["numpy"])  # noqa: NPY002
    torch.set_rng_state(state["torch"].cpu())
    if len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all([one.cpu() for one in state["cuda"]])


def _numpy_state(state: Any) -> dict[str, Any]:
    """State with arrays as lists, because safetensors does not know all unsigned types."""
    return {
        key: _numpy_state(value)
        if isinstance(value, dict)
        else value.tolist()
        if isinstance(value, np.ndarray)
        else value
        for key, value in state.items()
    }
