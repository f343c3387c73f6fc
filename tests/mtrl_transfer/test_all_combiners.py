"""Properties of all combiners."""

import copy
import inspect
import random

import pytest
import torch

from mtrl_transfer import COMBINERS, Context, FunctionLookahead, Transference, make_combiner
from mtrl_transfer.choosing import MEASURES, SCALES, SELECTORS
from mtrl_transfer.combiners import pcgrad
from mtrl_transfer.combiners.torchjd import TorchJDWeighting
from mtrl_transfer.context import Expansion
from mtrl_transfer.scales import divide, squared_norms

N_TASKS = 5
RANDOM_CONTROLS = ("random_drop", "random_weights")


def make(name, **kwargs):
    try:
        return make_combiner(name, **kwargs)
    except ImportError as error:
        pytest.skip(str(error))


def skip_random_controls(name):
    if name in RANDOM_CONTROLS:
        pytest.skip("random by design")


def context_for(gram, losses=None):
    """Linear losses with these gradients, as far as the Gramian tells."""
    losses = torch.linspace(1, 2, len(gram)).to(gram) if losses is None else losses
    return Context(
        losses=losses,
        step_norm=torch.full((), 0.1).to(gram),
        lookahead=FunctionLookahead(
            lambda weights, step_size: losses - step_size * weights @ gram, held_out_gramian=lambda: gram
        ),
    )


@pytest.fixture(params=sorted(COMBINERS))
def name(request):
    return request.param


def test_arguments_of_a_wrong_type_are_named(name):
    make(name)
    for argument in inspect.signature(COMBINERS[name]).parameters:
        with pytest.raises(ValueError, match=f"{argument}.*object"):
            make_combiner(name, **{argument: object()})


@pytest.mark.parametrize(("part", "kinds"), [("measure", MEASURES), ("scale", SCALES), ("selector", SELECTORS)])
def test_arguments_of_parts_are_checked_too(part, kinds):
    for kind, owner in kinds.items():
        for argument in inspect.signature(owner).parameters:
            with pytest.raises(ValueError, match=f"{argument}.*object"):
                Transference(**{part: {"name": kind, argument: object()}})


def awkward_gradients():
    draw = torch.Generator().manual_seed(0)
    vectors = torch.randn(N_TASKS, 4, generator=draw, dtype=torch.float64)
    near = vectors[:1] + 1e-7 * vectors
    zero_first = vectors * (torch.arange(N_TASKS) > 0)[:, None]
    return {
        "random": vectors,
        "all zero": torch.zeros_like(vectors),
        "one zero": zero_first,
        "duplicates": vectors[[0, 0, 1, 1, 2]],
        "opposite": vectors[[0, 0, 1, 1, 2]] * torch.tensor([1, -1, 1, -1, 1])[:, None],
        "near-parallel": near,
        "huge": 1e15 * vectors,
        "tiny": 1e-15 * vectors,
        "of all sizes": vectors * 10.0 ** torch.linspace(-15, 15, N_TASKS)[:, None],
    }


@pytest.mark.parametrize("case", awkward_gradients())
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_finite_and_of_the_right_kind(name, case, dtype):
    vectors = awkward_gradients()[case].to(dtype)
    gram = vectors @ vectors.T
    combiner = make(name)
    for _ in range(3):
        weights = combiner(gram, context_for(gram))
        combiner.after_step(context_for(gram).losses)
        assert weights.shape == (N_TASKS,)
        assert weights.dtype == dtype
        assert weights.isfinite().all()
        assert (weights @ vectors).isfinite().all()


@pytest.mark.parametrize("n_tasks", [1, 2, 7])
def test_identity_gives_one_over_t(name, n_tasks):
    skip_random_controls(name)
    gram = torch.eye(n_tasks, dtype=torch.float64)
    weights = make(name)(gram, context_for(gram, torch.ones(n_tasks, dtype=torch.float64)))
    torch.testing.assert_close(weights, torch.full((n_tasks,), 1 / n_tasks, dtype=torch.float64))


def test_follows_a_permutation_of_the_tasks(name, monkeypatch):
    if name in (*RANDOM_CONTROLS, "gradvac"):
        pytest.skip("random by design, or by TorchJD's own orders")
    vectors = awkward_gradients()["random"]
    permutation = torch.tensor([3, 0, 4, 1, 2])
    orders = pcgrad.random_orders(N_TASKS, torch.Generator().manual_seed(1))
    gram, context = vectors @ vectors.T, context_for(vectors @ vectors.T)
    monkeypatch.setattr(pcgrad, "random_orders", lambda *_: orders)
    expected = make(name)(gram, context)[permutation]
    permuted = permutation.argsort()[orders[permutation]]
    monkeypatch.setattr(pcgrad, "random_orders", lambda *_: permuted)
    moved = gram[permutation][:, permutation]
    context = context_for(gram)
    moved_context = Context(
        losses=context.losses[permutation],
        step_norm=context.step_norm,
        lookahead=FunctionLookahead(
            lambda weights, step: context.lookahead(weights[:, permutation.argsort()], step)[:, permutation],
            held_out_gramian=lambda: moved,
        ),
    )
    torch.testing.assert_close(make(name)(moved, moved_context), expected)


def test_a_loaded_state_continues_bit_for_bit(name):
    draw = torch.Generator().manual_seed(2)
    grams = [(lambda v: v @ v.T)(torch.randn(N_TASKS, 3, generator=draw)) for _ in range(7)]
    combiner, loaded = make(name), make(name)
    if name == "transference":
        combiner, loaded = (make(name, every=2, inner="pcgrad") for _ in range(2))

    def run(combiner, grams):
        rows = []
        for gram in grams:
            rows.append(combiner(gram, context_for(gram)))
            combiner.after_step(context_for(gram).losses)
        return torch.stack(rows)

    run(combiner, grams[:3])
    saved = combiner.state_dict()
    assert all(isinstance(value, torch.Tensor) for value in saved.values())
    frozen = copy.deepcopy(saved)
    expected = run(combiner, grams[3:])
    assert all(torch.equal(saved[key], frozen[key]) for key in frozen), "a saved state must not move on"
    loaded.load_state_dict(saved)
    assert all(torch.equal(loaded.state_dict()[key], frozen[key]) for key in frozen)
    assert torch.equal(run(loaded, grams[3:]), expected)


def test_copies_do_not_share_anything(name):
    draw = torch.Generator().manual_seed(4)
    grams = [(lambda v: v @ v.T)(torch.randn(N_TASKS, 2, generator=draw)) for _ in range(4)]
    original = make(name)
    original(grams[0], context_for(grams[0]))
    clone = copy.deepcopy(original)
    first = [original(gram, context_for(gram)) for gram in grams]
    second = [clone(gram, context_for(gram)) for gram in grams]
    assert all(map(torch.equal, first, second))


def test_leaves_gramian_and_global_stream_alone(name):
    vectors = awkward_gradients()["random"]
    gram = vectors @ vectors.T
    before, state = gram.clone(), torch.get_rng_state()
    make(name)(gram, context_for(gram))
    assert torch.equal(gram, before)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_runs_on_the_gpu_without_waiting_for_it(name):
    vectors = awkward_gradients()["random"].cuda()
    gram = vectors @ vectors.T
    combiner = make(name)
    if isinstance(combiner, TorchJDWeighting):
        pytest.skip("solves on the CPU")
    combiner(gram, context_for(gram))
    torch.cuda.set_sync_debug_mode("error")
    try:
        weights = combiner(gram, context_for(gram))
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert weights.isfinite().all()


def test_unknown_names_and_arguments():
    with pytest.raises(ValueError, match=r"unknown combiner: 'pcgrd'; did you mean pcgrad"):
        make_combiner("pcgrd")
    with pytest.raises(ValueError, match=r"unknown argument of combiner 'transference': 'evry'.*did you mean every"):
        make_combiner("transference", evry=2)

    with pytest.raises(ValueError, match=r"argument 'lookahead_rows' .* is now measure=\{'rows': ...\}"):
        make_combiner("transference", lookahead_rows=8)
    with pytest.raises(ValueError, match=r"argument 'norm_matching' .* is now max_norm_factor=None"):
        make_combiner("random_drop", norm_matching=False)


def test_repr_shows_the_arguments():
    assert repr(make_combiner("famo", decay=0.5)) == "FAMO(learning_rate=0.025, decay=0.5)"
    shown = repr(Transference(measure={"rows": 8}, selector={"max_absence": 3}, every=2))
    for part in ("Transference(candidates='leave_one_out'", "measure=Exact(rows=8, ", "max_absence=3", "every=2"):
        assert part in shown


@pytest.mark.parametrize("factor", [1e-3, 1e3])
def test_weights_do_not_depend_on_the_unit_of_the_losses(name, factor):
    vectors = awkward_gradients()["random"]
    gram = vectors @ vectors.T
    losses = torch.linspace(1, 2, N_TASKS, dtype=torch.float64)
    expected = make(name)(gram, context_for(gram, losses))
    found = make(name)(factor**2 * gram, context_for(factor**2 * gram, factor * losses))
    torch.testing.assert_close(found, expected)


EXTREMES = {
    "zeros": torch.zeros(N_TASKS, N_TASKS),
    "huge": 1e30 * torch.eye(N_TASKS),
    "tiny": 1e-30 * torch.eye(N_TASKS),
    "huge and tiny": torch.diag(torch.logspace(-30, 30, N_TASKS)),
    "duplicates": torch.ones(N_TASKS, N_TASKS),
    "huge duplicates": torch.full((N_TASKS, N_TASKS), 1e30),
    "opposites": torch.ones(N_TASKS, N_TASKS)
    * torch.tensor([(-1.0) ** t for t in range(N_TASKS)]).outer(torch.tensor([(-1.0) ** t for t in range(N_TASKS)])),
    "infinite task": torch.eye(N_TASKS)
    .index_fill(0, torch.tensor([1]), torch.inf)
    .index_fill(1, torch.tensor([1]), torch.inf),
    "nan task": torch.eye(N_TASKS)
    .index_fill(0, torch.tensor([0]), torch.nan)
    .index_fill(1, torch.tensor([0]), torch.nan),
    "all infinite": torch.full((N_TASKS, N_TASKS), torch.inf),
}


@pytest.mark.parametrize("extreme", EXTREMES)
def test_weights_are_finite_whatever_the_gramian(name, extreme):
    combiner, gram = make(name), EXTREMES[extreme]
    losses = gram.diagonal().sqrt()
    for _ in range(2):  # nor may the state be spoilt
        weights = combiner(gram, context_for(gram, losses))
        combiner.after_step(losses)
        assert weights.isfinite().all()
        assert torch.equal(weights[~gram.diagonal().isfinite()], torch.zeros(int((~gram.diagonal().isfinite()).sum())))
    sound = torch.eye(N_TASKS)
    assert combiner(sound, context_for(sound)).isfinite().all()


@pytest.mark.parametrize("fault", [0.0, torch.nan, torch.inf])
def test_a_dead_task_leaves_the_step_of_the_others(name, fault, monkeypatch):
    """With a task more that is dead, weights are those without it, times the share of live tasks."""
    skip_random_controls(name)
    draw, dead = torch.Generator().manual_seed(3), 2
    live = torch.tensor([t for t in range(N_TASKS) if t != dead])
    without, among = make(name), make(name)
    for _ in range(4):
        vectors = torch.randn(N_TASKS, 8, generator=draw, dtype=torch.float64)
        losses = torch.rand(N_TASKS, generator=draw, dtype=torch.float64) + 0.5
        orders = pcgrad.random_orders(N_TASKS, draw)
        gram, small = vectors @ vectors.T, vectors[live] @ vectors[live].T
        gram[dead], gram[:, dead], losses[dead] = fault, fault, fault
        met = orders[live][orders[live] != dead].view(N_TASKS - 1, N_TASKS - 1)
        monkeypatch.setattr(pcgrad, "random_orders", lambda *_, met=met: met - (met > dead).long())
        expected = without(small, context_for(small, losses[live]))
        monkeypatch.setattr(pcgrad, "random_orders", lambda *_, orders=orders: orders)
        found = among(gram, context_for(gram, losses))
        torch.testing.assert_close(found[live], expected * len(live) / N_TASKS)
        assert found[dead] == 0
        without.after_step(losses[live] * torch.linspace(0.8, 1, len(live)))
        among.after_step(losses.index_put((live,), losses[live] * torch.linspace(0.8, 1, len(live))))


def test_a_task_that_comes_back_is_weighed_again(name):
    vectors = awkward_gradients()["random"]
    gram, combiner = vectors @ vectors.T, make(name)
    gone = gram * (torch.arange(N_TASKS) != 1) * (torch.arange(N_TASKS) != 1)[:, None]
    for one in (gone, gram, gram):
        weights = combiner(one, context_for(one))
        combiner.after_step(context_for(one).losses)
    assert weights.isfinite().all()
    assert name in ("mgda", "transference", *RANDOM_CONTROLS) or weights[1] != 0


@pytest.mark.parametrize("name", RANDOM_CONTROLS)
def test_random_controls_do_not_draw_dead_tasks(name):
    vectors = awkward_gradients()["one zero"]
    vectors[1:] = vectors[1]
    combiner = make(name)
    for _ in range(20):
        weights = combiner(vectors @ vectors.T)
        torch.testing.assert_close(weights @ vectors, vectors.mean(0))


LOSSES = {
    "zero": torch.zeros(N_TASKS),
    "tiny": torch.full((N_TASKS,), 1e-30),
    "huge": torch.full((N_TASKS,), 1e30),
    "of all sizes": torch.tensor([0.0, 1e-30, 1.0, 1e30, 1.0]),
    "infinite": torch.tensor([1.0, torch.inf, 1.0, 1.0, 1.0]),
    "nan": torch.tensor([torch.nan, 1.0, 1.0, 1.0, 1.0]),
}
OPTIONS = {
    "measure": [{"name": name, "step_size": step} for name in MEASURES for step in ("matched", "optimizer", 0.1)],
    "scale": list(SCALES),
    "candidates": ("leave_one_out", "power_set", "singletons", "weights", ["mean", "pcgrad"]),
    "inner": (None, "pcgrad"),
    "selector": ("best", {"smoothing": 0.9}, {"name": "significant", "z": 1.0}),
}


def extreme_context(gram, losses, step_norm):
    """Squared predictions that are linear in the weights."""

    def predict(weights, step_size):
        return (losses.sqrt() - step_size * weights @ gram).unsqueeze(-1)

    def after(weights, step_size):
        return predict(weights, step_size).square().mean(-1)

    def expand(weights, step_size):
        slopes = -2 * step_size * predict(weights[None], step_size)[0] * gram
        shares = divide(gram @ weights, squared_norms(gram, weights))
        return Expansion(losses, after(weights[None], step_size)[0], slopes, slopes @ weights, shares)

    return Context(
        losses=losses,
        step_norm=torch.tensor(step_norm),
        lookahead=FunctionLookahead(
            after,
            held_out_gramian=lambda: gram,
            row_losses=lambda weights, step: after(weights, step)[..., None].expand(-1, -1, 3),
            rows_after_optimizer=lambda weights: after(torch.cat([torch.zeros_like(weights[:1]), weights]), 1.0)[
                ..., None
            ].expand(-1, -1, 3),
            after_horizon=lambda weights, steps: after(torch.cat([torch.zeros_like(weights[:1]), weights]), steps)[
                ..., None
            ].expand(-1, -1, 3),
            expand=expand,
            expand_after_optimizer=lambda weights: expand(weights, 1.0),
            after_optimizer=lambda weights: after(torch.cat([torch.zeros_like(weights[:1]), weights]), 1.0),
            slopes_of_last_step=lambda step_size: -gram if step_size is None else -step_size * gram,
            predictions=predict,
            loss_of=lambda predictions: predictions.square().mean(-1),
        ),
    )


def test_no_measure_scale_or_choice_makes_weights_nan():
    """Draws from all options that go together, all extremes of Gramians, losses and steps."""
    chance, drawn = random.Random(0), set()
    while len(drawn) < 250:
        options = {name: chance.choice(values) for name, values in OPTIONS.items()}
        try:
            combiner = Transference(**options)
        except ValueError:
            continue
        extremes = chance.choice(list(EXTREMES)), chance.choice(list(LOSSES)), chance.choice([0.0, 0.1, 1e30])
        gram, losses = EXTREMES[extremes[0]], LOSSES[extremes[1]]
        for _ in range(2):  # nor may the state be spoilt
            weights = combiner(gram, extreme_context(gram, losses, extremes[2]))
            combiner.after_step(losses)
            assert weights.isfinite().all(), (options, extremes)
        drawn.add((str(options), extremes))
    assert {measure for measure in MEASURES if any(f"'{measure}'" in options for options, _ in drawn)} == set(MEASURES)
