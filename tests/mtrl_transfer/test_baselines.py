import sys

import numpy as np
import pytest
import torch

from mtrl_transfer import Context, combine, gramian, make_combiner, make_context, per_task_gradients
from mtrl_transfer.combiners import FAMO, GradNorm, RandomDrop, RandomWeights
from mtrl_transfer.combiners.gradnorm import LEAST_WEIGHT
from mtrl_transfer.combiners.torchjd import MGDA, TorchJDWeighting


def gram_of(vectors):
    return vectors @ vectors.T


@pytest.mark.parametrize("asymmetry", [0.0, 0.7, 4.0])
def test_gradnorm_follows_the_gradient_of_its_objective(gradients, asymmetry):
    vectors = gradients(1)
    norms = vectors.norm(dim=1) / vectors.norm(dim=1).mean()
    combiner = GradNorm(asymmetry=asymmetry, learning_rate=0.1)
    expected = torch.ones(5).double()
    first = torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0]).double()
    for step in range(8):
        losses = first * torch.tensor([1.0, 0.9, 0.8, 0.5, 1.2]).double() ** step
        weights = combiner(gram_of(vectors), Context(losses=losses))
        torch.testing.assert_close(weights, expected / 5)
        variable = expected.clone().requires_grad_()
        rates = losses / first / (losses / first).mean()
        target = ((variable * norms).mean() * rates**asymmetry).detach()
        (gradient,) = torch.autograd.grad((variable * norms - target).abs().sum(), variable)
        expected = (expected - 0.1 * gradient).clamp(min=LEAST_WEIGHT)
        expected = expected * 5 / expected.sum()


def test_gradnorm_evens_out_the_norms_of_signed_losses(gradients):
    vectors = gradients(1)
    combiner = GradNorm(learning_rate=0.002)
    for _ in range(3000):
        weights = combiner(gram_of(vectors), Context(losses=-torch.rand(5).double(), signed=True))
    scaled = weights * vectors.norm(dim=1)
    assert scaled.std() / scaled.mean() < 0.02


def test_famo_equals_the_paper_by_autograd():
    combiner = FAMO(learning_rate=0.1, decay=0.01)
    logits = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.Adam([logits], lr=0.1, weight_decay=0.01)
    losses = torch.tensor([1.0, 10.0, 0.1]).double()
    for step in range(5):
        weights = combiner(torch.eye(3).double(), Context(losses=losses))
        shares = torch.softmax(logits.detach(), 0)
        torch.testing.assert_close(weights, shares / losses / (shares / losses).sum())
        after = losses * torch.tensor([0.9, 0.5, 1.0]).double() ** (step + 1)
        combiner.after_step(after)
        (logits.grad,) = torch.autograd.grad(torch.softmax(logits, 0), logits, losses.log() - after.log())
        optimizer.step()
        losses = after
    assert logits[1] == logits.min(), "the task that made most progress loses weight"


def test_famo_of_signed_losses_takes_differences():
    combiner = FAMO()
    context = Context(losses=torch.tensor([-1.0, 2.0]), scales=torch.tensor([4.0, 1.0]), signed=True)
    torch.testing.assert_close(combiner(torch.eye(2), context), torch.tensor([0.2, 0.8]))
    combiner.after_step(torch.tensor([-5.0, 1.9]))
    assert combiner.state["logits"][0] < 0 < combiner.state["logits"][1]


def test_famo_survives_a_loss_that_reaches_zero():
    combiner = FAMO()
    for losses in ([1.0, 0.0], [0.0, 0.0], [1.0, 1.0]):
        weights = combiner(torch.eye(2), Context(losses=torch.tensor(losses)))
        combiner.after_step(torch.tensor([0.0, 0.5]))
        assert weights.isfinite().all()
        assert combiner.state["logits"].isfinite().all()
    with pytest.raises(ValueError, match="needs a call before it"):
        combiner.after_step(torch.ones(2))


def test_famo_gives_nothing_to_a_task_without_a_loss_nor_lets_it_disturb_others():
    sound, faulty = FAMO(learning_rate=0.1), FAMO(learning_rate=0.1)
    for lost in (0.0, float("nan")):  # masked by the caller, or not
        for losses in (torch.tensor([1.0, 100.0]), torch.tensor([0.9, 50.0])):
            weights = sound(torch.eye(2), Context(losses=losses))
            with_fault = torch.cat([losses, torch.tensor([lost])])
            torch.testing.assert_close(faulty(torch.eye(3), Context(losses=with_fault))[:2], weights * 2 / 3)
            sound.after_step(losses * torch.tensor([0.9, 0.5]))
            faulty.after_step(torch.cat([losses * torch.tensor([0.9, 0.5]), torch.tensor([7.0])]))
    assert faulty.state["logits"][2] == 0


def test_random_drop_takes_shares_as_the_agent_tells_them():
    kept = np.array([1.0, 0.8, 0.5])
    combiner = RandomDrop(rates=1 - kept, max_norm_factor=None)
    rows = torch.stack([combiner(torch.eye(3)) for _ in range(2000)])
    torch.testing.assert_close((rows != 0).double().mean(0), torch.from_numpy(kept), atol=0.04, rtol=0)


def test_rates_are_a_setting_and_no_state():
    loaded = RandomDrop(rates=[0.0, 0.0], max_norm_factor=None)
    used = RandomDrop(rates=[0.5, 0.5])
    used(torch.eye(2))
    loaded.load_state_dict(used.state_dict())
    assert all((loaded(torch.eye(2)) > 0).all() for _ in range(50))


def test_a_stream_that_has_not_begun_is_saved_and_restored():
    seeded, loaded = RandomWeights(), RandomWeights()
    seeded.seed(7)
    saved = seeded.state_dict()
    expected = seeded(torch.eye(3))
    loaded(torch.eye(3))  # has drawn from its own stream
    loaded.load_state_dict(saved)
    assert torch.equal(loaded(torch.eye(3)), expected)


def test_random_drop_leaves_out_at_the_given_rates():
    combiner = RandomDrop(rates=[0.0, 0.2, 0.5, 0.9], max_norm_factor=None)
    gram = torch.eye(4)
    rows = torch.stack([combiner(gram) for _ in range(2000)])
    assert set(rows.unique().tolist()) == {0.0, 0.25}
    torch.testing.assert_close((rows == 0).float().mean(0), torch.tensor([0.0, 0.2, 0.5, 0.9]), atol=0.03, rtol=0)


def test_random_drop_never_drops_all():
    combiner = RandomDrop(rates=0.9, max_norm_factor=None)
    rows = torch.stack([combiner(torch.eye(2)) for _ in range(100)])
    assert (rows.sum(1) > 0).all()
    assert (rows.sum(1) == 0.5).any()


@pytest.mark.parametrize("kind", [RandomDrop, RandomWeights])
def test_random_controls_match_the_mean_norm(gradients, kind):
    vectors = gradients(0) + 0.5
    combiner = kind(max_norm_factor=100.0)
    rows = torch.stack([combiner(gram_of(vectors)) for _ in range(10)])
    torch.testing.assert_close((rows @ vectors).norm(dim=1), vectors.mean(0).norm().expand(10))
    assert len(rows.unique(dim=0)) > 2


@pytest.mark.parametrize(
    ("name", "weighting", "kwargs", "factor"),
    [
        ("upgrad", "UPGradWeighting", {}, 1.0),
        ("cagrad", "CAGradWeighting", {"c": 0.5}, 1 / 1.5),
        ("mgda", "MGDAWeighting", {}, 1.0),
        ("imtl_g", "IMTLGWeighting", {}, 1.0),
        ("aligned_mtl", "AlignedMTLWeighting", {}, 1.0),
        ("fairgrad", "FairGradWeighting", {"alpha": 1.0}, 1 / 5),
    ],
)
def test_torchjd_weightings_at_our_scale(gradients, name, weighting, kwargs, factor):
    aggregation = pytest.importorskip("torchjd.aggregation")
    gram = gram_of(gradients(3))
    gram = gram / gram.diagonal().max()
    try:
        expected = getattr(aggregation, weighting)(**kwargs)(gram) * factor
        found = make_combiner(name, **kwargs)(7.0 * gram)
    except ImportError as error:
        pytest.skip(str(error))
    torch.testing.assert_close(found, expected.double(), rtol=1e-4, atol=1e-5)


def test_config_has_equal_cosines_to_all_gradients(gradients):
    pytest.importorskip("torchjd.aggregation")
    vectors = gradients(3, size=20)
    found = make_combiner("config")(gram_of(vectors)) @ vectors
    cosines = torch.cosine_similarity(found[None], vectors)
    torch.testing.assert_close(cosines, cosines[:1].expand(5), rtol=1e-5, atol=1e-6)
    direction = found / found.norm()
    torch.testing.assert_close(found.norm(), (vectors @ direction).sum() / 5, rtol=1e-5, atol=1e-6)


def test_nash_mtl_solves_the_bargaining_equation(gradients):
    pytest.importorskip("torchjd.aggregation")
    gram = gram_of(gradients(3, size=20))
    weights = make_combiner("nash_mtl")(gram / gram.diagonal().max()) * 5
    torch.testing.assert_close(gram / gram.diagonal().max() @ weights, 1 / weights, rtol=1e-3, atol=1e-3)


def test_sdmgrad_takes_products_with_held_out_gradients(problem):
    pytest.importorskip("torchjd.aggregation")
    grads = per_task_gradients(batch=problem.batch, **problem.form("mapped"))
    gram, other = gramian(grads.shared_grads), per_task_gradients(batch=problem.held_out, **problem.form("mapped"))
    context = make_context(batch=problem.batch, grads=grads, lookahead_batch=problem.held_out, **problem.form("mapped"))
    products = gramian(grads.shared_grads, other.shared_grads)
    found, literal = make_combiner("sdmgrad"), pytest.importorskip("torchjd.aggregation").SDMGradWeighting()
    for _ in range(3):
        torch.testing.assert_close(found(gram, context), literal(products / products.diagonal().abs().max()))


def test_torchjd_weights_that_do_not_sum_to_one_are_brought_to_our_scale(gradients):
    pytest.importorskip("torchjd.aggregation")
    weights = TorchJDWeighting("SumWeighting")(gram_of(gradients(0)))
    torch.testing.assert_close(weights, torch.full((5,), 0.2).double())


def test_missing_extra_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchjd", None)
    with pytest.raises(ImportError, match=r'combiner MGDA needs TorchJD.*pip install "mtrl-transfer\[baselines\]"'):
        MGDA()


@pytest.mark.parametrize(
    ("name", "kwargs", "message"),
    [
        ("gradvac", {"beta": 1.5}, r"must be in \[0, 1\]. Found beta=1.5"),
        ("fairgrad", {"alpha": -1.0}, "alpha=-1.0 must be a number of at least 0"),
        ("gradnorm", {"learning_rate": 0.0}, "learning_rate=0.0 must be a positive number"),
        ("famo", {"learning_rate": -1.0}, "learning_rate=-1.0 must be a positive number"),
        ("random_drop", {"rates": 1.0}, "rates must be at least 0 and below 1, got 1.0"),
        ("random_weights", {"max_norm_factor": 0.0}, "max_norm_factor=0.0 must be a number of at least 1"),
    ],
)
def test_bad_arguments(name, kwargs, message):
    with pytest.raises(ValueError, match=message):
        make_combiner(name, **kwargs)


def test_what_must_be_given():
    for name in ("famo", "gradnorm", "log_loss"):
        with pytest.raises(ValueError, match="needs a context"):
            make_combiner(name)(torch.eye(2))
    with pytest.raises(ValueError, match="rates has 2 entries for 3 tasks"):
        RandomDrop(rates=[0.1, 0.2])(torch.eye(3))


def test_log_loss_steps_along_the_geometric_mean(problem):
    grads = per_task_gradients(batch=problem.batch, **problem.form("mapped"))
    geometric = problem.losses(problem.batch).log().sum()
    found = torch.autograd.grad(geometric, list(problem.shared.values()))
    weights = make_combiner("log_loss")(gramian(grads.shared_grads), Context(losses=grads.losses))
    step = torch.cat([value.flatten() for value in combine(grads.shared_grads, weights).values()])
    along = torch.cat([value.flatten() for value in found])
    torch.testing.assert_close(step / step.norm(), along / along.norm())
    torch.testing.assert_close(step.norm(), problem.literal_gradients().mean(0).norm())
