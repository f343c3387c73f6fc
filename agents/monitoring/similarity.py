"""How alike the tasks' data are, to be held against what their steps do to each other."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy.stats import spearmanr

from mtrl_transfer import pairwise_covariance_similarity

if TYPE_CHECKING:
    from mtrl_transfer.agents.mtsac.mtsac import MTSAC

ROWS = 128
"""Rows of replay a task."""


@torch.no_grad()
def covariance_similarities(agent: MTSAC, generator: torch.Generator) -> dict[str, np.ndarray]:
    """Covariance similarity ``[T, T]`` of ``inputs`` (observations) and of trunk features of ``critic`` and ``actor``.

    Args:
        agent: with rows in its replay.
        generator: draws them; nothing of the agent changes.
    """
    batch = agent._sample(ROWS * agent.n_tasks, generator)
    state_actions = torch.cat([batch.observations, batch.actions], dim=-1)
    rows = {
        "inputs": batch.observations,
        "critic": agent.policy.critic.features(state_actions)[0],
        "actor": agent.policy.actor.features(batch.observations)[0],
    }
    return {name: pairwise_covariance_similarity(values).cpu().numpy() for name, values in rows.items()}


def rank_correlation(similarity: np.ndarray, transference: np.ndarray) -> float:
    """Spearman's correlation of two matrices ``[T, T]`` over pairs of different tasks; nan where one is constant."""
    pairs = ~np.eye(len(similarity), dtype=bool)
    x, y = similarity[pairs], transference[pairs]
    if len(x) < 3 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return float("nan")
    return float(spearmanr(x, y).statistic)
