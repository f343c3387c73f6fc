"""How the improvement of every task by every candidate's step is found out."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from mtrl_transfer.basis import Quadratic, quadratic_from_predictions
from mtrl_transfer.context import Context, Lookahead

MEASURES = ("exact", "first_order", "basis")


class Improvement(NamedTuple):
    """Losses `before [T]` at `θ`, and their `decrease [K, T]` by each candidate's step."""

    before: Tensor
    decrease: Tensor


def exact(context: Context, rows: Tensor, step_size: Tensor) -> Improvement:
    """Lookahead at `θ` and at the end of every step, in one call, for candidates `rows [K, T]`."""
    table = _lookahead(context)(torch.cat([torch.zeros_like(rows[:1]), rows]), step_size)
    return Improvement(table[0], table[0] - table[1:])


def exact_by_optimizer(context: Context, rows: Tensor) -> Improvement:
    """Lookahead at `θ` and at the end of every candidate's true optimizer step."""
    table = _lookahead(context).after_optimizer(rows)
    return Improvement(table[0], table[0] - table[1:])


def first_order(losses: Tensor, gradients: Tensor, step_size: Tensor) -> Quadratic:
    """`L_j(w) ≈ L_j − η ⟨g_w, g_j⟩`, without any forward pass.

    Args:
        losses: `[T]`, at `θ`.
        gradients: `[T giver, T receiver]`, the Gramian; or inner products with gradients on held-out rows.
        step_size: `η`, `[]`.
    """
    return Quadratic(losses, -step_size * gradients.mT, None)


def basis(context: Context, n_tasks: int, step_size: Tensor) -> Quadratic:
    """Quadratic from the predictions at `θ` and at the end of each single task's step (T + 1 forwards)."""
    lookahead = _lookahead(context)
    units = torch.eye(n_tasks, dtype=step_size.dtype, device=step_size.device) / n_tasks
    predictions = lookahead.predictions(torch.cat([torch.zeros_like(units[:1]), units]), step_size)
    return quadratic_from_predictions(predictions, 1 / n_tasks, lookahead.loss_of)


def receiving_gramian(context: Context, gramian: Tensor, lookahead_batch: str) -> Tensor:
    """Inner products with the gradients on the rows that improvements are predicted for."""
    if lookahead_batch == "same":
        return gramian
    return _lookahead(context).held_out_gramian()


def _lookahead(context: Context) -> Lookahead:
    if context.lookahead is None:
        raise ValueError("this measure needs context.lookahead, the losses at the end of a candidate's step")
    return context.lookahead
