import pytest
import torch

from mtrl_transfer import (
    Context,
    Exact,
    FirstOrder,
    FunctionLookahead,
    PCGrad,
    Transference,
    candidates,
    gramian,
    make_context,
    per_task_gradients,
)
from mtrl_transfer.choosing.scales import Ratio
from mtrl_transfer.combiners.pcgrad import pcgrad_weights, random_orders

STEP_NORM = torch.tensor(0.05, dtype=torch.float64)


def context_of(problem, step_norm=STEP_NORM, **changes):
    grads = per_task_gradients(batch=problem.batch, **problem.form("mapped"))
    arguments = {"lookahead_batch": problem.held_out, "step_norm": step_norm, **changes}
    return gramian(grads.shared_grads), make_context(
        batch=problem.batch, grads=grads, **problem.form("mapped"), **arguments
    )


def linear_tasks(directions, losses=None, signed=False, step_norm=1.0):
    """Losses that are linear in `θ` with the given gradients, so that first order is exact."""
    losses = LOSSES.clone() if losses is None else losses
    gram = directions @ directions.T

    def lookahead(weights, step_size):
        return losses - step_size * weights @ gram

    return gram, Context(losses=losses, signed=signed, step_norm=torch.tensor(step_norm).double(), lookahead=lookahead)


# Task 2 harms the others, and its own loss is so large that what it gains counts little.
PLANTED = torch.tensor([[1.0, 0.2, 0.0], [0.2, 1.0, 0.0], [-4.0, -4.0, 0.1], [1.0, 1.0, 0.5]]).double()
LOSSES = torch.tensor([1.0, 1.0, 50.0, 1.0]).double()


@pytest.mark.parametrize("kwargs", [{}, {"measure": FirstOrder(held_out=False)}, {"scale": "ema"}])
def test_leaves_out_the_planted_harmful_task(kwargs):
    gram, context = linear_tasks(PLANTED, step_norm=0.1)
    combiner = Transference(**kwargs)
    weights = combiner(gram, context)
    assert weights[2] == 0
    assert combiner.members.tolist() == [True, True, False, True]
    assert combiner.last.choice == 3
    assert bool(combiner.last.fresh)


def test_decision_equals_copies_stepped_by_hand(problem):
    gram, context = context_of(problem)
    combiner = Transference(max_norm_factor=1.5)
    weights = combiner(gram, context)
    vectors = problem.literal_gradients()
    rows = candidates.leave_one_out(4).double()
    norms = (rows @ vectors).norm(dim=1)
    rows = rows * (norms[0] / norms).clamp(max=1.5)[:, None]
    step = (STEP_NORM / norms[0]).item()
    before = problem.losses(problem.held_out)
    table = torch.stack([1 - problem.losses(problem.held_out, problem.stepped(row, step)) / before for row in rows])
    torch.testing.assert_close(combiner.last.candidates, rows)
    torch.testing.assert_close(combiner.last.transference, table.detach(), rtol=1e-7, atol=1e-9)
    torch.testing.assert_close(combiner.last.scores, table.sum(1).detach(), rtol=1e-7, atol=1e-9)
    torch.testing.assert_close(weights, rows[table.sum(1).argmax()])
    torch.testing.assert_close(combiner.last.losses, before.detach())
    torch.testing.assert_close(combiner.last.step_size, torch.tensor(step).double())


def test_fixed_step_and_no_norm_matching(problem):
    gram, context = context_of(problem)
    combiner = Transference(candidates="pairs", measure=Exact(step_size=0.02), max_norm_factor=None)
    combiner(gram, context)
    rows = torch.cat([candidates.full(4), candidates.pairs(4)]).double()
    before = problem.losses(problem.held_out)
    table = torch.stack([1 - problem.losses(problem.held_out, problem.stepped(row, 0.02)) / before for row in rows])
    torch.testing.assert_close(combiner.last.candidates, rows)
    torch.testing.assert_close(combiner.last.transference, table.detach(), rtol=1e-7, atol=1e-9)


def test_full_set_comes_first_and_once():
    gram, context = linear_tasks(PLANTED)
    for family, n_rows in (("power_set", 15), ("leave_one_out", 5), ("singletons", 5), ("full", 1)):
        combiner = Transference(candidates=family, max_norm_factor=None)
        combiner(gram, context)
        rows = combiner.last.candidates
        assert rows.shape == (n_rows, 4)
        assert torch.equal(rows[:1], candidates.full(4).double())
        assert len(rows.unique(dim=0)) == n_rows


@pytest.mark.parametrize("inner", [None, "pcgrad"])
def test_full_set_until_there_was_a_step(inner):
    gram, context = linear_tasks(PLANTED, step_norm=0.0)
    combiner = Transference(inner=inner)
    weights = combiner(gram, context)
    assert combiner.last.choice == 0
    assert combiner.members.all()
    expected = PCGrad()(gram) if inner else torch.full((4,), 0.25).double()
    torch.testing.assert_close(weights, expected, rtol=0, atol=0)


def test_a_lookahead_that_overflows_is_not_chosen():
    gram, context = linear_tasks(PLANTED)
    inner = context.lookahead

    def lookahead(weights, step_size):
        losses = inner(weights, step_size)
        losses[4, 0], losses[1, 1] = torch.nan, torch.inf
        return losses

    context.lookahead = FunctionLookahead(lookahead)
    combiner = Transference()
    combiner(gram, context)
    assert combiner.last.scores[3].isnan()
    assert combiner.last.choice in (1, 2, 4)
    for _ in range(3):
        assert combiner(gram, context).isfinite().all()


def test_pcgrad_inside_each_subset(gradients):
    vectors = gradients(3, n_tasks=4, size=3)
    gram, context = linear_tasks(vectors)
    combiner = Transference(inner="pcgrad", max_norm_factor=None)
    combiner(gram, context)
    alone = PCGrad()
    torch.testing.assert_close(combiner.last.candidates[0], alone(gram), rtol=0, atol=0)
    members = candidates.leave_one_out(4) != 0
    orders = random_orders(4, torch.Generator().manual_seed(PCGrad.default_seed))
    torch.testing.assert_close(combiner.last.candidates, pcgrad_weights(gram, orders, members))
    combiner = Transference(inner="pcgrad", max_norm_factor=10.0)
    combiner(gram, context)
    norms = (combiner.last.candidates @ vectors).norm(dim=1)
    torch.testing.assert_close(norms, norms[:1].expand(5))


def test_between_measurements_the_choice_is_reused_without_gradients():
    gram, context = linear_tasks(PLANTED)
    calls = []
    inner = context.lookahead

    def lookahead(weights, step_size):
        calls.append(len(weights))
        return inner(weights, step_size)

    context.lookahead = FunctionLookahead(lookahead)
    asked, told = Transference(every=3), Transference(every=3)
    assert told.reuse() is None
    first = asked(gram, context)
    assert torch.equal(told(gram, context), first)
    for factor in (1.0, 9.0):
        assert not asked.due
        assert torch.equal(asked(gram * factor, context), first)
        assert torch.equal(told.reuse(), first)
        assert not asked.last.fresh
    assert calls == [6, 6]
    assert asked.due
    assert told.reuse() is None
    for name, value in asked.state_dict().items():
        assert torch.equal(value, told.state_dict()[name])
    asked(gram, context)
    assert calls == [6, 6, 6]


def test_weights_that_depend_on_gradients_are_not_reused():
    gram, context = linear_tasks(PLANTED)
    combiner = Transference(every=3, inner="pcgrad")
    combiner(gram, context)
    assert not combiner.due
    assert combiner.reuse() is None


def test_first_order_on_held_out_rows(problem):
    gram, context = context_of(problem)
    combiner = Transference(measure="first_order", max_norm_factor=None)
    combiner(gram, context)
    held_out = per_task_gradients(batch=problem.held_out, **problem.form("mapped"))
    own = per_task_gradients(batch=problem.batch, **problem.form("mapped"))
    cross = gramian(own.shared_grads, held_out.shared_grads)
    step = STEP_NORM / (problem.literal_gradients().mean(0)).norm()
    expected = step * candidates.leave_one_out(4).double() @ cross / own.losses
    torch.testing.assert_close(combiner.last.transference, expected)


@pytest.mark.parametrize("scale", ["ratio", "ema"])
def test_first_order_and_exact_agree_for_short_steps(problem, scale):
    gram, context = context_of(problem, step_norm=torch.tensor(1e-6).double(), lookahead_batch=None)
    tables = []
    for measure in ("exact", "first_order"):
        combiner = Transference(measure={"name": measure, "held_out": False}, scale=scale)
        combiner(gram, context)
        tables.append(combiner.last.transference)
    torch.testing.assert_close(tables[0], tables[1], rtol=1e-3, atol=1e-3 * tables[1].abs().max().item())


@pytest.mark.parametrize("first", [0.0, float("nan")])
def test_a_running_mean_begins_with_the_first_value_there_is(first):
    scale = Ratio()
    scale.running_mean(torch.tensor([first, 1.0]))
    torch.testing.assert_close(scale.running_mean(torch.tensor([2.0, 2.0])), torch.tensor([2.0, 1.01]))


def test_ratio_is_floored_at_a_fraction_of_its_running_mean():
    losses = torch.ones(4).double()
    gram, context = linear_tasks(PLANTED, losses)
    combiner = Transference(scale="ratio")
    combiner(gram, context)
    losses[0] = 1e-9
    combiner(gram, context)
    running = 0.99 + 0.01 * 1e-9
    torch.testing.assert_close(combiner.last.divisor, torch.tensor([0.1 * running, 1, 1, 1]).double())
    decrease = combiner.last.step_size * combiner.last.candidates @ gram
    torch.testing.assert_close(combiner.last.transference, decrease / combiner.last.divisor, rtol=1e-6, atol=1e-9)


def test_ema_is_the_running_magnitude():
    losses = torch.tensor([-2.0, 0.0, 1e-12, 3.0]).double()
    gram, context = linear_tasks(PLANTED, losses, signed=True)
    combiner = Transference()
    combiner(gram, context)
    torch.testing.assert_close(combiner.last.divisor, losses.abs())
    assert not combiner.last.transference[:, 1].any(), "a loss without magnitude says nothing"
    assert combiner.last.transference.isfinite().all()
    context.scales = torch.tensor([4.0, 4.0, 4.0, 4.0]).double()
    combiner(gram, context)
    expected = torch.where(losses == 0, 4.0, 0.99 * losses.abs() + 0.04)  # the mean begins where there is a value
    torch.testing.assert_close(combiner.last.divisor, expected)


def test_running_scale_survives_a_value_that_is_not_finite():
    losses = torch.ones(4).double()
    gram, context = linear_tasks(PLANTED, losses)
    combiner = Transference()
    losses[0] = torch.nan
    combiner(gram, context)
    losses[0] = 1.0
    for _ in range(3):
        combiner(gram, context)
    assert combiner.state_dict()["scale.ratio.divisor"].isfinite().all()


def test_kept_in_float32(problem):
    gram, context = linear_tasks(PLANTED.float(), LOSSES.float())
    weights = Transference()(gram, context)
    assert weights.dtype == torch.float32


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"candidates": "leave_one_in"}, "unknown candidates: 'leave_one_in'.*leave_one_out"),
        ({"measure": "first"}, "unknown measure.*first_order"),
        ({"scale": "rato"}, "unknown scale.*did you mean ratio"),
        ({"measure": {"heldout": True}}, "setting of measure 'exact': 'heldout'.*did you mean held_out"),
        ({"measure": 3}, "measure=3 must be a name"),
        ({"measure": {"step_size": "match"}}, "did you mean matched"),
        ({"measure": {"step_size": 0.0}}, "it must be positive"),
        ({"every": 0}, "every=0 must be a whole number of at least 1"),
        ({"measure": {"rows": 0}}, "rows=0 must be a whole number of at least 1"),
        ({"selector": {"name": "bst"}}, "unknown selector: 'bst'.*did you mean best"),
        ({"candidates": "continuous"}, "is now 'weights'"),
        ({"max_norm_factor": 0.5}, "max_norm_factor=0.5 must be a number of at least 1"),
        ({"inner": "mgda"}, "unknown inner"),
    ],
)
def test_bad_arguments(kwargs, message):
    with pytest.raises(ValueError, match=message):
        Transference(**kwargs)


def test_what_the_context_must_have():
    gram, context = linear_tasks(PLANTED)
    with pytest.raises(ValueError, match="needs a context"):
        Transference()(gram)
    with pytest.raises(ValueError, match="plain function, which gives losses of candidates"):
        Transference(measure="first_order")(gram, context)
    with pytest.raises(ValueError, match=r"needs context.lookahead"):
        Transference()(gram, Context(losses=context.losses, step_norm=context.step_norm))
    with pytest.raises(ValueError, match=r"needs context.step_norm"):
        Transference()(gram, Context(losses=context.losses, lookahead=context.lookahead))
    context.signed = True
    with pytest.raises(ValueError, match="scale='ratio' needs positive losses"):
        Transference(scale="ratio")(gram, context)
