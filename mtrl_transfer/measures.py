"""How the improvement of every task by every candidate's step is found out: by lookahead, or to first order."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from mtrl_transfer.context import Context


class Improvement(NamedTuple):
    """Losses `before [T]` at `θ`, and their `decrease [K, T]` by each candidate's step."""

    before: Tensor
    decrease: Tensor


def exact(context: Context, rows: Tensor, step_size: Tensor) -> Improvement:
    """Lookahead at `θ` and at the end of every step, in one call, for candidates `rows [K, T]`."""
    if context.lookahead is None:
        raise ValueError("measure='exact' needs context.lookahead, the losses at the end of a candidate's step")
    table = context.lookahead(torch.cat([torch.zeros_like(rows[:1]), rows]), step_size)
    return Improvement(table[0], table[0] - table[1:])


def first_order(losses: Tensor, gradients: Tensor, rows: Tensor, step_size: Tensor) -> Improvement:
    """`η ⟨g_w, g_j⟩` for candidates `rows [K, T]`, without any forward pass.

    Args:
        losses: `[T]`, at `θ`.
        gradients: `[T giver, T receiver]`, the Gramian; or inner products with gradients on held-out rows.
        rows: `[K, T]`.
        step_size: `η`.
    """
    return Improvement(losses, step_size * (rows @ gradients))


def receiving_gramian(context: Context, gramian: Tensor, lookahead_batch: str) -> Tensor:
    """Inner products with the gradients on the rows that improvements are predicted for."""
    if lookahead_batch == "same":
        return gramian
    if context.held_out_gramian is None:
        raise ValueError(
            "measure='first_order' with lookahead_batch='held_out' needs context.held_out_gramian; "
            "give held-out rows or choose lookahead_batch='same'"
        )
    return context.held_out_gramian()
