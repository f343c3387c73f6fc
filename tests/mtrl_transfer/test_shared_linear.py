from __future__ import annotations

import torch

from mtrl_transfer.shared_linear import shared_linear

N, T, B, IN, OUT = 2, 3, 5, 4, 6


def parameters() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    make = lambda *shape: torch.randn(*shape, generator=generator, dtype=torch.float64)  # noqa: E731
    return make(N, T, B, IN), make(N, IN, OUT), make(N, 1, OUT)


def test_gradients_keep_the_task_axis() -> None:
    x, weight, bias = (value.requires_grad_() for value in parameters())
    expanded = [value.detach().expand(T, *value.shape).requires_grad_() for value in (weight, bias)]
    out = shared_linear(x, *expanded).tanh()
    grad_x, *grads = torch.autograd.grad(out.square().sum(), [x, *expanded])
    for task in range(T):
        loss = (torch.einsum("nbi,nio->nbo", x[:, task], weight) + bias).tanh().square().sum()
        own_x, *own = torch.autograd.grad(loss, [x, weight, bias])
        torch.testing.assert_close(grad_x[:, task], own_x[:, task])
        for grad, expected in zip(grads, own, strict=True):
            torch.testing.assert_close(grad[task], expected)


def test_one_input_for_all_networks() -> None:
    x, weight, bias = parameters()
    x = x[:1].clone().requires_grad_()
    expanded = [value.expand(T, *value.shape) for value in (weight, bias)]
    (grad,) = torch.autograd.grad(shared_linear(x, *expanded).square().sum(), x)
    (expected,) = torch.autograd.grad(shared_linear(x, weight, bias).square().sum(), x)
    torch.testing.assert_close(grad, expected)


def test_each_task_may_have_a_weight_of_its_own() -> None:
    x, weight, bias = parameters()
    weights, biases = (torch.stack([factor * value for factor in (1, -2, 3)]) for value in (weight, bias))
    out = shared_linear(x, weights.requires_grad_(), biases)
    expected = torch.stack([shared_linear(x, weights[t], biases[t])[:, t] for t in range(T)], dim=1)
    torch.testing.assert_close(out, expected)
    grads = [torch.autograd.grad(one.tanh().sum(), weights)[0] for one in (out, expected)]
    torch.testing.assert_close(*grads)
