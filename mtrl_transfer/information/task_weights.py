"""Loss weights of tasks from what their linear models have in common."""

from __future__ import annotations

import torch
from torch import Tensor

from mtrl_transfer.precision import float32_products


@float32_products()
def svd_task_weights(x: Tensor, y: Tensor, rank: int) -> Tensor:
    """SVD-based task weights (Wu, Zhang, Ré, arXiv 2005.00944, section 3, algorithm 2).

        α_t = ‖θ_tᵀ U_r‖        θ_t = Xᵀ y_t,  U_r: the `rank` leading left singular vectors of [θ_1 … θ_T]

    A task counts by how much of it lies in the directions that the tasks share; one whose labels are noise lies mostly
    outside of them. All tasks have the same inputs. Weights are in the units of `Xᵀ y`: bring labels to one scale first
    if that is not meant to count.

    Args:
        x: inputs of all tasks, `[m, d]`.
        y: labels, `[m, T]`.
        rank: `r`, the width of the trunk that the tasks are to share; below T, or else nothing is left out.

    Returns:
        `[T]`, at least 0.

    Raises:
        ValueError: where rows differ in number, or the rank is out of range.
    """
    if x.ndim != 2 or y.ndim != 2 or len(x) != len(y):
        raise ValueError(f"x must be [m, d] and y [m, T], got {list(x.shape)} and {list(y.shape)}")
    largest = min(x.shape[1], y.shape[1])
    if not 1 <= rank <= largest:
        raise ValueError(f"rank={rank} must be from 1 to {largest}, the smaller of the inputs' width and the tasks")
    models = x.T @ y
    shared, _, _ = torch.linalg.svd(models, full_matrices=False)
    return (shared[:, :rank].T @ models).norm(dim=0)
