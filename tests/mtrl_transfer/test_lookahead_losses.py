import pytest
import torch
from torch.utils._pytree import tree_map

from mtrl_transfer import candidates, gramian, make_context, per_task_gradients, transference
from mtrl_transfer.lookahead import CHUNK


@pytest.mark.parametrize("rows", ["batch", "held_out"])
def test_transference_equals_a_copy_stepped_by_hand(problem, form, rows):
    weights = torch.cat([candidates.leave_one_out(4), candidates.singletons(4)]).double()
    lookahead_batch = getattr(problem, rows)
    found = transference(
        **problem.form(form), batch=problem.batch, weights=weights, step_size=0.3, lookahead_batch=lookahead_batch
    )
    before = problem.losses(lookahead_batch)
    expected = [1 - problem.losses(lookahead_batch, problem.stepped(w, 0.3)) / before for w in weights]
    torch.testing.assert_close(found, torch.stack(expected).detach(), rtol=1e-10, atol=1e-12)


def test_more_candidates_than_fit_at_once(problem):
    weights = torch.rand(CHUNK + 3, 4, dtype=torch.float64)
    grads = per_task_gradients(batch=problem.batch, **problem.form("mapped"))
    found = make_context(**problem.form("mapped"), batch=problem.batch, grads=grads).lookahead(weights, 0.1)
    expected = [problem.losses(problem.batch, problem.stepped(weights[k], 0.1)) for k in (0, CHUNK, CHUNK + 2)]
    torch.testing.assert_close(found[[0, CHUNK, CHUNK + 2]], torch.stack(expected).detach())


def test_measuring_changes_nothing(problem, form):
    before = [p.detach().clone() for p in problem.model.parameters()]
    random_state = torch.get_rng_state()
    found = transference(**problem.form(form), batch=problem.batch, weights=candidates.pairs(4).double(), step_size=1.0)
    assert not found.requires_grad
    assert torch.equal(torch.get_rng_state(), random_state)
    for parameter, value in zip(problem.model.parameters(), before, strict=True):
        assert torch.equal(parameter, value)
        assert parameter.grad is None


def quadratic_tasks(n_tasks=4, size=6):
    """`L_t(θ) = ½ (θ − c_t)ᵀ A_t (θ − c_t) + 1`."""
    draw = torch.Generator().manual_seed(5)
    root = torch.randn(n_tasks, size, size, generator=draw, dtype=torch.float64)
    curvature = root @ root.mT / size
    centre = torch.randn(n_tasks, size, generator=draw, dtype=torch.float64)

    def task_loss(shared, head, batch):
        away = shared["theta"] - batch["centre"]
        return away @ batch["curvature"] @ away / 2 + 1

    theta = torch.randn(size, generator=draw, dtype=torch.float64)
    return task_loss, {"theta": theta}, {"curvature": curvature, "centre": centre}


def test_quadratics_have_a_closed_form():
    task_loss, shared, batch = quadratic_tasks()
    weights = candidates.power_set(4).double()
    grads = torch.einsum("tij,tj->ti", batch["curvature"], shared["theta"] - batch["centre"])
    away = shared["theta"] - batch["centre"]
    loss = torch.einsum("ti,tij,tj->t", away, batch["curvature"], away) / 2 + 1
    moves = weights @ grads
    curved = torch.einsum("ki,tij,kj->kt", moves, batch["curvature"], moves)
    for step in (1e-3, 0.5):
        found = transference(task_loss, shared, {}, batch, weights, step)
        torch.testing.assert_close(found, (step * moves @ grads.T - step**2 * curved / 2) / loss, rtol=1e-6, atol=1e-14)


def test_first_order_is_the_limit_of_small_steps(problem):
    grads = per_task_gradients(batch=problem.batch, **problem.form("mapped"))
    weights = candidates.singletons(4).double()
    step = 1e-6
    found = transference(**problem.form("mapped"), batch=problem.batch, weights=weights, step_size=step)
    expected = step * weights @ gramian(grads.shared_grads) / grads.losses
    torch.testing.assert_close(found / step, expected / step, rtol=1e-5, atol=1e-6)
    assert not torch.allclose(found, found.T, rtol=1e-3), "pairwise transference is not symmetric"


def test_scales_of_the_plain_function(problem):
    arguments = {**problem.form("mapped"), "batch": problem.batch, "weights": candidates.leave_one_out(4).double()}
    before = per_task_gradients(batch=problem.batch, **problem.form("mapped")).losses
    ratio = transference(**arguments, step_size=0.2)
    after = before * (1 - ratio)
    given = transference(**arguments, step_size=0.2, scale=torch.tensor([1.0, 2.0, 4.0, 8.0]).double())
    torch.testing.assert_close(given, (before - after) / torch.tensor([1.0, 2.0, 4.0, 8.0]).double())


def test_errors(problem):
    arguments = {**problem.form("mapped"), "batch": problem.batch, "step_size": 0.1}
    with pytest.raises(ValueError, match=r"must be \[K, 4\] .*got \[2, 3\]"):
        transference(**arguments, weights=torch.ones(2, 3).double())
    with pytest.raises(ValueError, match=r"unknown scale: 'ratios'.*did you mean ratio"):
        transference(**arguments, weights=torch.ones(2, 4).double(), scale="ratios")


@pytest.mark.parametrize("length", [1e-2, 1e-1])
def test_float32_is_precise_enough(problem, length):
    tables = []
    for dtype in (torch.float32, torch.float64):
        cast = lambda tree, dtype=dtype: tree_map(lambda leaf: leaf.detach().to(dtype), tree)  # noqa: E731
        model = {"shared": cast(problem.shared), "heads": cast(problem.heads), "batch": cast(problem.batch)}
        weights = candidates.leave_one_out(4).to(dtype)
        tables.append(transference(problem.form("mapped")["task_loss"], **model, weights=weights, step_size=length))
    single, double = tables
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), double, rtol=0, atol=2e-6)
    assert double.abs().max() > 1e-3
