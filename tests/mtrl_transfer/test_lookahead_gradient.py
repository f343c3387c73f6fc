"""The gradient at the end of the full set's step, against literal lookahead in float64."""

import pytest
import torch

from mtrl_transfer import LookaheadGradient, Transference, candidates, gramian, make_context, per_task_gradients

STEP = torch.tensor(0.3).double()
FULL = torch.full((4,), 0.25).double()


@pytest.fixture
def seen(problem):
    """Gramian, context, and the model of the losses."""
    grads = per_task_gradients(batch=problem.batch, **problem.form("mapped"))
    gram = gramian(grads.shared_grads)
    length = (FULL @ gram @ FULL).sqrt() * STEP
    context = make_context(
        batch=problem.batch, grads=grads, lookahead_batch=problem.held_out, step_norm=length, **problem.form("mapped")
    )
    return gram, context, LookaheadGradient()(context, gram, candidates.full(4).double(), STEP)


def true_decrease(context, rows):
    table = context.lookahead(torch.cat([torch.zeros_like(rows[:1]), rows]), STEP)
    return table[0] - table[1:]


def test_exact_at_the_full_set_and_at_no_step(seen):
    _, context, losses = seen
    rows = torch.stack([FULL, torch.zeros_like(FULL)])
    torch.testing.assert_close(losses.decrease(rows), true_decrease(context, rows))


def test_error_falls_with_the_square_of_the_distance(seen):
    _, context, losses = seen
    away = torch.randn(6, 4, generator=torch.Generator().manual_seed(0)).double()
    errors = []
    for distance in (1e-2, 1e-3):
        rows = FULL + distance * away
        errors.append((losses.decrease(rows) - true_decrease(context, rows)).abs().max())
    assert 80 < errors[0] / errors[1] < 120


def test_slope_at_the_full_set_is_the_literal_one(seen):
    _, context, losses = seen
    rows = FULL + 1e-6 * torch.cat([torch.eye(4), -torch.eye(4)]).double()
    literal, found = (decrease[:4] - decrease[4:] for decrease in (true_decrease(context, rows), losses.decrease(rows)))
    torch.testing.assert_close(found, literal, rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("family", ["leave_one_out", "power_set"])
def test_orders_candidates_as_exact_lookahead_does(seen, family):
    gram, context, _ = seen
    scores = []
    for measure in ("exact", "lookahead_gradient"):
        combiner = Transference(measure=measure, candidates=family)
        combiner(gram, context)
        scores.append(combiner.last.scores)
    assert torch.corrcoef(torch.stack(scores))[0, 1] > 0.9


def test_best_weights_keep_to_the_norm_and_gain(seen):
    gram, context, _ = seen
    combiner = Transference(measure="lookahead_gradient", candidates="weights")
    weights = combiner(gram, context)
    assert (weights >= 0).all()
    assert weights @ gram @ weights <= (FULL @ gram @ FULL) * (1 + 1e-9)
    gains = (true_decrease(context, torch.stack([FULL, weights])) / context.lookahead(torch.zeros(1, 4).double())).sum(
        1
    )
    assert gains[1] > gains[0]
