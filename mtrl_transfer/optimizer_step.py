"""The step that a torch optimizer would take, without taking it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from mtrl_transfer.tasks import Shared

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
    if type(optimizer) not in SUPPORTED:
        known = ", ".join(kind.__name__ for kind in SUPPORTED)
        raise ValueError(f"functional_step knows {known}, not {type(optimizer).__name__}")
    groups = {id(parameter): group for group in optimizer.param_groups for parameter in group["params"]}
    step = _sgd if isinstance(optimizer, torch.optim.SGD) else _adam
    decouples = isinstance(optimizer, torch.optim.AdamW)  # groups tell themselves only in newer versions of torch
    moved = {}
    with torch.no_grad():
        for name, value in shared.items():
            if id(value) not in groups:
                raise ValueError(f"shared[{name!r}] is not a parameter of the optimizer")
            group = {"decoupled_weight_decay": decouples, **groups[id(value)]}
            grad = -grads[name] if group["maximize"] else grads[name]
            moved[name] = step(value, grad, group, optimizer.state.get(value, {}))
    return moved


def _sgd(value: Tensor, grad: Tensor, group: dict[str, Any], state: dict[str, Any]) -> Tensor:
    grad = grad + group["weight_decay"] * value
    if group["momentum"]:
        momentum = state.get("momentum_buffer")
        velocity = grad if momentum is None else group["momentum"] * momentum + (1 - group["dampening"]) * grad
        grad = grad + group["momentum"] * velocity if group["nesterov"] else velocity
    return value - group["lr"] * grad


def _adam(value: Tensor, grad: Tensor, group: dict[str, Any], state: dict[str, Any]) -> Tensor:
    beta_1, beta_2 = group["betas"]
    if group["decoupled_weight_decay"]:
        value = value * (1 - group["lr"] * group["weight_decay"])
    else:
        grad = grad + group["weight_decay"] * value
    steps = torch.as_tensor(state.get("step", 0), dtype=torch.float64) + 1  # 1 - beta ** steps cancels in float32
    mean_bias, square_bias = 1 - beta_1**steps, (1 - beta_2**steps).sqrt()
    first, second = (state[name] if state else torch.zeros_like(value) for name in ("exp_avg", "exp_avg_sq"))
    mean = torch.add(beta_1 * first, grad, alpha=1 - beta_1)
    square = torch.addcmul(beta_2 * second, grad, grad, value=1 - beta_2)
    if group["amsgrad"] and "max_exp_avg_sq" in state:
        square = torch.maximum(square, state["max_exp_avg_sq"])
    # Few passes, in place: all of it is as large as K sets of parameters.
    spread = square.sqrt_().add_(_beside(square, group["eps"] * square_bias))
    return mean.div_(spread).mul_(_beside(mean, -group["lr"] * square_bias / mean_bias)).add_(value)


def _beside(values: Tensor, number: Tensor) -> Tensor | float:
    """A `[]` tensor for use with others; one that the host holds is a plain number, and no copy to wait for."""
    return number.to(values) if number.device == values.device else float(number)
