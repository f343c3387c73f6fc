"""Float32 products under any setting of torch."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from mtrl_transfer import Transference, gramian, make_context, per_task_gradients, precision, transference
from mtrl_transfer.precision import float32_products, product_precision

BACKENDS = hasattr(torch.backends.mkldnn, "matmul")


def settings() -> tuple[str, ...]:
    found = [torch.backends.mkldnn.matmul.fp32_precision, torch.backends.cuda.matmul.fp32_precision] if BACKENDS else []
    return (*found, legacy())


def legacy() -> str:
    try:
        return torch.get_float32_matmul_precision()
    except RuntimeError:  # the backends contradict it
        return "contradicted"


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    yield
    if BACKENDS:
        torch.backends.fp32_precision = "none"
    torch.set_float32_matmul_precision("highest")


@pytest.fixture
def _rounding(monkeypatch) -> None:
    """As on a CPU that rounds wherever it may."""
    monkeypatch.setattr(precision, "_cpu_rounds", lambda setting: True)


def set_medium() -> None:
    torch.set_float32_matmul_precision("medium")


def set_high() -> None:
    torch.set_float32_matmul_precision("high")


def set_all_by_backend() -> None:
    torch.backends.mkldnn.matmul.fp32_precision = "none"
    torch.backends.cuda.matmul.fp32_precision = "none"
    torch.backends.fp32_precision = "bf16"


def set_cpu_against_legacy() -> None:
    torch.backends.mkldnn.matmul.fp32_precision = "bf16"


def set_medium_but_cuda() -> None:
    torch.set_float32_matmul_precision("medium")
    torch.backends.cuda.matmul.fp32_precision = "ieee"


WAYS = [set_medium, set_high]
if BACKENDS:
    WAYS += [set_all_by_backend, set_cpu_against_legacy, set_medium_but_cuda]


@pytest.mark.parametrize("lower", WAYS)
@pytest.mark.usefixtures("_rounding")
def test_settings_return_even_after_an_error(lower):
    lower()
    before = settings()
    inside: list[str] = []

    @float32_products()
    def fail() -> None:
        inside.extend(settings())
        raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert set(inside) == {"ieee", "highest"} if BACKENDS else {"highest"}
    assert settings() == before


@pytest.mark.parametrize("lower", WAYS)
def test_products_inside_are_float32(lower):
    lower()
    outside = product_precision("cpu")
    with float32_products(), float32_products():
        assert product_precision("cpu") == "float32"
    assert product_precision("cpu") == outside


@pytest.mark.skipif(not BACKENDS, reason="torch before 2.9 has one setting for all backends")
@pytest.mark.usefixtures("_rounding")
def test_an_inherited_setting_stays_inherited():
    set_all_by_backend()
    with float32_products():
        pass
    torch.backends.fp32_precision = "none"
    assert settings()[0] == "none"


def test_nothing_changes_where_nothing_rounds(monkeypatch):
    monkeypatch.setattr(precision, "_cpu_rounds", lambda setting: False)
    set_medium()
    before = settings()
    with float32_products():
        assert settings() == before


def test_precision_names_the_error_of_products():
    set_medium()
    generator = torch.Generator().manual_seed(0)
    left, right = torch.randn(2, 2, 128, 128, generator=generator)
    exact = left.double() @ right.double()
    error = ((left @ right).double() - exact).norm() / exact.norm()
    largest = {"float32": 1e-6, "tf32": 1e-3, "bf16": 1e-2}[product_precision("cpu")]
    assert largest / 100 < error < largest


class Wide:
    """Three regressions on a trunk that is wide enough for products to be rounded."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        self.shared = {"weight": torch.randn(48, 64, generator=generator) / 7}
        self.heads = torch.randn(3, 64, generator=generator) / 8
        self.batch, self.held_out = (
            {"x": torch.randn(3, 64, 48, generator=generator), "y": torch.randn(3, 64, generator=generator)}
            for _ in range(2)
        )
        self.seen: list[tuple[str, ...]] = []

    def loss(self, shared, head, batch):
        self.seen.append(settings())
        return (torch.tanh(batch["x"] @ shared["weight"]) @ head - batch["y"]).square()

    def predict(self, shared, head, batch):
        return torch.tanh(batch["x"] @ shared["weight"]) @ head

    def loss_of(self, prediction, batch):
        return (prediction - batch["y"]).square()

    def gradients(self):
        return per_task_gradients(self.loss, self.shared, self.heads, self.batch)

    def decide(self, grads, **options):
        """Weights, transference and scores of one decision."""
        combiner = Transference(**options)
        context = make_context(
            *(self.loss, self.shared, self.heads, self.batch, grads),
            lookahead_batch=self.held_out,
            step_norm=torch.tensor(0.3),
            predict=self.predict,
            loss_of=self.loss_of,
        )
        weights = combiner(gramian(grads.shared_grads), context)
        return weights, combiner.last.transference, combiner.last.scores


@pytest.mark.usefixtures("_rounding")
def test_lookahead_sees_float32_and_the_update_does_not():
    wide = Wide()
    set_medium()
    grads = wide.gradients()
    assert {seen[-1] for seen in wide.seen} == {"medium"}
    wide.seen.clear()
    wide.decide(grads)
    wide.decide(grads, measure="first_order")
    transference(wide.loss, wide.shared, wide.heads, wide.batch, torch.eye(3), 0.1)
    assert {seen[-1] for seen in wide.seen} == {"highest"}
    assert legacy() == "medium"


@pytest.mark.parametrize("measure", ["exact", "first_order", "basis"])
def test_medium_chooses_as_highest_does(measure):
    wide = Wide()
    grads = wide.gradients()
    expected = wide.decide(grads, measure=measure)
    set_medium()
    for found, value in zip(wide.decide(grads, measure=measure), expected, strict=True):
        torch.testing.assert_close(found, value, rtol=1e-4, atol=1e-5)
