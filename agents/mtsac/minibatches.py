"""Rows of replay as the losses take them: rewards scaled, TD targets computed and clipped, noise drawn."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch
from stable_baselines3.common.vec_env import VecNormalize
from torch import Tensor

from mtrl_transfer.agents.mtsac.buffers import MultiTaskReplayBuffer, Sample, TaskBatch
from mtrl_transfer.agents.mtsac.losses import ActorBatch, CriticBatch, td_targets
from mtrl_transfer.agents.mtsac.policies import MultiTaskPolicy
from mtrl_transfer.agents.mtsac.rewards import Rewards
from mtrl_transfer.agents.mtsac.temperatures import Temperatures

Batch = TypeVar("Batch")


class Minibatches:
    """Batches for the critics and for the actor.

    Args:
        replay: where rows are drawn.
        normalizer: gives the environment's ``VecNormalize``, or None.
        policy: networks of the TD target.
        temperatures: weights of the entropy.
        rewards: scales and bounds.
    """

    def __init__(
        self,
        replay: MultiTaskReplayBuffer,
        normalizer: Callable[[], VecNormalize | None],
        policy: MultiTaskPolicy,
        temperatures: Temperatures,
        rewards: Rewards,
    ) -> None:
        self.replay, self.normalizer = replay, normalizer
        self.policy, self.temperatures, self.rewards = policy, temperatures, rewards

    def sample(self, batch_size: int, generator: torch.Generator | None) -> TaskBatch:
        """Draw ``batch_size`` rows over all tasks, rewards scaled."""
        batch = self.replay.sample(batch_size, self.normalizer(), generator)
        return batch._replace(rewards=self.rewards.scaled(batch.rewards))

    def critic(
        self, batch: TaskBatch, generator: torch.Generator, td_targets: Callable[..., Tensor] = td_targets
    ) -> CriticBatch:
        """Rows with their TD targets; the noise of the next actions is drawn by the generator."""
        targets = td_targets(
            self.policy.actor,
            self.policy.critic_target,
            batch.next_observations,
            batch.rewards,
            batch.discounts,
            _noise(batch, generator),
            self.temperatures.alphas,
        )
        return CriticBatch(batch.observations, batch.actions, self.rewards.clipped(targets))

    def actor(self, batch: TaskBatch, generator: torch.Generator) -> ActorBatch:
        """Rows with the noise of their actions, drawn by the generator."""
        return ActorBatch(batch.observations, _noise(batch, generator), self.temperatures.alphas)

    def drawing(
        self, make: Callable[[TaskBatch, torch.Generator], Batch], sample: Sample
    ) -> Callable[[int, torch.Generator], Batch]:
        """``draw(rows, generator)``: a batch of ``rows`` other rows per task, all of it random by ``generator``."""
        return lambda rows, generator: make(sample(rows * self.replay.n_envs, generator), generator)


def _noise(batch: TaskBatch, generator: torch.Generator) -> Tensor:
    return torch.randn(batch.actions.shape, generator=generator, device=batch.actions.device)
