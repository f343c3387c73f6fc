"""The update of any multi-task model against a loop written by hand."""

from __future__ import annotations

import copy
import re

import pytest
import torch
from torch import nn

from mtrl_transfer import (
    Combiner,
    Exact,
    FunctionalModel,
    Mean,
    PCGrad,
    Transference,
    Update,
    combine,
    gramian,
    make_context,
    per_task_gradients,
    step_norm,
)

COMBINERS = [
    Mean,
    PCGrad,
    Transference,
    lambda: Transference(measure="first_order"),
    lambda: Transference(measure=Exact(step_size="optimizer"), selector={"name": "best", "max_absence": 2}),
]


class Trained:
    """A fresh copy of the problem's model whose heads are parameters, in one of the library's forms."""

    def __init__(self, problem, form: str) -> None:
        self.model = copy.deepcopy(problem.model)
        arguments = problem.form(form)
        self.shared = dict(self.model.trunk.named_parameters())
        if isinstance(arguments["heads"], list):
            self.heads = [dict(head.named_parameters()) for head in self.model.heads]
            leaves = [leaf for head in self.heads for leaf in head.values()]
        else:
            self.heads = {name: nn.Parameter(value.clone()) for name, value in problem.heads.items()}
            leaves = list(self.heads.values())
        self.functions = {"task_loss": arguments["task_loss"], "losses": arguments["losses"]}
        self.parameters = [*self.shared.values(), *leaves]
        self.optimizer = torch.optim.Adam(self.parameters, lr=0.02)

    def update(self, combiner: Combiner, **options) -> Update:
        task_loss, losses = self.functions["task_loss"], self.functions["losses"]
        model = FunctionalModel(task_loss, self.shared, self.heads, losses=losses)
        return Update(model, self.optimizer, combiner, **options)


@pytest.mark.parametrize("make", COMBINERS)
def test_an_update_is_the_loop_written_by_hand(problem, form, make):
    ours, theirs, combiner = Trained(problem, form), Trained(problem, form), make()
    update, length = ours.update(make()), torch.zeros((), dtype=torch.float64)
    for _ in range(4):
        update.step(problem.batch, lambda rows, generator: problem.held_out)
        task_loss, losses = theirs.functions["task_loss"], theirs.functions["losses"]
        grads = per_task_gradients(task_loss, theirs.shared, theirs.heads, problem.batch, losses=losses)
        context = make_context(
            *(task_loss, theirs.shared, theirs.heads, problem.batch, grads),
            losses=losses,
            lookahead_batch=problem.held_out,
            step_norm=length,
            optimizer=theirs.optimizer,
        )
        for name, gradient in combine(grads.shared_grads, combiner(gramian(grads.shared_grads), context)).items():
            theirs.shared[name].grad = gradient
        heads, own = (theirs.heads, grads.head_grads) if isinstance(theirs.heads, list) else ([theirs.heads], None)
        for head, gradients in zip(heads, own or [grads.head_grads], strict=True):
            for name, gradient in gradients.items():
                head[name].grad = gradient / problem.n_tasks
        before = {name: value.detach().clone() for name, value in theirs.shared.items()}
        theirs.optimizer.step()
        length = step_norm(before, theirs.shared)
    for found, expected in zip(ours.parameters, theirs.parameters, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("make", COMBINERS)
def test_frozen_parameters_stay_and_count_nowhere(problem, form, make):
    model = Trained(problem, form)
    head = model.heads[1] if isinstance(model.heads, list) else model.heads
    frozen = {"first layer": model.shared["0.weight"], "a head": head["bias"]}
    for parameter in frozen.values():
        parameter.requires_grad_(False)
    before = [parameter.detach().clone() for parameter in model.parameters]
    update = model.update(make(), max_grad_norm=0.1)
    for _ in range(3):
        tasks, _ = update.model.gradients(problem.batch)
        update.step(problem.batch, lambda rows, generator: problem.held_out, measure=True, affinity=3)
    for parameter, value in zip(model.parameters, before, strict=True):
        assert torch.equal(parameter, value) == any(parameter is one for one in frozen.values())
    assert list(tasks.shared_grads) == [name for name in model.shared if name != "0.weight"]
    torch.testing.assert_close(update.gramian.double(), gramian(tasks.shared_grads), rtol=1e-6, atol=1e-9)


def test_lookahead_leaves_frozen_layers(problem):
    model = Trained(problem, "mapped")
    problem.model.load_state_dict(model.model.state_dict())
    model.shared["0.weight"].requires_grad_(False)
    grads = per_task_gradients(model.functions["task_loss"], model.shared, model.heads, problem.batch)
    lookahead = make_context(model.functions["task_loss"], model.shared, model.heads, problem.batch, grads).lookahead
    weights = torch.tensor([0.4, 0.1, 0.0, 0.3], dtype=torch.float64)
    stepped = problem.stepped(weights, 0.3)
    stepped.trunk[0].weight.data.copy_(model.shared["0.weight"])
    torch.testing.assert_close(lookahead(weights[None], 0.3)[0], problem.losses(problem.batch, stepped))


def test_a_frozen_trunk_trains_heads_alone(problem, form):
    mean, surgery = Trained(problem, form), Trained(problem, form)
    for model, combiner in ((mean, Mean()), (surgery, PCGrad())):
        for parameter in model.shared.values():
            parameter.requires_grad_(False)
        update = model.update(combiner)
        update.step(problem.batch, measure=True, affinity=2)
        assert update.n_combined == 0
    for found, expected in zip(surgery.parameters, mean.parameters, strict=True):
        assert torch.equal(found, expected)
    assert not torch.equal(mean.parameters[-1], Trained(problem, form).parameters[-1])


def test_a_constant_loss_of_a_listed_task_gives_zeros():
    draw = torch.Generator().manual_seed(0)
    shared = {"w": nn.Parameter(torch.randn(8, 4, generator=draw))}
    heads = [nn.Parameter(torch.randn(4, generator=draw)) for _ in range(2)]
    batch = [{"x": torch.randn(16, 8, generator=draw), "y": torch.randn(16, generator=draw)} for _ in range(2)]

    def loss(shared, head, batch):
        return ((batch["x"] @ shared["w"]) @ head - batch["y"]).square()

    def unlabelled(shared, head, batch):
        return torch.zeros(16)

    found = per_task_gradients([loss, unlabelled], shared, heads, batch)
    assert found.losses[0] > 0 == found.losses[1]
    assert found.shared_grads["w"][0].any()
    assert not found.shared_grads["w"][1].any()
    assert not found.head_grads[1].any()
    model = FunctionalModel([unlabelled, unlabelled], shared, heads)
    before = shared["w"].detach().clone()
    for combiner in (Mean(), PCGrad()):
        Update(model, torch.optim.SGD([*shared.values(), *heads], lr=0.1), combiner).step(batch)
    assert torch.equal(shared["w"], before)


@pytest.mark.parametrize("make", [Mean, PCGrad])
def test_rows_that_nobody_asks_for_are_not_drawn(problem, make):
    def draw(rows, generator):
        raise AssertionError("drew rows")

    Trained(problem, "mapped").update(make()).step(problem.batch, draw)


class Asks(Combiner):
    """A combiner of a user's own that looks ahead on rows of its choice."""

    def weigh(self, gramian, context):
        few = context.lookahead.on(3)
        self.first, self.again = few.held_out_gramian(), context.lookahead.on(3)(torch.eye(len(gramian)).double(), 0.1)
        self.own = context.lookahead.on(2, held_out=False)(torch.zeros(1, len(gramian)).double(), 0.1)
        return gramian.new_full((len(gramian),), 1 / len(gramian))


def test_an_own_combiner_asks_for_its_rows(problem):
    combiner, drawn = Asks(), []

    def draw(rows, generator):
        drawn.append(rows)
        return tuple(part[:, :rows] for part in problem.held_out)

    update = Trained(problem, "mapped").update(combiner)
    expected = problem.losses(tuple(part[:, :2] for part in problem.batch))
    update.step(problem.batch, draw)
    assert drawn == [3]  # once for both questions
    torch.testing.assert_close(combiner.own[0], expected.detach())


def test_gradients_at_the_end_of_a_step(problem, form):
    arguments = problem.form(form)
    grads = per_task_gradients(batch=problem.batch, **arguments)
    lookahead = make_context(batch=problem.batch, grads=grads, lookahead_batch=problem.held_out, **arguments).lookahead
    weights = torch.tensor([0.5, 0.1, -0.2, 0.3], dtype=torch.float64)
    found = lookahead.gradients_at(weights, 0.3)
    stepped = problem.stepped(weights, 0.3)
    losses = problem.losses(problem.held_out, stepped)
    torch.testing.assert_close(found.losses, losses.detach())
    names = [name for name, _ in stepped.trunk.named_parameters()]
    for task, loss in enumerate(losses):
        expected = torch.autograd.grad(loss, list(stepped.trunk.parameters()), retain_graph=True)
        for name, gradient in zip(names, expected, strict=True):
            torch.testing.assert_close(found.shared_grads[name][task], gradient)


def test_row_losses_are_those_of_the_mean(problem):
    arguments = problem.form("mapped")
    grads = per_task_gradients(batch=problem.batch, **arguments)
    lookahead = make_context(batch=problem.batch, grads=grads, lookahead_batch=problem.held_out, **arguments).lookahead
    weights = torch.eye(4, dtype=torch.float64)[:3]
    rows = lookahead.row_losses(weights, 0.2)
    assert rows.shape == (3, 4, 7)
    torch.testing.assert_close(rows.mean(2), lookahead(weights, 0.2))
    with pytest.raises(ValueError, match="no single rows"):
        make_context(batch=problem.batch, grads=grads, **problem.form("expanded")).lookahead.row_losses(weights, 0.2)


def test_a_saved_update_continues_alike(problem):
    def run(pause: bool) -> list[torch.Tensor]:
        model = Trained(problem, "mapped")
        update = model.update(Transference(every=2, selector={"name": "best", "smoothing": 0.5}))
        for step in range(6):
            if pause and step == 3:
                other = model.update(Transference(every=2, selector={"name": "best", "smoothing": 0.5}))
                other.load_state_dict({name: value.clone() for name, value in update.state_dict().items()})
                update = other
            update.step(problem.batch, lambda rows, generator: problem.held_out)
        return model.parameters

    for found, expected in zip(run(pause=True), run(pause=False), strict=True):
        assert torch.equal(found, expected)


@pytest.mark.parametrize(
    ("name", "value"), [("combiner", "mean"), ("combiner", Mean), ("max_grad_norm", -1.0), ("max_grad_norm", "x")]
)
def test_wrong_arguments_are_refused(problem, name, value):
    own = Trained(problem, "mapped")
    model = FunctionalModel(shared=own.shared, heads=own.heads, **own.functions)
    with pytest.raises(ValueError, match=re.escape(f"{name}={value!r} must be a")):
        Update(model, own.optimizer, **{"combiner": Mean(), name: value})
