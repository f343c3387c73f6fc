"""The gradient at the end of the full set's step, against literal lookahead in float64."""

import pytest
import torch

from mtrl_transfer import (
    Exact,
    LookaheadGradient,
    Transference,
    candidates,
    gramian,
    make_context,
    per_task_gradients,
)

STEP = torch.tensor(0.3).double()
FULL = torch.full((4,), 0.25).double()
OPTIMIZERS = {
    "matched": lambda parameters: torch.optim.SGD(parameters, lr=0.1),
    "SGD": lambda parameters: torch.optim.SGD(parameters, lr=0.1, momentum=0.5, nesterov=True, weight_decay=0.1),
    "Adam": lambda parameters: torch.optim.Adam(parameters, lr=0.05),
    "AdamW": lambda parameters: torch.optim.AdamW(parameters, lr=0.05, amsgrad=True, maximize=False),
}


@pytest.fixture(params=OPTIMIZERS)
def seen(problem, request):
    """Gramian, context, the model of the losses, and exact decreases `[K, T]` of rows."""
    optimizer = OPTIMIZERS[request.param](problem.model.trunk.parameters())
    for _ in range(2):  # momentum and moments
        problem.losses(problem.held_out).mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    grads = per_task_gradients(batch=problem.batch, **problem.form("mapped"))
    gram = gramian(grads.shared_grads)
    length = (FULL @ gram @ FULL).sqrt() * STEP
    context = make_context(
        **problem.form("mapped"),
        batch=problem.batch,
        grads=grads,
        lookahead_batch=problem.held_out,
        step_norm=length,
        optimizer=optimizer,
    )

    def true_decrease(rows):
        if request.param == "matched":
            table = context.lookahead(torch.cat([torch.zeros_like(rows[:1]), rows]), STEP)
        else:
            table = context.lookahead.after_optimizer(rows)
        return table[0] - table[1:]

    measure = LookaheadGradient(step_size="matched" if request.param == "matched" else "optimizer")
    full_set = candidates.full(4).double()
    losses = measure(context, gram, full_set, measure.step(context, gram, full_set[0]))
    return gram, context, losses, true_decrease, measure


def test_exact_at_the_full_set(seen):
    _, _, losses, true_decrease, _ = seen
    torch.testing.assert_close(losses.decrease(FULL[None]), true_decrease(FULL[None]))


@pytest.mark.parametrize("seen", ["matched"], indirect=True)
def test_exact_at_no_step(seen):
    _, _, losses, true_decrease, _ = seen
    nothing = torch.zeros(1, 4).double()
    torch.testing.assert_close(losses.decrease(nothing), true_decrease(nothing))


def test_error_falls_with_the_square_of_the_distance(seen):
    _, _, losses, true_decrease, _ = seen
    away = torch.randn(6, 4, generator=torch.Generator().manual_seed(0)).double()
    errors = []
    for distance in (1e-2, 1e-3):
        rows = FULL + distance * away
        errors.append((losses.decrease(rows) - true_decrease(rows)).abs().max())
    assert 80 < errors[0] / errors[1] < 120


def test_slope_at_the_full_set_is_the_literal_one(seen):
    _, _, losses, true_decrease, _ = seen
    rows = FULL + 1e-6 * torch.cat([torch.eye(4), -torch.eye(4)]).double()
    literal, found = (decrease[:4] - decrease[4:] for decrease in (true_decrease(rows), losses.decrease(rows)))
    torch.testing.assert_close(found, literal, rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("family", ["leave_one_out", "power_set"])
def test_orders_candidates_as_exact_lookahead_does(seen, family):
    gram, context, _, _, model = seen
    scores = []
    for measure in (Exact(step_size=model.step_size), model):
        combiner = Transference(measure=measure, candidates=family)
        combiner(gram, context)
        scores.append(combiner.last.scores)
    assert torch.corrcoef(torch.stack(scores))[0, 1] > 0.8


def test_best_weights_keep_to_the_norm_and_gain(seen):
    gram, context, _, true_decrease, measure = seen
    combiner = Transference(measure=measure, candidates="weights")
    weights = combiner(gram, context)
    assert (weights >= 0).all()
    assert weights @ gram @ weights <= (FULL @ gram @ FULL) * (1 + 1e-9)
    gains = (true_decrease(torch.stack([FULL, weights])) / context.lookahead(torch.zeros(1, 4).double())).sum(1)
    assert gains[1] > gains[0]
