"""The losses of multi-task SAC (Haarnoja et al., arXiv 1812.05905), per task and row.

Each loss is a function of the parameters it is given and of a batch that already holds everything random (noise, TD
target, temperature). So the same function serves the update, its task gradients and any lookahead. ``K`` candidate
trunks are evaluated at once: parameters ``[N * K, ...]`` give losses ``[K, T, B]``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from agents.distributions import squashed_sample
from agents.networks import MultiTaskMLP

Parameters = Mapping[str, Tensor]


class CriticBatch(NamedTuple):
    """Rows for the critic: ``observations [T, B, D]``, ``actions [T, B, A]``, ``targets [T, B]``."""

    observations: Tensor
    actions: Tensor
    targets: Tensor


class ActorBatch(NamedTuple):
    """Rows for the actor: ``observations [T, B, D]``, ``noise [T, B, A]``, ``alphas [T, 1]``."""

    observations: Tensor
    noise: Tensor
    alphas: Tensor


class CriticRows(NamedTuple):
    """What a critic's rows came to, each ``[K, T, B]``: ``losses`` and the twins' mean ``values``."""

    losses: Tensor
    values: Tensor


class ActorRows(NamedTuple):
    """What an actor's rows came to, each ``[K, T, B]``: ``losses``, ``log_probs`` and the smaller twin's ``values``."""

    losses: Tensor
    log_probs: Tensor
    values: Tensor


def action_values(critic: MultiTaskMLP, observations: Tensor, actions: Tensor) -> Tensor:
    """Both twins' values: ``observations [T, B, D]``, ``actions [T, B, A]`` -> ``[N, T, B]``."""
    return critic(torch.cat([observations, actions], dim=-1)).squeeze(-1)


def critic_rows(
    critic: MultiTaskMLP,
    batch: CriticBatch,
    trunk: Parameters | None = None,
    heads: Parameters | None = None,
    trunk_shares: Tensor | None = None,
) -> CriticRows:
    """Squared TD error, averaged over the twins; parameters and shares as for :class:`MultiTaskMLP`."""
    values = critic(torch.cat([batch.observations, batch.actions], dim=-1), trunk, heads, trunk_shares)
    values = values.view(critic.n_nets, -1, *batch.targets.shape)
    return CriticRows((values - batch.targets).square().mean(dim=0), values.detach().mean(dim=0))


def actor_rows(
    actor: MultiTaskMLP,
    critic: MultiTaskMLP,
    batch: ActorBatch,
    trunk: Parameters | None = None,
    heads: Parameters | None = None,
    trunk_shares: Tensor | None = None,
) -> ActorRows:
    """``alpha log pi(a|s) - min Q(s, a)`` at reparameterised actions; the critic must not require gradients."""
    actions, log_probs = squashed_sample(
        actor(batch.observations, trunk, heads, trunk_shares), batch.noise
    )  # [K, T, B, A], [K, T, B]
    n_candidates, n_tasks, rows = log_probs.shape
    # Candidates join the rows: the critic is the same for all of them.
    observations = batch.observations.unsqueeze(1).expand(-1, n_candidates, -1, -1).flatten(1, 2)
    values = action_values(critic, observations, actions.transpose(0, 1).flatten(1, 2)).amin(dim=0)
    values = values.view(n_tasks, n_candidates, rows).transpose(0, 1)
    return ActorRows(batch.alphas * log_probs - values, log_probs, values)


@torch.no_grad()
def td_targets(
    actor: MultiTaskMLP,
    target_critic: MultiTaskMLP,
    next_observations: Tensor,
    rewards: Tensor,
    terminations: Tensor,
    noise: Tensor,
    alphas: Tensor,
    gamma: float,
) -> Tensor:
    """Soft TD target ``r + gamma (1 - terminated) (min Q' - alpha log pi)`` at actions drawn in the *next* state.

    Args:
        actor: policy network.
        target_critic: target network.
        next_observations: ``[T, B, D]``.
        rewards: ``[T, B]``, scaled.
        terminations: ``[T, B]``, 1 where the episode terminated; a truncated one counts 0.
        noise: standard normal ``[T, B, A]``.
        alphas: ``[T, 1]``.
        gamma: discount per step.

    Returns:
        ``[T, B]``.
    """
    next_actions, log_probs = squashed_sample(actor(next_observations), noise)
    next_values = action_values(target_critic, next_observations, next_actions.squeeze(0)).amin(dim=0)
    return rewards + gamma * (1.0 - terminations) * (next_values - alphas * log_probs.squeeze(0))
