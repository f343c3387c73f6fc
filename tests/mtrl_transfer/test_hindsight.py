"""The last step, judged by the next batch."""

from __future__ import annotations

import copy

import pytest
import torch

from mtrl_transfer import FunctionalModel, Hindsight, Transference, Update, combine, make_context, per_task_gradients
from mtrl_transfer.candidates import leave_one_out
from mtrl_transfer.context import Context, FunctionLookahead

FULL = torch.full((4,), 0.25).double()
OPTIMIZERS = {
    "SGD": lambda parameters: torch.optim.SGD(parameters, lr=0.1, momentum=0.5, nesterov=True),
    "Adam": lambda parameters: torch.optim.Adam(parameters, lr=0.02),
    "AdamW": lambda parameters: torch.optim.AdamW(parameters, lr=0.02, amsgrad=True, maximize=False),
}


def after_step(problem, optimizer, grads, weights):
    """Copies of problem and optimizer after a real step of the trunk along `weights`."""
    problem, optimizer = copy.deepcopy((problem, optimizer))
    for name, gradient in combine(grads, weights).items():
        problem.shared[name].grad = gradient
    optimizer.step()
    return problem, optimizer


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_slopes_are_derivatives_through_the_last_step(problem, kind):
    optimizer = OPTIMIZERS[kind](problem.model.trunk.parameters())
    for _ in range(100):  # moments that one gradient changes little
        optimizer.zero_grad()
        problem.losses(problem.batch).mean().backward()
        optimizer.step()
    last = per_task_gradients(batch=problem.batch, **problem.form("mapped")).shared_grads

    def next_losses(weights):
        there, _ = after_step(problem, optimizer, last, weights)
        return there.losses(problem.held_out).detach()

    units = 1e-4 * torch.eye(4).double()
    expected = torch.stack([(next_losses(FULL + unit) - next_losses(FULL - unit)) / 2e-4 for unit in units], dim=1)
    there, theirs = after_step(problem, optimizer, last, FULL)
    grads = per_task_gradients(batch=there.held_out, **there.form("mapped"))
    lookahead = make_context(
        **there.form("mapped"), batch=there.held_out, grads=grads, optimizer=theirs, last=last
    ).lookahead
    tolerance = 1e-6 if kind == "SGD" else 0.02  # Adam's leave the change of its second moment out
    limits = {"rtol": tolerance, "atol": tolerance * expected.abs().max()}
    torch.testing.assert_close(lookahead.slopes_of_last_step(None), expected, **limits)


def test_slopes_of_a_gradient_step_are_inner_products(problem):
    last = per_task_gradients(batch=problem.batch, **problem.form("mapped")).shared_grads
    grads = per_task_gradients(batch=problem.held_out, **problem.form("mapped"))
    given = {**problem.form("mapped"), "batch": problem.held_out, "grads": grads}
    flat = [torch.cat([one[name].flatten(1) for name in last], dim=1) for one in (grads.shared_grads, last)]
    found = make_context(**given, last=last).lookahead.slopes_of_last_step(torch.tensor(0.3))
    torch.testing.assert_close(found, -0.3 * flat[0] @ flat[1].T)
    assert make_context(**given).lookahead.slopes_of_last_step(torch.tensor(0.3)) is None


def test_smoothing_forgets_and_starts_without_bias():
    measure, seen = Hindsight(step_size=0.1, smoothing=0.5), []

    def slopes(step_size):
        return seen[-1]

    context = Context(losses=torch.ones(2), lookahead=FunctionLookahead(None, slopes_of_last_step=slopes))
    for value, expected in ((None, 0.0), (3.0, 3.0), (9.0, 7.0), (float("nan"), 7.0)):
        seen.append(None if value is None else torch.full((2, 2), value))
        found = measure(context, torch.eye(2), torch.ones(1, 2), torch.tensor(0.1))
        torch.testing.assert_close(found.slope, torch.full((2, 2), expected))


def test_errors_of_leads_are_those_of_a_weighted_mean():
    measure, seen = Hindsight(step_size=0.1, smoothing=0.8), []
    context = Context(losses=torch.ones(3), lookahead=FunctionLookahead(None, slopes_of_last_step=lambda _: seen[-1]))
    for slopes in torch.randn(12, 3, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64):
        seen.append(slopes)
        found = measure(context, torch.eye(3).double(), torch.ones(1, 3), torch.tensor(0.1))
    rows, divisor = leave_one_out(3).double(), torch.tensor([2.0, 0.0, 0.5]).double()
    share = 0.8 ** torch.arange(12).flip(0)
    share = (share / share.sum()).double()
    leads = torch.stack(seen) @ (rows - rows[0]).T  # [update, receiver, candidate]
    spread = (share[:, None, None] * (leads - torch.tensordot(share, leads, 1)).square()).sum(0)
    of_mean = spread * share.square().sum() / (1 - share.square().sum())
    expected = (of_mean[[0, 2]] / divisor[[0, 2], None].square()).sum(0).sqrt()  # a task of divisor 0 does not count
    torch.testing.assert_close(found.lead_errors(rows, divisor), expected)


@pytest.mark.parametrize("harm", [0.0, 0.05])
def test_significant_leads_need_no_forward(harm):
    """The only lookahead is at the last step: by chance nobody is left out, and a task that harms all others is."""
    draw = torch.Generator().manual_seed(0)

    def slopes(step_size):
        found = 0.1 * torch.randn(4, 4, generator=draw)
        found[:, 3] += harm
        return found

    combiner = Transference(measure=Hindsight(step_size=0.1), selector={"name": "significant", "z": 4})
    context = Context(losses=torch.ones(4), lookahead=FunctionLookahead(None, slopes_of_last_step=slopes))
    for _ in range(200):
        weights = combiner.weigh(torch.eye(4), context)
        combiner.calls += 1
    assert (weights == 0).tolist() == [False, False, False, harm > 0]


def update_of(problem, combiner):
    heads = {name: torch.nn.Parameter(value.clone()) for name, value in problem.heads.items()}
    form = {**problem.form("expanded"), "heads": heads}
    optimizer = torch.optim.Adam([*form["shared"].values(), *heads.values()], lr=0.01)
    return Update(FunctionalModel(**form), optimizer, combiner)


def batches(n_updates, noisy):
    """Random inputs with fixed targets, those of task 0 random numbers if `noisy`."""
    draw = torch.Generator().manual_seed(0)
    for _ in range(n_updates):
        x = torch.randn(4, 20, 5, generator=draw, dtype=torch.float64)
        y = x.sum(-1).sin()
        if noisy:
            y[0] = 3 * torch.randn(20, generator=draw, dtype=torch.float64)
        yield x, y


def test_a_task_of_noise_is_left_out(problem):
    update = update_of(problem, Transference(measure=Hindsight(step_size="optimizer")))
    for batch in batches(300, noisy=True):
        update.step(batch)
    kept = update.kept / update.n_combined
    assert kept[0] < 0.5 < kept[1:].min(), kept


@pytest.mark.parametrize("candidates", ["leave_one_out", "weights"])
def test_resuming_keeps_the_last_gradients(problem, candidates):
    whole = update_of(problem, Transference(candidates=candidates, measure="hindsight"))
    given = list(batches(8, noisy=True))
    for batch in given[:4]:
        whole.step(batch)
    resumed = copy.deepcopy(whole)
    resumed.last_gradients, resumed.combiner = None, Transference(candidates=candidates, measure="hindsight")
    resumed.load_state_dict(whole.state_dict())
    for batch in given[4:]:
        whole.step(batch)
        resumed.step(batch)
        assert torch.equal(whole.weights, resumed.weights)
    assert all(map(torch.equal, whole.model.trunk.values(), resumed.model.trunk.values()))


def test_an_optimizer_that_begins_anew_has_no_last_step(problem):
    update = update_of(problem, Transference(measure="hindsight"))
    for batch in batches(2, noisy=False):
        update.step(batch)
    update.optimizer.state.clear()
    slopes = update.combiner.measure.state["slopes"].clone()
    for batch in batches(1, noisy=False):
        update.step(batch)
    torch.testing.assert_close(update.combiner.measure.state["slopes"], 0.99 * slopes)


def test_a_measurement_every_few_updates_is_refused():
    with pytest.raises(ValueError, match="every=2 does not go with measure='hindsight'"):
        Transference(measure="hindsight", every=2)
    with pytest.raises(ValueError, match="rows=8"):
        Hindsight(rows=8)
