"""Length of a lookahead step, and candidates of one length."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn.utils import get_total_norm

from mtrl_transfer.choices import check_number
from mtrl_transfer.scales import divide, squared_norms


def matched_step_size(gramian: Tensor, step_norm: Tensor | None, weights: Tensor | None = None) -> Tensor:
    """Return `η` such that a step along `weights` is as long as the trunk's last real step.

        η = step_norm / ‖Σ_t w_t g_t‖

    An optimizer such as Adam takes steps much longer than its learning rate times the gradient; at the shorter length
    a lookahead says no more than the gradient does.

    Args:
        gramian: `[T, T]`.
        step_norm: `[]`, norm of the last real step.
        weights: `[T]`, the candidate to match; None: the full set (all `1/T`).

    Returns:
        `[]`; 0 where the gradient is zero.
    """
    if step_norm is None:
        raise ValueError("step_size='matched' needs context.step_norm, the norm of the trunk's last step (0 at first)")
    if weights is None:
        weights = torch.full_like(gramian[0], 1 / len(gramian))
    length = squared_norms(gramian, weights).sqrt()
    return divide(step_norm.to(gramian), length)


def match_norms(weights: Tensor, gramian: Tensor, reference: Tensor, max_factor: float | None) -> Tensor:
    """Scale candidates so that their gradients are as long as the reference's; longer steps would win for being longer.

    Args:
        weights: `[..., T]`.
        gramian: `[T, T]`.
        reference: `[T]`, the candidate with the wanted norm.
        max_factor: cap on the factor, so that a nearly cancelling candidate is not blown up; None: it stays.

    Returns:
        `[..., T]`.
    """
    if max_factor is None:
        return weights
    wanted, found = squared_norms(gramian, reference), squared_norms(gramian, weights)
    return weights * divide(wanted, found, 1).sqrt().clamp(max=max_factor)[..., None]


def match_mean(weights: Tensor, gramian: Tensor, max_factor: float | None) -> Tensor:
    """Scale weights `[T]` so that their gradient is as long as the mean gradient; see `match_norms`."""
    return match_norms(weights, gramian, torch.full_like(weights, 1 / len(weights)), max_factor)


def check_norm_factor(max_norm_factor: float | None) -> None:
    """Raise `ValueError` unless it is None or a number of at least 1."""
    if max_norm_factor is not None:
        check_number("max_norm_factor", max_norm_factor, 1)


def step_norm(before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> Tensor:
    """Norm `[]` of the difference of two states of the shared parameters; for `Context.step_norm`."""
    steps = torch._foreach_sub([after[name].detach() for name in before], list(before.values()))
    return get_total_norm(steps)
