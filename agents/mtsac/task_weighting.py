"""Loss weights of tasks by what their value functions have in common, on the critics' trunk features."""

from __future__ import annotations

import torch
from stable_baselines3.common.callbacks import BaseCallback
from torch import Tensor

from mtrl_transfer import svd_task_weights
from mtrl_transfer.agents.declarations import Count
from mtrl_transfer.agents.mtsac.networks import MultiTaskMLP
from mtrl_transfer.choices import check_whole
from mtrl_transfer.scales import divide

SMALLEST = 0.1
"""Floor of a weight, in units of their mean: a task that is not trained could never come to share anything."""


class ReweightTasks(BaseCallback):
    """Weigh the tasks' losses by SVD task weights (Wu, Zhang, Ré, arXiv 2005.00944, algorithm 2).

    The algorithm needs one input matrix and one column of labels per task. Inputs are the critics' trunk features of
    rows of all tasks together, as many as an update's; the labels of task ``t`` are the target critics' values of all
    these rows under the head of ``t``, brought to zero mean and unit variance: otherwise a task would count by the size
    of its returns. Weights are at least `SMALLEST` of their mean, and have mean 1. They are 1 until the first
    computation, which comes after ``every`` updates.

    Args:
        rank: directions that count as shared, from 1 to one below the number of tasks.
        every: updates between computations of the weights.

    Raises:
        ValueError: for an argument out of range; for the rank, at the start of training.
    """

    def __init__(self, rank: Count, every: Count = 1_000) -> None:
        super().__init__()
        check_whole("rank", rank)
        check_whole("every", every)
        self.rank, self.every = rank, every

    def _on_training_start(self) -> None:
        model = self.model
        if self.rank >= model.n_tasks:
            raise ValueError(f"rank={self.rank} should be 1 to {model.n_tasks - 1}, below the {model.n_tasks} tasks")
        self._done = 0
        if model.learner.task_weights is None:
            model.learner.set_task_weights(torch.ones(model.n_tasks, 1, device=model.device))

    def _on_rollout_end(self) -> None:
        # Depends on the agent alone, so a resumed run goes on as it would have.
        updates = self.model._n_updates
        steps = self.model.gradient_steps
        steps = self.model.train_freq.frequency * self.model.n_envs if steps < 0 else steps
        if updates != self._done and updates % self.every < steps:
            self._done = updates
            self._reweight(updates)

    def _on_step(self) -> bool:
        return True

    def _reweight(self, updates: int) -> None:
        model = self.model
        generator = torch.Generator(model.device).manual_seed((model.seed or 0) + updates)
        batch = model.minibatches.sample(model.batch_size, generator)
        inputs = torch.cat([batch.observations, batch.actions], dim=-1)
        critics = model.policy.critic, model.policy.critic_target
        model.learner.set_task_weights(shared_value_weights(*critics, inputs, self.rank))


@torch.no_grad()
def shared_value_weights(critic: MultiTaskMLP, target: MultiTaskMLP, inputs: Tensor, rank: int) -> Tensor:
    """Weights ``[T, 1]`` of tasks from critics' inputs ``[T, B, D + A]``."""
    features = critic.features(inputs)  # [N, T, B, width]
    x = features.flatten(1, 2).transpose(0, 1).flatten(1)  # [T * B, N * width]
    found = svd_task_weights(x, standardised(values_under_every_head(target, inputs)), min(rank, x.shape[1]))
    return normalised(found).unsqueeze(1)


def values_under_every_head(critic: MultiTaskMLP, inputs: Tensor) -> Tensor:
    """The smaller twin's value of every row for every task: inputs ``[T, B, D + A]`` -> ``[T * B, T]``."""
    features = critic.features(inputs).flatten(1, 2)  # [N, T * B, width]
    values = torch.matmul(features, critic.heads["weight"]) + critic.heads["bias"]  # [T, N, T * B, 1]
    return values.squeeze(-1).amin(dim=1).T


def standardised(values: Tensor) -> Tensor:
    """Columns of ``[m, T]`` at zero mean and unit variance; constant ones at zero."""
    centred = values - values.mean(dim=0)
    return divide(centred, centred.square().mean(dim=0).sqrt())


def normalised(weights: Tensor) -> Tensor:
    """Weights ``[T]`` at mean 1, small ones lifted to the floor; all 1 where all are zero."""
    lifted = divide(weights, weights.mean(), 1.0).clamp(min=SMALLEST)
    return lifted / lifted.mean()
