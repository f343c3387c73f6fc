"""Whether a trunk still tells a task's states apart."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from mtrl_transfer.agents.mtsac.mtsac import MTSAC

ROWS = 32
"""Rows of replay a task."""


@torch.no_grad()
def feature_spread(agent: MTSAC) -> dict[str, Tensor]:
    """How far the trunk's last features differ between a task's states, ``[T]`` by role.

    Standard deviation over rows of replay, averaged over units; of the critics, the one where it is smaller. At 0 the
    trunk has lost the task: all its states look alike, and no gradient of its head reaches the trunk. Units of a shared
    trunk can fall silent for one task while others keep them busy, which a count of dormant units (Sokar et al., arXiv
    2302.12902) over all data does not show.

    Args:
        agent: with rows in its replay; nothing of it changes.
    """
    generator = torch.Generator(agent.device).manual_seed(agent._n_updates)
    batch = agent.replay_buffer.sample(ROWS * agent.n_tasks, agent._vec_normalize_env, generator)
    state_actions = torch.cat([batch.observations, batch.actions], dim=-1)
    features = {
        "critic": agent.policy.critic.features(state_actions),
        "actor": agent.policy.actor.features(batch.observations),
    }
    return {role: values.std(dim=2).mean(dim=-1).amin(dim=0) for role, values in features.items()}
