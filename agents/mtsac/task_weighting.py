"""Loss weights of tasks by what their value functions have in common, on the critics' trunk features."""

from __future__ import annotations

import torch
from torch import Tensor

from mtrl_transfer import svd_task_weights
from mtrl_transfer.agents.mtsac.networks import MultiTaskMLP
from mtrl_transfer.generators import restore_generator

SMALLEST = 0.1
"""Floor of a weight, in units of their mean: a task that is not trained could never come to share anything."""


class TaskWeighting:
    """SVD task weights (Wu, Zhang, Ré, arXiv 2005.00944, algorithm 2) for the losses of critics and actor.

    The algorithm wants one input matrix and one column of labels a task. Inputs are the critics' trunk features of rows
    of all tasks together; the labels of task ``t`` are the target critics' values of all these rows under the head of
    ``t``, brought to zero mean and unit variance: otherwise a task would count by the size of its returns. Weights have
    mean 1 and are at least :data:`SMALLEST` before they are brought to it.

    Args:
        n_tasks: ``T``.
        rank: directions that count as shared, 1 to ``T - 1``.
        every: updates between computations.
        seed: of the generator that draws the common rows.
        device: of the weights.

    Attributes:
        weights: ``[T, 1]``, changed in place: losses hold on to it.

    Raises:
        ValueError: for a rank or a period out of range.
    """

    def __init__(self, n_tasks: int, rank: int, every: int, seed: int, device: torch.device) -> None:
        if not 1 <= rank < n_tasks:
            raise ValueError(
                f"reweighting_rank={rank} must be from 1 to {n_tasks - 1}, below the {n_tasks} tasks: at their number "
                "nothing is left out"
            )
        if every < 1:
            raise ValueError(f"reweighting_every={every} must be at least 1 update")
        self.rank, self.every = rank, every
        self.generator = torch.Generator(device).manual_seed(seed)
        self.weights = torch.ones(n_tasks, 1, device=device)

    @torch.no_grad()
    def update(self, critic: MultiTaskMLP, target: MultiTaskMLP, inputs: Tensor) -> None:
        """Compute the weights anew from critics' inputs ``[T, B, D + A]``."""
        features = critic.features(inputs)  # [N, T, B, width]
        values = values_under_every_head(target, inputs)
        x = features.flatten(1, 2).transpose(0, 1).flatten(1)
        found = svd_task_weights(x, standardised(values), min(self.rank, x.shape[1]))
        self.weights.copy_(normalised(found).unsqueeze(1))

    def state_dict(self) -> dict[str, Tensor]:
        """Weights and the generator's state."""
        return {"weights": self.weights, "generator": self.generator.get_state()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restore :meth:`state_dict`."""
        self.weights.copy_(state["weights"])
        restore_generator(self.generator, state["generator"])


def values_under_every_head(critic: MultiTaskMLP, inputs: Tensor) -> Tensor:
    """The smaller twin's value of every row for every task: inputs ``[T, B, D + A]`` -> ``[T * B, T]``."""
    features = critic.features(inputs).flatten(1, 2)  # [N, T * B, width]
    values = torch.matmul(features, critic.heads["weight"]) + critic.heads["bias"]  # [T, N, T * B, 1]
    return values.squeeze(-1).amin(dim=1).T


def standardised(values: Tensor) -> Tensor:
    """Columns of ``[m, T]`` at zero mean and unit variance; constant ones at zero."""
    centred = values - values.mean(dim=0)
    deviation = centred.square().mean(dim=0).sqrt()
    return torch.where(deviation > 0, centred / torch.where(deviation > 0, deviation, 1), 0)


def normalised(weights: Tensor) -> Tensor:
    """Weights ``[T]`` at mean 1, small ones lifted to the floor; all 1 where all are zero."""
    mean = weights.mean()
    lifted = torch.where(mean > 0, (weights / torch.where(mean > 0, mean, 1)).clamp(min=SMALLEST), 1.0)
    return lifted / lifted.mean()
