"""Portfolios, smoothing, significance, and how long a task may be left out."""

import pytest
import torch
from scipy.stats import ttest_rel

from mtrl_transfer import (
    BestCandidate,
    Context,
    FunctionLookahead,
    PCGrad,
    SignificantLead,
    Transference,
    candidates,
    gramian,
    make_combiner,
    make_context,
    per_task_gradients,
)
from mtrl_transfer.choosing.measure import RowTable

VECTORS = torch.tensor([[1.0, 0.2, 0.0], [0.2, 1.0, 0.0], [-4.0, -4.0, 0.1], [1.0, 1.0, 0.5]]).double()
GRAM = VECTORS @ VECTORS.T
LOSSES = torch.tensor([1.0, 1.0, 50.0, 1.0]).double()


def context(losses=LOSSES):
    return Context(
        losses=losses,
        step_norm=torch.tensor(0.1).double(),
        lookahead=lambda weights, step: losses - step * weights @ GRAM,
    )


def test_a_portfolio_holds_what_others_propose():
    proposer = PCGrad()
    proposer.seed(5)
    combiner = Transference(
        candidates=["leave_one_out", "random_weights", proposer, [0, 3], "mean"], max_norm_factor=None
    )
    combiner(GRAM, context())
    alone = PCGrad()
    alone.seed(5)
    expected = torch.cat(
        [
            candidates.leave_one_out(4).double(),
            torch.tensor([[0.25, 0, 0, 0.25]]).double(),
            make_combiner("random_weights")(GRAM)[None],
            alone(GRAM)[None],
            candidates.full(4).double(),
        ]
    )
    torch.testing.assert_close(combiner.last.candidates, expected)
    assert combiner.last.choice == combiner.last.scores.argmax()
    torch.testing.assert_close(combiner.last.weights, expected[combiner.last.scores.argmax()])


def test_a_portfolio_is_matched_in_norm():
    combiner = Transference(candidates=["random_weights", "pcgrad"], max_norm_factor=100.0)
    combiner(GRAM, context())
    norms = (combiner.last.candidates @ VECTORS).norm(dim=1)
    torch.testing.assert_close(norms, norms[:1].expand(3))


def test_a_portfolio_continues_bit_for_bit_and_is_reseeded():
    make = lambda: Transference(candidates=["gradvac", "pcgrad", "leave_one_out"], every=2)  # noqa: E731
    combiner, loaded, reseeded = make(), make(), make()
    for _ in range(3):
        combiner(GRAM, context())
    state = combiner.state_dict()
    expected = [combiner(GRAM, context()) for _ in range(4)]
    loaded.load_state_dict(state)
    assert all(torch.equal(loaded(GRAM, context()), weights) for weights in expected)
    reseeded.seed(9)
    reseeded(GRAM, context())
    first = make()
    first(GRAM, context())
    assert not torch.equal(first.last.candidates, reseeded.last.candidates)


def test_the_step_before_a_measurement_is_asked_for():
    combiner, told = Transference(every=3), []
    for _ in range(6):
        combiner(GRAM, context())
        told.append(combiner.measures_next)
    assert told == [False, False, True] * 2
    assert not PCGrad().measures_next
    assert not make_combiner("gradnorm").measures_next  # its context holds losses, at which it does not look ahead
    within = Transference(every=3, candidates=[Transference()])  # which is asked in every call
    within(GRAM, context())
    assert within.measures_next


def test_after_step_reaches_the_portfolio():
    combiner = Transference(candidates=["famo"])
    assert combiner.needs_after_step
    assert not Transference(candidates=["pcgrad"]).needs_after_step
    for _ in range(2):
        combiner(GRAM, context())
        combiner.after_step(LOSSES * torch.tensor([0.5, 1.0, 1.0, 1.0]))
    assert combiner.state_dict()["candidate_0.logits"][0] < 0


def test_given_rows():
    rows = torch.tensor([[0.7, 0.1, 0.0, 0.2], [0.0, 1.0, 0.0, 0.0]])
    combiner = Transference(candidates=rows, max_norm_factor=None)
    combiner(GRAM, context())
    torch.testing.assert_close(combiner.last.candidates, torch.cat([candidates.full(4), rows]).double())


@pytest.mark.parametrize(("every", "max_absence"), [(1, 1), (1, 3), (2, 5)])
def test_no_task_stays_left_out_longer_than_allowed(every, max_absence):
    combiner = Transference(selector=BestCandidate(max_absence=max_absence), every=every)
    left_out = []
    for _ in range(30):
        weights = combiner(GRAM, context())
        left_out.append(bool(weights[2] == 0))
    runs = "".join("x" if out else " " for out in left_out).split()
    assert runs
    assert max(map(len, runs)) == max_absence // every * every


def test_smoothing_is_a_running_mean():
    combiner = Transference(selector={"smoothing": 0.75})
    tables = []
    for step in range(4):
        losses = LOSSES * (1 + step)
        combiner(GRAM, context(losses))
        tables.append(combiner.last.transference)
        expected = sum(0.25 * 0.75 ** (step - k) * table for k, table in enumerate(tables))
        torch.testing.assert_close(combiner.last.scores, expected.sum(1))
    assert not torch.equal(tables[0], tables[1])


def rowwise(generator, harm, rows=32):
    """Losses of single rows after a step; without `harm` all candidates are alike but for chance."""

    def row_losses(weights, step):
        effects = 0.01 * torch.randn(len(weights), 6, rows, generator=generator, dtype=torch.float64)
        effects[:, :5] -= harm * weights[:, 5, None, None]
        return 1 - effects

    lookahead = FunctionLookahead(lambda weights, step: row_losses(weights, step).mean(-1), row_losses=row_losses)
    return Context(losses=torch.ones(6).double(), step_norm=torch.tensor(0.1).double(), lookahead=lookahead)


def test_errors_of_leads_are_those_of_paired_t():
    table = torch.randn(5, 3, 20, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    divisor = torch.tensor([1.0, 0.0, 4.0]).double()
    losses = RowTable(table)
    found = losses.lead_errors(torch.empty(4, 3), divisor)
    decrease = losses.decrease(table)
    assert found[0] == 0
    for k in range(1, 4):
        squares = []
        for j in (0, 2):  # a task of divisor 0 does not count
            lead = (decrease[k, j] - decrease[0, j]).item()
            squares.append((lead / ttest_rel(table[1, j], table[1 + k, j]).statistic / divisor[j].item()) ** 2)
        assert found[k].item() == pytest.approx(sum(squares) ** 0.5)


@pytest.mark.parametrize("harm", [0.0, 0.1])
def test_chance_leaves_nobody_out_and_harm_does(harm):
    kept = {}
    for selector in ("best", {"name": "significant", "z": 3}):
        combiner, generator = Transference(selector=selector, max_norm_factor=None), torch.Generator().manual_seed(0)
        weights = [combiner(torch.eye(6).double(), rowwise(generator, harm)) for _ in range(100)]
        kept[str(selector)[:5]] = (torch.stack(weights) != 0).double().mean(0)
    best, significant = kept.values()
    if harm:
        assert significant[5] == 0
        assert (significant[:5] == 1).all()
    else:
        assert best.mean() < 0.9
        assert significant.mean() > 0.99


def test_rows_and_means_choose_alike(problem):
    grads = per_task_gradients(batch=problem.batch, **problem.form("mapped"))
    optimizer = torch.optim.Adam(problem.model.trunk.parameters(), lr=0.01)
    context = make_context(
        **problem.form("mapped"),
        batch=problem.batch,
        grads=grads,
        optimizer=optimizer,
        step_norm=torch.ones(()).double(),
    )
    for step in ("matched", "optimizer"):
        found = []
        for selector in ("best", SignificantLead(z=0)):
            combiner = Transference(measure={"step_size": step}, selector=selector)
            combiner(gramian(grads.shared_grads), context)
            found.append(combiner.last)
        torch.testing.assert_close(found[0].transference, found[1].transference)
        assert found[0].choice == found[1].choice


@pytest.mark.parametrize("measure", ["exact", "first_order", "lookahead_gradient"])
@pytest.mark.parametrize("step", ["matched", "optimizer"])
def test_a_lead_must_exceed_its_paired_t(problem, measure, step):
    if (measure, step) == ("first_order", "optimizer"):
        return
    grads = per_task_gradients(batch=problem.batch, **problem.form("mapped"))
    gram = gramian(grads.shared_grads)
    context = make_context(
        **problem.form("mapped"),
        batch=problem.batch,
        grads=grads,
        lookahead_batch=problem.held_out,
        optimizer=torch.optim.SGD(problem.model.trunk.parameters(), lr=0.3),
        step_norm=torch.tensor(0.1).double(),
    )
    best = Transference(measure={"name": measure, "step_size": step}, candidates=[[1, 2]])
    best(gram, context)
    step_size, rows = best.last.step_size, best.last.candidates
    tables = context.lookahead.row_losses(rows, 0.3 if step == "optimizer" else step_size)  # [2, T, rows]
    divisor, n_rows = best.last.divisor, tables.shape[-1]
    leads = (tables[0] - tables[1]).mean(-1) / divisor
    t = [ttest_rel(*table).statistic for table in tables.transpose(0, 1)]
    z = (leads.sum() / (leads / torch.tensor(t)).square().sum().sqrt()).item()
    assert n_rows > 2
    assert z > 0
    for bound, chosen in ((0.99 * z, 1), (1.01 * z, 0)):
        combiner = Transference(measure=best.measure, candidates=[[1, 2]], selector=SignificantLead(z=bound))
        combiner(gram, context)
        assert combiner.last.choice == chosen


def test_lookahead_defaults_to_the_matched_step(problem):
    grads = per_task_gradients(batch=problem.batch, **problem.form("mapped"))
    context = make_context(
        **problem.form("mapped"), batch=problem.batch, grads=grads, step_norm=torch.tensor(0.2).double()
    )
    weights = candidates.full(4).double()
    length = (weights @ gramian(grads.shared_grads) @ weights.T).sqrt().squeeze()
    torch.testing.assert_close(context.lookahead(weights), context.lookahead(weights, 0.2 / length))


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"candidates": ["pcgrd"]}, "unknown candidates: 'pcgrd'.*did you mean pcgrad"),
        ({"candidates": [0, 1]}, "candidates contains 0, no family.*a subset is a list"),
        ({"selector": {"smoothing": 1.0}}, "smoothing=1.0 must be"),
        ({"selector": {"name": "significant", "z": -1.0}}, "z=-1.0 must be"),
        ({"selector": {"max_absence": 2}, "every": 3}, "max_absence=2 cannot be kept"),
        ({"selector": "significant", "measure": {"rows": 1}}, "rows=1 a task gives no standard error"),
        ({"candidates": torch.ones(1, 4), "inner": "pcgrad"}, "no meaning for rows of given weights"),
    ],
)
def test_bad_options(kwargs, message):
    with pytest.raises(ValueError, match=message):
        Transference(**kwargs)


def test_a_task_alone_is_never_left_out():
    worse = Context(losses=torch.ones(1), step_norm=torch.ones(()), lookahead=lambda w, step: 1 + w.expand(-1, 1))
    assert Transference()(torch.ones(1, 1), worse) == 1


def test_no_step_is_no_candidate():
    for empty in ([[0], []], torch.tensor([[0.5, 0.5, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]])):
        with pytest.raises(ValueError, match="the step along no task is none"):
            Transference(candidates=empty)(GRAM, context())


def test_a_state_of_another_combiner_is_refused():
    with pytest.raises(ValueError, match="not the state of a Transference combiner; it has seed"):
        Transference().load_state_dict(PCGrad().state_dict())


def test_candidates_for_other_tasks():
    with pytest.raises(ValueError, match="names task 4, but tasks are numbered 0 to 3"):
        Transference(candidates=[[0, 4]])(GRAM, context())
    with pytest.raises(ValueError, match=r"candidates must be \[K, 4\]"):
        Transference(candidates=torch.ones(2, 3))(GRAM, context())
