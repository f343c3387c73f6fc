"""Statistics of replay as the trunks see it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from mtrl_transfer import pairwise_covariance_similarity

if TYPE_CHECKING:
    from mtrl_transfer.agents.mtsac.buffers import TaskBatch
    from mtrl_transfer.agents.mtsac.mtsac import MTSAC

SPREAD_ROWS, SIMILARITY_ROWS = 32, 128
"""Rows of replay per task."""


@torch.no_grad()
def feature_spread(agent: MTSAC) -> dict[str, Tensor]:
    """Spread ``[T]`` of the trunk's last features over a task's states, by role.

    The spread is the standard deviation over rows of replay, averaged over units; for the critics, the smaller one. At
    0 the trunk has lost the task: all its states look alike, and no gradient of its head reaches the trunk. Units of a
    shared trunk can be silent for one task while other tasks keep them busy; a count of dormant units over all data
    (Sokar et al., arXiv 2302.12902) does not show this.

    Args:
        agent: agent with rows in its replay; it does not change.
    """
    generator = torch.Generator(agent.device).manual_seed(agent._n_updates)
    batch = agent.replay_buffer.sample(SPREAD_ROWS * agent.n_tasks, agent._vec_normalize_env, generator)
    return {role: values.std(dim=2).mean(dim=-1).amin(dim=0) for role, values in _features(agent, batch).items()}


@torch.no_grad()
def covariance_similarities(agent: MTSAC, generator: torch.Generator) -> dict[str, np.ndarray]:
    """Covariance similarity ``[T, T]`` of ``inputs`` (observations) and of trunk features of ``critic`` and ``actor``.

    Args:
        agent: agent with rows in its replay; it does not change.
        generator: generator that draws the rows.
    """
    batch = agent.minibatches.sample(SIMILARITY_ROWS * agent.n_tasks, generator)
    rows = {"inputs": batch.observations, **{role: values[0] for role, values in _features(agent, batch).items()}}
    return {name: pairwise_covariance_similarity(values).cpu().numpy() for name, values in rows.items()}


def _features(agent: MTSAC, batch: TaskBatch) -> dict[str, Tensor]:
    """Last features ``[N, T, B, width]`` of the trunks by role."""
    state_actions = torch.cat([batch.observations, batch.actions], dim=-1)
    policy = agent.policy
    return {"critic": policy.critic.features(state_actions), "actor": policy.actor.features(batch.observations)}


def rank_correlation(similarity: np.ndarray, transference: np.ndarray) -> float:
    """Spearman's correlation of two matrices ``[T, T]`` over pairs of different tasks; nan if one is constant."""
    pairs = ~np.eye(len(similarity), dtype=bool)
    x, y = similarity[pairs], transference[pairs]
    if len(x) < 3 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return float("nan")
    from scipy.stats import spearmanr  # takes long to import

    return float(spearmanr(x, y).statistic)
