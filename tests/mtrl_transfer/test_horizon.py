"""Transference over a horizon, against literal loops over copied modules and their own optimizers."""

from __future__ import annotations

import copy

import pytest
import torch

from mtrl_transfer import (
    FunctionalModel,
    Horizon,
    SignificantLead,
    Transference,
    Update,
    candidates,
    gramian,
    horizon_transference,
    make_combiner,
    make_context,
    per_task_gradients,
    transference,
)

OPTIMIZERS = {
    "sgd": (torch.optim.SGD, {"lr": 0.1, "momentum": 0.9, "nesterov": True}),
    "adam": (torch.optim.Adam, {"lr": 0.02}),
    "adamw": (torch.optim.AdamW, {"lr": 0.02, "weight_decay": 0.1, "amsgrad": True}),
    "rmsprop": (torch.optim.RMSprop, {"lr": 0.02, "centered": True}),
}


def batches_of(problem, n: int):
    draw = torch.Generator().manual_seed(5)
    return [
        tuple(torch.randn(part.shape, generator=draw, dtype=part.dtype) for part in problem.batch) for _ in range(n)
    ]


def warmed_up(problem, name: str) -> torch.optim.Optimizer:
    kind, options = OPTIMIZERS[name]
    optimizer = kind(problem.model.trunk.parameters(), **options)
    for batch in batches_of(problem, 3):
        optimizer.zero_grad()
        problem.losses(batch).sum().backward()
        optimizer.step()
    optimizer.zero_grad()
    return optimizer


def literal(problem, batches, weights, optimizer, max_grad_norm=None) -> torch.Tensor:
    """One deep copy of model and optimizer for each candidate, stepped by itself."""
    before, rows = problem.losses(problem.held_out).detach(), []
    for row in weights:
        model, steps = copy.deepcopy((problem.model, optimizer))
        for batch in batches:
            steps.zero_grad()
            (row @ problem.losses(batch, model)).backward()
            if max_grad_norm is not None:
                torch.nn.utils.clip_grad_norm_(model.trunk.parameters(), max_grad_norm)
            steps.step()
        rows.append(1 - problem.losses(problem.held_out, model).detach() / before)
    return torch.stack(rows)


@pytest.mark.parametrize("max_grad_norm", [None, 0.3])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_equals_really_stepped_copies(problem, name, max_grad_norm):
    optimizer = warmed_up(problem, name)
    batches = batches_of(problem, 4)
    weights = torch.cat([candidates.leave_one_out(4), candidates.singletons(4)]).double()
    arguments = {**problem.form("mapped"), "batches": batches, "weights": weights, "step": optimizer}
    del arguments["losses"]
    found = horizon_transference(**arguments, held_out=problem.held_out, max_grad_norm=max_grad_norm)
    torch.testing.assert_close(found, literal(problem, batches, weights, optimizer, max_grad_norm))


@pytest.mark.parametrize("given", ["mapped", "list of heads", "list of losses"])
def test_each_task_alone_needs_no_other_rows(problem, given):
    """By the tasks' own losses, and among other candidates by all losses at all trunks."""
    optimizer = warmed_up(problem, "adam")
    arguments = {**problem.form(given), "batches": batches_of(problem, 4), "step": optimizer}
    del arguments["losses"]
    alone = candidates.singletons(4).double() * torch.tensor([[1.0], [2.0], [0.5], [1.0]]).double()
    more = torch.cat([alone, candidates.full(4).double()])
    found, among = (
        horizon_transference(**arguments, weights=rows, held_out=problem.held_out, max_grad_norm=0.3)
        for rows in (alone, more)
    )
    torch.testing.assert_close(found, among[:4])


@pytest.mark.parametrize("given", ["mapped", "list of heads", "list of losses"])
def test_one_gradient_step_is_transference(problem, given):
    arguments = problem.form(given)
    del arguments["losses"]
    weights = candidates.power_set(4).double()
    found = horizon_transference(
        **arguments, batches=[problem.batch], weights=weights, step=0.3, held_out=problem.held_out
    )
    expected = transference(
        **arguments, batch=problem.batch, weights=weights, step_size=0.3, lookahead_batch=problem.held_out
    )
    torch.testing.assert_close(found, expected)


def test_nothing_is_changed(problem):
    optimizer = warmed_up(problem, "adam")
    before = copy.deepcopy((problem.model.state_dict(), optimizer.state_dict(), torch.get_rng_state()))
    arguments = {**problem.form("mapped"), "batches": batches_of(problem, 2), "step": optimizer}
    del arguments["losses"]
    horizon_transference(**arguments, weights=candidates.singletons(4).double(), held_out=problem.held_out)
    after = (problem.model.state_dict(), optimizer.state_dict(), torch.get_rng_state())
    torch.testing.assert_close(after, before, rtol=0, atol=0)
    assert all(parameter.grad is None for parameter in problem.model.trunk.parameters())


def test_a_divisor_replaces_the_loss_before(problem):
    arguments = {**problem.form("mapped"), "batches": batches_of(problem, 2), "step": 0.1}
    del arguments["losses"]
    arguments |= {"weights": candidates.full(4).double(), "held_out": problem.held_out}
    by_ratio = horizon_transference(**arguments)
    divisors = problem.losses(problem.held_out).detach()
    torch.testing.assert_close(horizon_transference(**arguments, scale=2 * divisors), by_ratio / 2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batches": []}, "at least one step"),
        ({"weights": torch.ones(4)}, r"\[K, 4\]"),
        ({"scale": "cosine"}, "'ratio' or a tensor"),
        ({"step": torch.optim.LBFGS([torch.nn.Parameter(torch.ones(1))])}, "LBFGS couples parameters"),
        ({"step": torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=1.0)}, "not a parameter of the optimizer"),
    ],
)
def test_bad_arguments_are_named(problem, change, message):
    arguments = {**problem.form("mapped"), "batches": [problem.batch], "step": 0.1}
    del arguments["losses"]
    arguments |= {"weights": candidates.full(4).double(), "held_out": problem.held_out, **change}
    with pytest.raises(ValueError, match=message):
        horizon_transference(**arguments)


def test_frozen_layers_stay_over_the_horizon(problem):
    problem.model.trunk[0].weight.requires_grad_(False)
    optimizer = torch.optim.Adam([p for p in problem.model.trunk.parameters() if p.requires_grad], lr=0.02)
    batches, weights = batches_of(problem, 3), candidates.leave_one_out(4).double()
    arguments = {**problem.form("mapped"), "batches": batches, "weights": weights, "step": optimizer}
    del arguments["losses"]
    found = horizon_transference(**arguments, held_out=problem.held_out)
    torch.testing.assert_close(found, literal(problem, batches, weights, optimizer))


def test_the_measure_equals_the_function(problem):
    optimizer, batches = warmed_up(problem, "adam"), batches_of(problem, 3)
    arguments = problem.form("mapped")
    grads = per_task_gradients(**arguments, batch=problem.batch)
    drawn = iter(batches)
    context = make_context(
        **arguments,
        batch=problem.batch,
        grads=grads,
        lookahead_batch=lambda rows: next(drawn) if rows is None else problem.held_out,
        optimizer=optimizer,
    )
    combiner = Transference(["leave_one_out", "singletons"], Horizon(steps=3))
    combiner(gramian(grads.shared_grads), context)
    del arguments["losses"]
    found = horizon_transference(
        **arguments, batches=batches, weights=combiner.last.candidates, step=optimizer, held_out=problem.held_out
    )
    torch.testing.assert_close(combiner.last.transference, found)


def test_phases_continue_bit_for_bit(problem):
    form, batches = problem.form("mapped"), batches_of(problem, 12)
    made = lambda model, optimizer: Update(  # noqa: E731
        model,
        optimizer,
        Transference(["leave_one_out", "singletons"], Horizon(steps=2), selector=SignificantLead(z=0.5), every=4),
        seed=1,
    )

    def draw(rows, generator):
        x = problem.batch[0]
        shapes = [(len(x), rows, x.shape[-1]), (len(x), rows)]
        return tuple(torch.randn(shape, generator=generator, dtype=x.dtype) for shape in shapes)

    optimizer = torch.optim.Adam(problem.model.trunk.parameters(), lr=0.02)
    whole = made(FunctionalModel(form["task_loss"], form["shared"], form["heads"]), optimizer)
    fresh = []
    for batch in batches[:6]:
        whole.step(batch, draw)
        fresh.append(whole.combiner.last.fresh)
    assert fresh == [True, False, False, False, True, False]
    continued = made(*copy.deepcopy((whole.model, whole.optimizer)))  # between two decisions
    continued.load_state_dict(whole.state_dict())
    for batch in batches[6:]:
        for one in (whole, continued):
            one.step(batch, draw)
    assert continued.combiner.last.fresh == whole.combiner.last.fresh
    for name, value in whole.model.trunk.items():
        assert torch.equal(value, continued.model.trunk[name])


def test_affinity_over_a_horizon_is_each_task_alone(problem):
    optimizer, drawn = warmed_up(problem, "adam"), [*batches_of(problem, 3), problem.held_out]
    form = problem.form("mapped")
    update = Update(FunctionalModel(form["task_loss"], form["shared"], form["heads"]), optimizer, make_combiner("mean"))
    del form["losses"]
    alone = candidates.singletons(4).double()
    expected = horizon_transference(**form, batches=drawn[:3], weights=alone, step=optimizer, held_out=problem.held_out)
    rest = iter(drawn)
    update.step(problem.batch, lambda rows, generator: next(rest), affinity=5, affinity_horizon=3)
    found = update.measurement.history.flush()
    torch.testing.assert_close(found["decrease"] / found["scale"], expected, check_dtype=False)
