"""Transference over a horizon: the effect on every task of H optimizer steps along the gradients of some tasks.

    θ_0 = θ,  θ_{h+1} = optimizer step from θ_h along Σ_t w_t ∇L_t(X_h; θ_h),  Z^H_{w→j} = 1 − L_j(θ_H) / L_j(θ)

One step is mostly noise: over a horizon effects add up and noise averages out. `H = 1` is the transference of Fifty et
al. (2020), section 3.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from mtrl_transfer import scales
from mtrl_transfer.candidates import check_weights
from mtrl_transfer.model import FunctionalModel, Model
from mtrl_transfer.precision import float32_products
from mtrl_transfer.tasks import Shared, TaskLoss, Tree, count_tasks, is_frozen

ELEMENTWISE = ("SGD", "Adam", "AdamW", "NAdam", "RAdam", "Adamax", "Adagrad", "Adadelta", "RMSprop", "Rprop")
"""Optimizers of torch whose step treats each number by itself: one of them steps K copies of the parameters at once."""
Optimizer = torch.optim.Optimizer


@float32_products()
def horizon_transference(
    task_loss: TaskLoss | Sequence[TaskLoss],
    shared: Shared,
    heads: Tree,
    batches: Sequence[Tree],
    weights: Tensor,
    step: float | Optimizer,
    *,
    held_out: Tree,
    max_grad_norm: float | None = None,
    scale: str | Tensor = "ratio",
) -> Tensor:
    """Return the transference of K candidates on T tasks after one step on each of H batches.

    Heads, targets and whatever travels in the batches stay fixed. Nothing is changed: no parameter, gradient, optimizer
    state or random stream.

    Args:
        task_loss: loss of one task, as in `per_task_gradients`; a list for unlike tasks.
        shared: shared parameters by name.
        heads: heads of all tasks.
        batches: H batches in the form of `per_task_gradients`, one a step.
        weights: candidates `[K, T]`, applied as given.
        step: learning rate of plain gradient steps; or the optimizer that holds `shared`, a copy of which steps on
            from its present state.
        held_out: rows on which the losses before and after are compared; many, so that they are not noise.
        max_grad_norm: clip each candidate's gradient to this norm before each step; None does not clip.
        scale: `ratio`, or divisors `[T]`.

    Returns:
        `[K, T]`: positive where the candidate's steps help the task.

    Raises:
        ValueError: for no batches, weights of another shape, or an optimizer that couples parameters.
    """
    n_tasks = count_tasks(task_loss, heads, held_out)
    if not batches:
        raise ValueError("batches is empty: a horizon needs at least one step")
    check_weights(weights, n_tasks)
    if not (isinstance(scale, Tensor) or scale == "ratio"):
        raise ValueError(f"scale={scale!r} must be 'ratio' or a tensor [{n_tasks}]")
    model = FunctionalModel(task_loss, shared, heads, n_tasks=n_tasks)
    trunks = trunks_after(model, batches, weights, step, max_grad_norm=max_grad_norm)
    with torch.no_grad():
        before, after = model.losses(held_out)[0], model.losses(held_out, trunks)
    return scales.divide(before - after, scale if isinstance(scale, Tensor) else before)


@float32_products()
def trunks_after(
    model: Model[Any],
    batches: Iterable[Any],
    weights: Tensor,
    step: float | Optimizer,
    *,
    max_grad_norm: float | None = None,
) -> dict[str, Tensor]:
    """Return the trunks `[K, *shape]` of K candidates after one step on each batch, each from the present trunk.

    Arguments and errors are those of `horizon_transference`.
    """
    trained = {name: value for name, value in model.trunk.items() if not is_frozen(value)}
    copies = {name: _copies(value, len(weights)) for name, value in trained.items()}
    trunks = {
        name: copies.get(name, value.detach().expand(len(weights), *value.shape)) for name, value in model.trunk.items()
    }
    optimizer, own = _copied(step, trained, copies), weights.diagonal()
    alone = len(weights) == model.n_tasks and torch.equal(weights, own.diag())
    for batch in batches:
        with torch.enable_grad():  # alone, each task needs its own rows only
            total = (own * model.losses_of_own(batch, trunks) if alone else weights * model.losses(batch, trunks)).sum()
        gradients = torch.autograd.grad(total, list(copies.values()), allow_unused=True)
        for copy, gradient in zip(copies.values(), _clipped(gradients, max_grad_norm), strict=True):
            copy.grad = gradient
        optimizer.step()
    return {name: value.detach() for name, value in trunks.items()}


def _copies(value: Tensor, n: int) -> Tensor:
    return value.detach().expand(n, *value.shape).clone().requires_grad_()


def _copied(step: float | Optimizer, shared: Shared, copies: dict[str, Tensor]) -> Optimizer:
    """Return an optimizer over the copies that continues from the state of the given one."""
    if not isinstance(step, Optimizer):
        return torch.optim.SGD(copies.values(), lr=step)
    if type(step).__name__ not in ELEMENTWISE:
        raise ValueError(f"{type(step).__name__} couples parameters; use one of {', '.join(ELEMENTWISE)}")
    of = {id(value): copies[name] for name, value in shared.items()}
    groups = [{**group, "params": [of[id(p)] for p in group["params"] if id(p) in of]} for group in step.param_groups]
    held = {id(p) for group in step.param_groups for p in group["params"]}
    if missing := [name for name, value in shared.items() if id(value) not in held]:
        raise ValueError(f"shared[{missing[0]!r}] is not a parameter of the optimizer")
    kind: Any = type(step)
    optimizer: Optimizer = kind([group for group in groups if group["params"]])  # a group holds every option
    for name, value in shared.items():
        state = {key: _expanded(part, value, copies[name]) for key, part in step.state.get(value, {}).items()}
        if state:
            optimizer.state[copies[name]] = state
    return optimizer


def _expanded(part: Any, value: Tensor, copy: Tensor) -> Any:
    if not isinstance(part, Tensor):
        return part
    return part.expand_as(copy).clone() if part.shape == value.shape else part.clone()


def _clipped(gradients: Sequence[Tensor | None], max_norm: float | None) -> list[Tensor | None]:
    """Clip each candidate's gradient, `[K, *shape]` for every parameter."""
    present = [gradient for gradient in gradients if gradient is not None]
    if max_norm is None or not present:
        return list(gradients)
    norms = torch.stack([gradient.flatten(1).square().sum(1) for gradient in present]).sum(0).sqrt()
    factors = (max_norm / (norms + 1e-6)).clamp(max=1.0)
    return [None if one is None else one * factors.view(-1, *[1] * (one.ndim - 1)) for one in gradients]
