"""The step that a torch optimizer would take, without taking it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from mtrl_transfer import scales
from mtrl_transfer.tasks import Shared

Rule = Callable[[Tensor, Tensor, dict[str, Any], dict[str, Any]], Tensor]
"""A function of a parameter's value and gradient, and of its group and state in the optimizer."""
SUPPORTED = (torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW)


def functional_step(optimizer: torch.optim.Optimizer, shared: Shared, grads: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the shared parameters after `optimizer.step()`, for K gradients at once; nothing is changed.

    The optimizer's live state (momentum, moments, number of steps) is read, not written.

    Args:
        optimizer: SGD (with momentum), Adam or AdamW.
        shared: the very parameters that the optimizer holds, by name.
        grads: `[K, *shape]` for every shared parameter.

    Returns:
        `[K, *shape]` for every shared parameter.

    Raises:
        ValueError: for another optimizer, or a parameter that it does not hold.
    """
    return _by_gradient(_sgd, _adam, optimizer, shared, grads)


def functional_step_and_slope(
    optimizer: torch.optim.Optimizer, shared: Shared, grads: Mapping[str, Tensor]
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return the shared parameters after `optimizer.step()`, and the derivative of each number by its own gradient.

    Arguments and errors are those of `functional_step`, but for one gradient, `[*shape]` for every parameter.
    """
    moved = functional_step(optimizer, shared, {name: grad[None] for name, grad in grads.items()})
    slopes = _by_gradient(_sgd_slope_at, _adam_slope, optimizer, shared, grads)
    return {name: value[0] for name, value in moved.items()}, slopes


@torch.no_grad()
def optimizer_slope(optimizer: torch.optim.Optimizer, shared: Shared) -> dict[str, Tensor]:
    """Return the derivative of every number by its gradient in the step that was taken last.

    Of Adam, with the change of `√v` by the gradient left out, which is of order `1 − β₂`:
    `−rate (1 − β₁) / (√v + ε)`; 0 if it has taken none. Arguments and errors are those of `functional_step`.
    """
    slope = _sgd_slope if isinstance(optimizer, torch.optim.SGD) else _adam_slope_after
    return {name: slope(*own) for name, own in _held(optimizer, shared).items()}


@torch.no_grad()
def _by_gradient(
    of_sgd: Rule, of_adam: Rule, optimizer: torch.optim.Optimizer, shared: Shared, grads: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Apply the rule of the optimizer's kind to every parameter; `maximize` turns the gradient round."""
    rule = of_sgd if isinstance(optimizer, torch.optim.SGD) else of_adam
    return {
        name: rule(value, -grads[name] if group["maximize"] else grads[name], group, state)
        for name, (value, group, state) in _held(optimizer, shared).items()
    }


def _held(optimizer: torch.optim.Optimizer, shared: Shared) -> dict[str, tuple[Tensor, dict[str, Any], dict[str, Any]]]:
    """Return the value of every parameter, and its group and state in the optimizer."""
    if type(optimizer) not in SUPPORTED:
        known = ", ".join(kind.__name__ for kind in SUPPORTED)
        raise ValueError(f"functional_step knows {known}, not {type(optimizer).__name__}")
    groups = {id(parameter): group for group in optimizer.param_groups for parameter in group["params"]}
    decouples = isinstance(optimizer, torch.optim.AdamW)  # groups tell themselves only in newer versions of torch
    for name, value in shared.items():
        if id(value) not in groups:
            raise ValueError(f"shared[{name!r}] is not a parameter of the optimizer")
    return {
        name: (
            value.detach(),
            {"decoupled_weight_decay": decouples, **groups[id(value)]},
            optimizer.state.get(value, {}),
        )
        for name, value in shared.items()
    }


def _sgd(value: Tensor, grad: Tensor, group: dict[str, Any], state: dict[str, Any]) -> Tensor:
    grad = grad + group["weight_decay"] * value
    if group["momentum"]:
        momentum = state.get("momentum_buffer")
        velocity = grad if momentum is None else group["momentum"] * momentum + (1 - group["dampening"]) * grad
        grad = grad + group["momentum"] * velocity if group["nesterov"] else velocity
    return value - group["lr"] * grad


def _sgd_slope_at(value: Tensor, grad: Tensor, group: dict[str, Any], state: dict[str, Any]) -> Tensor:
    return _sgd_slope(value, group, state)


def _sgd_slope(value: Tensor, group: dict[str, Any], state: dict[str, Any]) -> Tensor:
    velocity = 1.0 if state.get("momentum_buffer") is None else 1 - group["dampening"]
    slope = 1 + group["momentum"] * velocity if group["nesterov"] else velocity
    return torch.full_like(value, -group["lr"] * (-slope if group["maximize"] else slope))


def _adam(value: Tensor, grad: Tensor, group: dict[str, Any], state: dict[str, Any]) -> Tensor:
    mean, square, eps, rate = _moments(value, grad, group, state)
    if group["decoupled_weight_decay"]:
        value = value * (1 - group["lr"] * group["weight_decay"])
    # Few passes, in place: all of it is as large as K sets of parameters.
    return mean.div_(square.sqrt_().add_(eps)).mul_(-rate).add_(value)


def _adam_slope(value: Tensor, grad: Tensor, group: dict[str, Any], state: dict[str, Any]) -> Tensor:
    """`∂θ/∂g = −rate · ((1 − β₁) − m ∂√v/∂g / (√v + ε)) / (√v + ε)`, with `∂√v/∂g = (1 − β₂) g / √v`."""
    beta_1, beta_2 = group["betas"]
    mean, square, eps, rate = _moments(value, grad, group, state)
    if not group["decoupled_weight_decay"]:
        grad = grad + group["weight_decay"] * value
    root = square.sqrt()
    bent = scales.divide((1 - beta_2) * grad, root)
    if group["amsgrad"] and "max_exp_avg_sq" in state:
        bent = torch.where(square > state["max_exp_avg_sq"], bent, 0)
    spread = root.add_(eps)
    slope = mean.mul_(bent).div_(spread).neg_().add_(1 - beta_1).div_(spread).mul_(-rate)
    return -slope if group["maximize"] else slope


def _adam_slope_after(value: Tensor, group: dict[str, Any], state: dict[str, Any]) -> Tensor:
    if not state:
        return torch.zeros_like(value)
    beta_1, beta_2 = group["betas"]
    steps = torch.as_tensor(state["step"], dtype=torch.float64)
    square = state["max_exp_avg_sq" if group["amsgrad"] else "exp_avg_sq"]
    root = (square / _beside(value, 1 - beta_2**steps)).sqrt_().add_(group["eps"])
    rate = _beside(value, group["lr"] * (1 - beta_1) / (1 - beta_1**steps))
    return (rate if group["maximize"] else -rate) / root


def _moments(
    value: Tensor, grad: Tensor, group: dict[str, Any], state: dict[str, Any]
) -> tuple[Tensor, Tensor, Tensor | float, Tensor | float]:
    """Both moments after a gradient, and the `eps` and learning rate that stand beside them without their biases."""
    beta_1, beta_2 = group["betas"]
    if not group["decoupled_weight_decay"]:
        grad = grad + group["weight_decay"] * value
    steps = torch.as_tensor(state.get("step", 0), dtype=torch.float64) + 1  # 1 - beta ** steps cancels in float32
    mean_bias, square_bias = 1 - beta_1**steps, (1 - beta_2**steps).sqrt()
    first, second = (state[name] if state else torch.zeros_like(value) for name in ("exp_avg", "exp_avg_sq"))
    mean = torch.add(beta_1 * first, grad, alpha=1 - beta_1)
    square = torch.addcmul(beta_2 * second, grad, grad, value=1 - beta_2)
    if group["amsgrad"] and "max_exp_avg_sq" in state:
        square = torch.maximum(square, state["max_exp_avg_sq"])
    return mean, square, _beside(mean, group["eps"] * square_bias), _beside(mean, group["lr"] * square_bias / mean_bias)


def _beside(values: Tensor, number: Tensor) -> Tensor | float:
    """A `[]` tensor for use with others; one that the host holds is a plain number, and no copy to wait for."""
    return number.to(values) if number.device == values.device else float(number)
