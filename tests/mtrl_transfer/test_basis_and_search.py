import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from mtrl_transfer import (
    Context,
    FirstOrder,
    FunctionLookahead,
    Transference,
    candidates,
    gramian,
    make_context,
    per_task_gradients,
)
from mtrl_transfer.choosing.quadratic import Quadratic, quadratic_from_predictions
from mtrl_transfer.choosing.search import best_direction, best_subset, best_weights, starting_subsets
from mtrl_transfer.scales import squared_norms
from mtrl_transfer.steps import match_norms

N_TASKS = 5


def predict(shared, head, batch):
    return batch[0] @ shared["w"] @ head


def loss_of(prediction, batch):
    return (prediction - batch[1]).square()


def task_loss(shared, head, batch):
    return loss_of(predict(shared, head, batch), batch)


@pytest.fixture
def linear_problem():
    """A trunk that predictions are linear in, so that the quadratic is exact."""
    draw = torch.Generator().manual_seed(0)
    random = lambda *shape: torch.randn(shape, generator=draw, dtype=torch.float64)  # noqa: E731
    batch, held_out = ((random(N_TASKS, 9, 3), random(N_TASKS, 9)) for _ in range(2))
    model = {"shared": {"w": random(3, 4)}, "heads": random(N_TASKS, 4), "batch": batch}
    grads = per_task_gradients(task_loss, **model)
    context = make_context(
        task_loss,
        **model,
        grads=grads,
        lookahead_batch=held_out,
        step_norm=torch.tensor(0.5).double(),
        predict=predict,
        loss_of=loss_of,
    )
    return gramian(grads.shared_grads), context


def test_every_subset_from_one_forward_a_task(linear_problem):
    gram, context = linear_problem
    tables = {}
    for measure in ("exact", "basis"):
        combiner = Transference(candidates="power_set", measure=measure)
        weights = combiner(gram, context)
        tables[measure] = (combiner.last.transference, combiner.last.losses, weights)
    assert tables["basis"][0].shape == (2**N_TASKS - 1, N_TASKS)
    for found, expected in zip(tables["basis"], tables["exact"], strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-11)


def test_basis_runs_one_forward_a_task_and_no_other(linear_problem):
    gram, context = linear_problem
    rows, own = [], context.lookahead
    context.lookahead = FunctionLookahead(
        None,
        predictions=lambda weights, step: rows.append(weights) or own.predictions(weights, step),
        loss_of=own.loss_of,
    )
    Transference(candidates="power_set", measure="basis")(gram, context)
    torch.testing.assert_close(
        torch.cat(rows), torch.cat([torch.zeros(1, N_TASKS), candidates.singletons(N_TASKS)]).double()
    )


def test_quadratic_is_the_second_order_expansion_of_any_loss():
    draw = torch.Generator().manual_seed(1)
    predictions = torch.randn(4, 3, 6, 2, generator=draw, dtype=torch.float64)

    def all_losses(prediction):
        return torch.cosh(prediction).mean((1, 2)) + (prediction[..., 0] * prediction[..., 1]).sum(1)

    found = quadratic_from_predictions(predictions, 0.25, all_losses)
    change = (predictions[1:] - predictions[0]) / 0.25
    along = lambda w: all_losses(predictions[0] + torch.einsum("t,tjrp->jrp", w, change))  # noqa: E731
    zero = torch.zeros(3, dtype=torch.float64)
    slope = torch.autograd.functional.jacobian(along, zero)
    hessians = [torch.autograd.functional.hessian(lambda w, j=j: along(w)[j], zero) for j in range(3)]
    torch.testing.assert_close(found.before, along(zero))
    torch.testing.assert_close(found.slope, slope)
    torch.testing.assert_close(found.curvature, torch.stack(hessians) / 2)
    rows = torch.randn(7, 3, generator=draw, dtype=torch.float64)
    expected = [[-(slope[j] @ w + w @ hessians[j] @ w / 2) for j in range(3)] for w in rows]
    torch.testing.assert_close(found.decrease(rows), torch.tensor(expected, dtype=torch.float64))


def test_best_subset_of_a_sum_over_members_is_exact():
    draw = torch.Generator().manual_seed(2)
    values = torch.randn(20, generator=draw)
    starts = torch.stack([torch.ones(20, dtype=torch.bool), torch.arange(20) == 3])
    found = best_subset(lambda subsets: subsets.float() @ values, starts)
    assert torch.equal(found, values > 0)
    assert best_subset(lambda subsets: -subsets.float().sum(1), starts).sum() == 1, "never empty"


@pytest.mark.parametrize("n_tasks", [7, 8])
def test_search_stays_at_the_best(n_tasks):
    values = torch.linspace(-1, 2, n_tasks)
    best = values > 0
    assert torch.equal(best_subset(lambda subsets: subsets.float() @ values, best[None]), best)


def test_best_subset_against_brute_force():
    subsets = candidates.power_set(8) != 0
    exact = 0
    for seed in range(20):
        draw = torch.Generator().manual_seed(seed)
        gain = torch.randn(8, generator=draw, dtype=torch.float64)
        root = torch.randn(8, 8, generator=draw, dtype=torch.float64)

        def score(rows, gain=gain, cost=root @ root.T / 16):
            rows = rows.double()
            return rows @ gain - ((rows @ cost) * rows).sum(1)

        starts = torch.stack([torch.ones(8, dtype=torch.bool), gain >= gain.max()])
        found = score(best_subset(score, starts)[None])
        assert found >= score(starts).max()
        exact += bool(found >= score(subsets).max() - 1e-12)
    assert exact >= 18


def test_search_with_norms_matched_against_brute_force():
    """The score is far from a sum over members here: a short step of few tasks is stretched."""
    everything, exact = candidates.power_set(12) != 0, 0
    for seed in range(20):
        draw = torch.Generator().manual_seed(seed)
        vectors = torch.randn(12, (6, 12, 30)[seed % 3], generator=draw, dtype=torch.float64)
        vectors = vectors * torch.rand(12, 1, generator=draw, dtype=torch.float64)
        gram, losses = vectors @ vectors.T, torch.rand(12, generator=draw, dtype=torch.float64) ** 2 + 0.02
        full = candidates.full(12)[0].double()

        def score(subsets, gram=gram, losses=losses, full=full):
            return (match_norms(subsets.double() / 12, gram, full, 2.0) @ gram / losses).sum(1)

        starts = starting_subsets(score, gram @ (1 / losses), gram.diagonal().sqrt())
        found, best = score(best_subset(score, starts)[None]), score(everything).max()
        assert found >= 0.95 * best
        exact += bool(found >= best - 1e-9)
    assert exact >= 17


def scipy_best(gain, cost, gram, limit):
    gain, cost, gram = gain.numpy(), cost.numpy(), gram.numpy()
    limits = {"type": "ineq", "fun": lambda w: limit - w @ gram @ w, "jac": lambda w: -2 * gram @ w}
    best = 0.0
    for start in (0.01, 0.3):
        found = minimize(
            lambda w: w @ cost @ w - gain @ w,
            np.full(len(gain), start),
            jac=lambda w: 2 * cost @ w - gain,
            bounds=[(0, None)] * len(gain),
            constraints=[limits],
            method="SLSQP",
            options={"maxiter": 500, "ftol": 1e-12},
        )
        best = max(best, -found.fun)
    return best


@pytest.mark.parametrize("curved", [0.0, 0.1, 10.0])
def test_best_weights_against_scipy(gradients, curved):
    for seed in range(4):
        vectors = gradients(seed, n_tasks=6, size=10) * 10.0 ** torch.linspace(-1, 1, 6)[:, None]
        gram, limit = vectors @ vectors.T, vectors.mean(0).square().sum()
        draw = torch.Generator().manual_seed(seed)
        gain = torch.randn(6, generator=draw, dtype=torch.float64)
        root = torch.randn(6, 6, generator=draw, dtype=torch.float64)
        cost = curved * root @ root.T
        weights = best_weights(gain, cost, gram, limit)
        value = gain @ weights - weights @ cost @ weights
        assert (weights >= 0).all()
        assert weights @ gram @ weights <= limit * (1 + 1e-9)
        assert value >= scipy_best(gain, cost, gram, limit.item()) * (1 - 1e-2)


@pytest.mark.parametrize("directions", [3, 40])
def test_best_direction_against_a_search(directions):
    draw = torch.Generator().manual_seed(directions)
    for _ in range(5):
        rows = torch.randn(8, directions, generator=draw, dtype=torch.float64)
        gradients = rows * torch.logspace(-2, 1, 8, dtype=torch.float64)[:, None]
        gram, limit = gradients @ gradients.T, torch.tensor(2.0, dtype=torch.float64)
        gain = gradients @ torch.randn(directions, generator=draw, dtype=torch.float64)
        found, searched = best_direction(gain, gram, limit), best_weights(gain, torch.zeros_like(gram), gram, limit)
        assert (found >= 0).all()
        torch.testing.assert_close(squared_norms(gram, found), limit)
        assert 1 - 1e-12 <= gain @ found / (gain @ searched) < 1.001
    assert not best_direction(-torch.ones(3), torch.eye(3), torch.tensor(1.0)).any()


def test_best_weights_of_nothing():
    zero = torch.zeros(3)
    assert not best_weights(zero, torch.eye(3), torch.eye(3), torch.tensor(1.0)).any()
    assert best_weights(torch.ones(3), torch.zeros(3, 3), torch.zeros(3, 3), torch.tensor(0.0)).isfinite().all()
    assert not best_weights(-torch.ones(3), torch.zeros(3, 3), torch.eye(3), torch.tensor(1.0)).any()


@pytest.mark.parametrize("scale", ["ratio", "ema"])
def test_continuous_weights_beat_every_subset_of_that_length(linear_problem, scale):
    gram, context = linear_problem
    combiner = Transference(candidates="weights", measure="basis", scale=scale)
    weights = combiner(gram, context)
    limit = (candidates.full(N_TASKS).double() @ gram @ candidates.full(N_TASKS).double().T).squeeze()
    assert (weights >= 0).all()
    torch.testing.assert_close(weights @ gram @ weights, limit, rtol=1e-6, atol=0)
    subsets = Transference(candidates="power_set", measure="basis", scale=scale)
    subsets(gram, context)
    assert combiner.last.scores.max() > subsets.last.scores.max()


def test_the_best_weights_within_the_limit_are_not_stretched_to_it(linear_problem):
    gram, context = linear_problem
    options = {"measure": {"name": "basis", "step_size": 50.0}}  # so long that less than the full set's norm is best
    combiner = Transference(candidates="weights", **options)
    weights = combiner(gram, context)
    full = candidates.full(N_TASKS).double()
    assert weights @ gram @ weights < 0.9 * (full @ gram @ full.T).squeeze()
    shorter_and_longer = Transference(
        candidates=torch.tensor([[0.9], [1.0], [1.1]]) * weights, max_norm_factor=None, **options
    )
    shorter_and_longer(gram, context)
    assert shorter_and_longer.last.scores[1:].argmax() == 1


def test_searched_weights_are_used_until_the_next_measurement(linear_problem):
    gram, context = linear_problem
    combiner = Transference(candidates="weights", measure="basis", every=2)
    first = combiner(gram, context)
    context.lookahead = None
    torch.testing.assert_close(combiner(gram, context), first)
    assert not combiner.last.fresh


def many_tasks(n_tasks=18):
    draw = torch.Generator().manual_seed(6)
    vectors = torch.randn(n_tasks, 30, generator=draw, dtype=torch.float64)
    losses = torch.rand(n_tasks, generator=draw, dtype=torch.float64) + 0.1
    return vectors, losses


def test_first_order_has_a_closed_form_over_all_subsets():
    vectors, losses = many_tasks()
    gram = vectors @ vectors.T
    keep = gram @ (1 / losses) > 0
    combiner = Transference(
        candidates="power_set", measure=FirstOrder(held_out=False, step_size=0.1), max_norm_factor=None
    )
    weights = combiner(gram, Context(losses=losses))
    assert 0 < keep.sum() < 18
    torch.testing.assert_close(weights, keep.double() / 18)
    assert torch.equal(combiner.members, keep)


def test_many_tasks_are_searched_with_their_norms_matched():
    vectors, losses = many_tasks()
    gram = vectors @ vectors.T
    combiner = Transference(
        candidates="power_set", measure={"name": "first_order", "held_out": False, "step_size": 0.1}
    )
    weights = combiner(gram, Context(losses=losses))
    rows = candidates.leave_one_out(18).double()
    torch.testing.assert_close(weights, match_norms(combiner.members.double() / 18, gram, rows[0], 2.0))
    value = 0.1 * (match_norms(rows, gram, rows[0], 2.0) @ gram / losses).sum(1)
    assert combiner.last.scores[1] > value.max()
    with pytest.raises(ValueError, match="power_set of 18 tasks is searched"):
        Transference(candidates="power_set", measure="first_order", inner="pcgrad")(gram, Context(losses=losses))
    with pytest.raises(ValueError, match="limited to 16 tasks, got 18"):
        Transference(candidates="power_set")(gram, Context(losses=losses))


def test_no_curvature_is_first_order():
    slope = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    flat = Quadratic(torch.zeros(2), slope, None)
    bent = Quadratic(torch.zeros(2), slope, torch.zeros(2, 2, 2))
    rows = torch.tensor([[1.0, 0.5]])
    assert torch.equal(flat.decrease(rows), torch.tensor([[-2.0, -5.0]]))
    assert torch.equal(bent.decrease(rows), flat.decrease(rows))


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"candidates": "weights"}, "needs measure='lookahead_gradient', 'hindsight', 'basis' or 'first_order'"),
        ({"candidates": "weights", "measure": "basis", "inner": "pcgrad"}, "inner=None"),
        ({"candidates": "weights", "measure": "basis", "selector": {"smoothing": 0.5}}, "smoothing=0"),
        ({"measure": {"name": "basis", "step_size": "optimizer"}}, "not linear in the weights"),
    ],
)
def test_options_that_do_not_go_together(kwargs, message):
    with pytest.raises(ValueError, match=message):
        Transference(**kwargs)


def test_what_the_context_must_have():
    with pytest.raises(ValueError, match=r"needs context.lookahead"):
        Transference(measure={"name": "basis", "step_size": 0.1})(torch.eye(2), Context(losses=torch.ones(2)))
