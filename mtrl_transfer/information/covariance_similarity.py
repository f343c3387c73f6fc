"""Covariance similarity of two tasks' inputs."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mtrl_transfer.precision import float32_products
from mtrl_transfer.scales import divide


def covariance_similarity(x_i: Tensor, x_j: Tensor, share: float = 0.99) -> Tensor:
    """Similarity of the second moments of two tasks' inputs (Wu, Zhang, Ré, arXiv 2005.00944, section 2.3).

        ‖S_iᵀ S_j‖_F / (‖S_i‖_F ‖S_j‖_F)        S = U_r D_r^{1/2}  from  XᵀX = U D Uᵀ

    `U_r` are the fewest leading directions that hold `share` of the spectrum. Rows are taken as they are: centre them
    first, if the mean is not to count. The score does not change when rows are repeated, scaled or rotated together.
    Two equal tasks score 1 only where a single direction holds the spectrum: `n` equal directions score `1/√n`.

    Args:
        x_i: inputs of one task, `[m_i, d]`.
        x_j: inputs of the other, `[m_j, d]`.
        share: of the spectrum, in (0, 1].

    Returns:
        `[]`, in [0, 1]; 0 where a task's inputs are all zero.

    Raises:
        ValueError: for inputs of different width or a share out of range.
    """
    return pairwise_covariance_similarity([x_i, x_j], share)[0, 1]


@float32_products()
def pairwise_covariance_similarity(inputs: Tensor | Sequence[Tensor], share: float = 0.99) -> Tensor:
    """Covariance similarity of every two of T tasks.

    Args:
        inputs: `[T, m, d]`, or a sequence of T tensors `[m_t, d]`.
        share: of each task's spectrum, in (0, 1].

    Returns:
        `[T, T]`, symmetric; see `covariance_similarity`.

    Raises:
        ValueError: for inputs of different width or a share out of range.
    """
    if not 0 < share <= 1:
        raise ValueError(f"share={share} must be above 0 and at most 1: the part of the spectrum that is kept")
    widths = [task.shape[1] if task.ndim == 2 else -1 for task in inputs]
    if len(set(widths)) != 1 or widths[0] < 1:
        shapes = [list(task.shape) for task in inputs]
        raise ValueError(f"inputs must be [rows, width] of one width for all tasks, got {shapes}")
    # ‖S_iᵀ S_j‖² is the inner product of S_i S_iᵀ and S_j S_jᵀ: no task needs the same rank as another.
    moments = torch.stack([_leading_second_moment(task, share) for task in inputs])
    flat = moments.flatten(1)
    products = (flat @ flat.T).clamp(min=0)
    sizes = moments.diagonal(dim1=1, dim2=2).sum(1)
    return divide(products.sqrt(), (sizes[:, None] * sizes).sqrt())


def _leading_second_moment(x: Tensor, share: float) -> Tensor:
    """`U_r D_r U_rᵀ [d, d]` of `XᵀX / ‖X‖²`, in which every task weighs alike."""
    _, singular, directions = torch.linalg.svd(x, full_matrices=False)
    spectrum = singular.square()
    total = spectrum.sum()
    before = spectrum.cumsum(0) - spectrum
    kept = torch.where(before < share * total, divide(spectrum, total), 0)
    return (directions.mT * kept) @ directions
