"""A training loop of one's own, as the documentation shows it, on tasks of which one harms the others."""

import pytest
import torch

from mtrl_transfer import Transference, combine, gramian, make_context, per_task_gradients, step_norm

N_TASKS, HARMFUL = 5, 2


def losses(shared, heads, batch):
    """All tasks at once; `shared["trunk"]` comes as `[T, 8, 2]`."""
    x, y = batch
    return (torch.einsum("trf,tf->tr", torch.tanh(x @ shared["trunk"]), heads) - y).square().mean(1)


def rows(generator):
    """Tasks read the same two hidden features; the harmful one asks for noise, at ten times the scale."""
    x = torch.randn(N_TASKS, 16, 8, generator=generator)
    mixing = torch.linspace(-1, 1, N_TASKS)[:, None]
    y = torch.tanh(x[..., 0]) + mixing * torch.tanh(x[..., 1])
    y[HARMFUL] = 10 * torch.randn(16, generator=generator)
    return x, y


@pytest.mark.parametrize("kwargs", [{}, {"measure": "first_order"}])
def test_learns_and_leaves_the_harmful_task_out(kwargs):
    draw = torch.Generator().manual_seed(0)
    shared = {"trunk": torch.nn.Parameter(0.1 * torch.randn(8, 2, generator=draw))}
    heads = torch.nn.Parameter(0.1 * torch.randn(N_TASKS, 2, generator=draw))
    optimizer = torch.optim.Adam([*shared.values(), heads], lr=3e-2)
    combiner, length, left_out = Transference(**kwargs), torch.zeros(()), torch.zeros(N_TASKS)
    history = []
    for _ in range(100):
        batch = rows(draw)
        grads = per_task_gradients(None, shared, heads, batch, losses=losses)
        context = make_context(
            None, shared, heads, batch, grads, lookahead_batch=rows(draw), step_norm=length, losses=losses
        )
        weights = combiner(gramian(grads.shared_grads), context)
        for name, gradient in combine(grads.shared_grads, weights).items():
            shared[name].grad = gradient
        heads.grad = grads.head_grads / N_TASKS
        before = {name: value.detach().clone() for name, value in shared.items()}
        optimizer.step()
        length = step_norm(before, shared)
        left_out += ~combiner.members
        history.append(grads.losses)
    first, last = (torch.stack(part).mean(0) for part in (history[:10], history[-10:]))
    others = torch.arange(N_TASKS) != HARMFUL
    assert (last < 0.5 * first)[others].all()
    assert left_out.argmax() == HARMFUL
    assert left_out[HARMFUL] > 1.5 * left_out[others].max()
