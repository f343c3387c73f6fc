import copy

import pytest
import torch

from mtrl_transfer import Transference, combine, gramian, make_context, per_task_gradients
from mtrl_transfer.optimizer_step import functional_step

OPTIMIZERS = {
    "sgd": (torch.optim.SGD, {"lr": 0.1}),
    "momentum": (torch.optim.SGD, {"lr": 0.1, "momentum": 0.9, "dampening": 0.3, "weight_decay": 0.05}),
    "nesterov": (torch.optim.SGD, {"lr": 0.1, "momentum": 0.9, "nesterov": True, "maximize": True}),
    "adam": (torch.optim.Adam, {"lr": 0.01}),
    "adam decay": (torch.optim.Adam, {"lr": 0.01, "weight_decay": 0.1, "betas": (0.8, 0.9), "eps": 1e-3}),
    "amsgrad": (torch.optim.Adam, {"lr": 0.01, "amsgrad": True, "maximize": True}),
    "adamw": (torch.optim.AdamW, {"lr": 0.01, "weight_decay": 0.3}),
    "fused": (torch.optim.Adam, {"lr": 0.01, "fused": True}),
}


@pytest.mark.parametrize("n_before", [0, 3])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_equals_a_really_stepped_copy(name, n_before):
    kind, options = OPTIMIZERS[name]
    draw = torch.Generator().manual_seed(0)
    module = torch.nn.Linear(3, 2).double()
    optimizer = kind(module.parameters(), **options)
    grads = {k: torch.randn(n_before + 2, *v.shape, generator=draw).double() for k, v in module.named_parameters()}

    def really_step(module, optimizer, row):
        for key, parameter in module.named_parameters():
            parameter.grad = grads[key][row].clone()
        optimizer.step()

    for row in range(n_before):
        really_step(module, optimizer, row)
    before = copy.deepcopy((module.state_dict(), optimizer.state_dict()))
    found = functional_step(optimizer, dict(module.named_parameters()), {k: g[n_before:] for k, g in grads.items()})
    torch.testing.assert_close((module.state_dict(), optimizer.state_dict()), before, rtol=0, atol=0)
    for row in range(2):
        stepped, its_optimizer = copy.deepcopy((module, optimizer))
        really_step(stepped, its_optimizer, n_before + row)
        for key, parameter in stepped.named_parameters():
            torch.testing.assert_close(found[key][row], parameter.detach())


@pytest.mark.parametrize("kind", [torch.optim.Adam, torch.optim.AdamW])
def test_groups_need_not_tell_how_weights_decay(kind):
    """They do not before torch 2.7."""
    weight = torch.nn.Parameter(torch.ones(3))
    optimizer = kind([weight], lr=0.1, weight_decay=0.5)
    grads = {"weight": torch.ones(1, 3)}
    expected = functional_step(optimizer, {"weight": weight}, grads)
    optimizer.param_groups[0].pop("decoupled_weight_decay", None)
    torch.testing.assert_close(functional_step(optimizer, {"weight": weight}, grads), expected)


def test_lookahead_by_the_optimizer(problem):
    optimizer = torch.optim.Adam(problem.model.trunk.parameters(), lr=0.01)
    for _ in range(2):
        optimizer.zero_grad()
        problem.losses(problem.batch).mean().backward()
        optimizer.step()
    grads = per_task_gradients(batch=problem.batch, **problem.form("mapped"))
    context = make_context(
        batch=problem.batch,
        grads=grads,
        lookahead_batch=problem.held_out,
        optimizer=optimizer,
        **problem.form("mapped"),
    )
    combiner = Transference(measure={"step_size": "optimizer"})
    combiner(gramian(grads.shared_grads), context)
    before = problem.losses(problem.held_out)
    expected = []
    for row in combiner.last.candidates:
        model, its_optimizer = copy.deepcopy((problem.model, optimizer))
        step = combine(grads.shared_grads, row)
        for name, parameter in model.trunk.named_parameters():
            parameter.grad = step[name]
        its_optimizer.step()
        expected.append(1 - problem.losses(problem.held_out, model) / before)
    torch.testing.assert_close(combiner.last.transference, torch.stack(expected).detach(), rtol=1e-9, atol=1e-11)


def test_errors(problem):
    shared = problem.shared
    grads = {name: value[None] for name, value in shared.items()}
    with pytest.raises(ValueError, match="knows SGD, Adam, AdamW, not RMSprop"):
        functional_step(torch.optim.RMSprop(shared.values()), shared, grads)
    with pytest.raises(ValueError, match=r"shared\['0.bias'\] is not a parameter of the optimizer"):
        functional_step(torch.optim.SGD([shared["0.weight"]]), shared, grads)
