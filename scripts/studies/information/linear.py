"""Linear multi-task models `X_t B a_t`, fitted to their optimum, so that no result depends on training."""

from __future__ import annotations

import torch
from torch import Tensor


def single_task(x: Tensor, y: Tensor) -> Tensor:
    """Return the least squares solution `[..., d]` of one task: `x [..., m, d]`, `y [..., m]`."""
    return torch.linalg.lstsq(x, y.unsqueeze(-1)).solution.squeeze(-1)


def shared_trunk(xs: list[Tensor], ys: list[Tensor], width: int, rounds: int = 100) -> Tensor:
    """Find models `B a_t [..., T, d]` of least `Σ_t ‖X_t B a_t − y_t‖²` over the trunk `B [d, width]` and heads `a_t`.

    By alternating least squares from the tasks' own models: each of the two steps is exact.

    Args:
        xs: inputs of each task, `[..., m_t, d]`.
        ys: labels of each task, `[..., m_t]`.
        width: width of the trunk.
        rounds: rounds of alternation.
    """
    moments = torch.stack([x.mT @ x for x in xs], dim=-3)
    targets = torch.stack([(x.mT @ y.unsqueeze(-1)).squeeze(-1) for x, y in zip(xs, ys, strict=True)], dim=-2)
    own = torch.linalg.solve(moments, targets)
    trunk = torch.linalg.svd(own.mT, full_matrices=True)[0][..., :width]
    for _ in range(rounds):
        heads = _best_heads(moments, targets, trunk)
        trunk, _ = torch.linalg.qr(_best_trunk(moments, targets, heads))
    return (trunk.unsqueeze(-3) @ _best_heads(moments, targets, trunk).unsqueeze(-1)).squeeze(-1)


def _best_heads(moments: Tensor, targets: Tensor, trunk: Tensor) -> Tensor:
    """Return heads `a_t [..., T, r]` for a trunk `[..., d, r]` with independent columns."""
    inner = trunk.mT.unsqueeze(-3) @ moments @ trunk.unsqueeze(-3)
    return torch.linalg.solve(inner, targets @ trunk)


def _best_trunk(moments: Tensor, targets: Tensor, heads: Tensor) -> Tensor:
    """Return the trunk `B [..., d, r]` for heads `[..., T, r]`: the normal equations in its entries."""
    *_, d, _ = moments.shape
    width = heads.shape[-1]
    system = torch.einsum("...tr,...ts,...tij->...irjs", heads, heads, moments).flatten(-4, -3).flatten(-2, -1)
    right = torch.einsum("...tr,...ti->...ir", heads, targets).flatten(-2)
    solution = torch.linalg.lstsq(system, right.unsqueeze(-1), driver="gelsd").solution
    return solution.squeeze(-1).unflatten(-1, (d, width))


def shared_inputs(x: Tensor, y: Tensor, width: int, weights: Tensor | None = None) -> Tensor:
    """Return models `[..., d, T]` of least `Σ_t α_t ‖X B a_t − y_t‖²`, in closed form, for tasks with the same inputs.

    With `X = Q R`, the optimum is the best approximation of rank `width` to the columns `√α_t Qᵀ y_t`; heads are then
    fitted without weights, as each head's own optimum has none.

    Args:
        x: `[..., m, d]`.
        y: `[..., m, T]`.
        width: of the trunk.
        weights: `α [..., T]`; None: all 1.
    """
    q, r = torch.linalg.qr(x)
    own = q.mT @ y
    weighted = own if weights is None else own * weights.clamp(min=0).sqrt().unsqueeze(-2)
    shared = torch.linalg.svd(weighted, full_matrices=False)[0][..., :width]
    return torch.linalg.solve_triangular(r, shared @ (shared.mT @ own), upper=True)
