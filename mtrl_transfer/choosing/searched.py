"""One candidate beside the full set, found by a search: any subset of many tasks, or any weights."""

from __future__ import annotations

import torch
from torch import Tensor

from mtrl_transfer import scales
from mtrl_transfer.choosing import search
from mtrl_transfer.choosing.proposals import Proposed, matched
from mtrl_transfer.choosing.quadratic import Quadratic
from mtrl_transfer.gradients import is_sync_free


def found_weights(losses: Quadratic, divisor: Tensor, gramian: Tensor) -> Proposed:
    """Return the full set, and the weights `w ≥ 0` within its norm that have the largest total transference."""
    full_set = _full_set(gramian)
    gain, cost = _total(losses, divisor)
    limit = scales.squared_norms(gramian, full_set[0])
    if losses.curvature is None and is_sync_free(gramian.device):
        found = search.best_direction(gain, gramian, limit)
    else:  # these stay as short as they are: longer ones would overshoot
        found = search.best_weights(gain, cost, gramian, limit)
    rows = torch.cat([full_set, found[None]])
    return Proposed(rows, rows != 0)


def found_subset(losses: Quadratic, divisor: Tensor, gramian: Tensor, max_norm_factor: float | None) -> Proposed:
    """Return the full set, and the subset with the largest total transference; for the factor see `Proposals`."""
    full_set = _full_set(gramian)
    gain, cost = _total(losses, divisor)

    def score(subsets: Tensor) -> Tensor:
        rows = matched(torch.cat([full_set, subsets / len(gramian)]), gramian, max_norm_factor)[1:]
        return rows @ gain - ((rows @ cost) * rows).sum(1)

    starts = search.starting_subsets(score, gain, gramian.diagonal().clamp(min=0).sqrt())
    found = search.best_subset(score, starts).to(gain.dtype) / len(gain)
    rows = torch.cat([full_set, found[None]])
    return Proposed(matched(rows, gramian, max_norm_factor), rows != 0)


def _full_set(gramian: Tensor) -> Tensor:
    return torch.full_like(gramian[:1], 1 / len(gramian))


def _total(losses: Quadratic, divisor: Tensor) -> tuple[Tensor, Tensor]:
    """Return `gain` and `cost` of the total transference `Σ_j Z_{w→j} = gain · w − wᵀ cost w`.

    `gain = −Σ_j slope_j / divisor_j`, and `cost = Σ_j C_j / divisor_j`.
    """
    gain = -scales.divide(losses.slope, divisor.view(-1, 1)).sum(0)
    if losses.curvature is None:
        return gain, gain.new_zeros(len(gain), len(gain))
    return gain, scales.divide(losses.curvature, divisor.view(-1, 1, 1)).sum(0)
