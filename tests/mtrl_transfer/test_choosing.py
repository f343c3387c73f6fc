"""Portfolios, mixtures, smoothing, and how long a task may be left out."""

import numpy as np
import pytest
import torch

from mtrl_transfer import (
    BestCandidate,
    Context,
    PCGrad,
    Transference,
    candidates,
    gramian,
    make_combiner,
    make_context,
    per_task_gradients,
)
from mtrl_transfer.choosing.leads import lasting

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


def test_a_lead_is_lasting_by_the_weighted_mean_and_its_standard_error():
    generator, state, seen, told = torch.Generator().manual_seed(0), {}, [], []
    for call in range(60):
        scores = torch.randn(4, generator=generator, dtype=torch.float64) + torch.tensor([0.0, 0.4, -0.4, 0.1])
        seen.append((scores - scores[0]).numpy())
        found = lasting(state, scores, 0.9, 1.5)
        weights = 0.9 ** np.arange(call, -1, -1)
        mean = np.average(seen, axis=0, weights=weights)
        share = (weights**2).sum() / weights.sum() ** 2
        variance = np.average((seen - mean) ** 2, axis=0, weights=weights) / (1 - share) if call else np.inf
        expected = (mean > 1.5 * np.sqrt(variance * share)) & (share <= 0.1)
        expected[0] = True
        assert found.tolist() == expected.tolist()
        told.append(found.tolist())
    assert 0.1 < np.mean(told, axis=0)[1] < 1  # now and then one led, and now and then none


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("smoothing", [0.82, 0.9, 0.95, 0.98, 0.999])
def test_no_lead_is_believed_at_first(smoothing, dtype):
    state, scores = {}, torch.tensor([0.0, 1.0, -1.0], dtype=dtype)
    told = [lasting(state, scores, smoothing, 2.0).tolist() for _ in range(200)]
    assert told[:9] == [[True, False, False]] * 9
    assert told[-1] == [True, True, False]


def test_what_is_not_finite_is_no_evidence():
    generator, state = torch.Generator().manual_seed(0), {}
    for call in range(400):
        scores = torch.randn(4, generator=generator) + torch.tensor([0.0, 0.0, 3.0, -3.0])
        if call % 10:
            scores[1] = torch.nan
        if call == 50:
            scores[0] = 1e25  # a lead whose square is infinite
        before = {name: value.clone() for name, value in state.items()}
        told = lasting(state, scores, 0.9, 2.0).tolist()
        if call == 50:
            torch.testing.assert_close(state["leads"][:, 1:], before["leads"][:, 1:], rtol=0, atol=0)
        if call % 10:
            torch.testing.assert_close(state["leads"][:, 1], before["leads"][:, 1], rtol=0, atol=0)
        if call < 90:
            assert not told[1]  # of ten calls, one is known
        if call > 60:
            assert told[2:] == [True, False]


def noisy(generator, harm):
    """Losses after a step of a task that neither helps nor harms but for chance; the last harms all others."""

    def lookahead(weights, step):
        effects = 0.01 * torch.randn(6, 6, generator=generator, dtype=torch.float64)
        effects[5, :5] -= harm
        return 1 - weights @ effects

    return Context(losses=torch.ones(6).double(), step_norm=torch.tensor(0.1).double(), lookahead=lookahead)


def test_with_confidence_chance_leaves_nobody_out_and_harm_does():
    kept = {}
    for confidence in (None, 3.0):
        for harm in (0.0, 0.01):
            combiner = Transference(selector={"smoothing": 0.95, "confidence": confidence}, max_norm_factor=None)
            generator = torch.Generator().manual_seed(0)
            kept[confidence, harm] = torch.stack(
                [combiner(torch.eye(6).double(), noisy(generator, harm)) != 0 for _ in range(300)]
            ).double()
    assert kept[3.0, 0.0].mean() > 0.99
    assert kept[None, 0.0].mean() < 0.9
    assert kept[3.0, 0.01][30:, 5].mean() < 0.05
    assert kept[3.0, 0.01][:, :5].mean() > 0.99


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
        ({"candidates": ["pcgrd"]}, "unknown candidates: 'pcgrd'.*Did you mean 'pcgrad'"),
        ({"candidates": [0, 1]}, "candidates contains 0, no family.*a subset is a list"),
        ({"selector": {"smoothing": 1.0}}, "smoothing=1.0 must be"),
        ({"selector": {"smoothing": 0.9, "confidence": -1.0}}, "confidence=-1.0 must be"),
        ({"selector": {"smoothing": 0.5, "confidence": 1.0}}, "smoothing=0.5 averages 3.0 updates; it must average at"),
        ({"selector": {"confidence": 2.0}}, "confidence=2.0 is of a running mean, and smoothing=0.0 averages"),
        ({"selector": {"max_absence": 2}, "every": 3}, "max_absence=2 cannot be kept"),
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
