import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from mtrl_transfer import Mean, combine, gramian, keep_finite, per_task_gradients
from mtrl_transfer.shared_linear import shared_linear


def flat(grads, n_tasks):
    return torch.cat([g.reshape(n_tasks, -1) for g in grads.values()], 1)


def test_equal_to_separate_autograd_calls(problem, form):
    found = per_task_gradients(batch=problem.batch, **problem.form(form))
    torch.testing.assert_close(flat(found.shared_grads, 4), problem.literal_gradients())
    torch.testing.assert_close(found.losses, problem.losses(problem.batch).detach())
    for t, head in enumerate(problem.model.heads):
        expected = torch.autograd.grad(problem.losses(problem.batch)[t], [head.weight, head.bias])
        own = found.head_grads[t] if form == "list of heads" else {k: v[t] for k, v in found.head_grads.items()}
        torch.testing.assert_close([own["weight"], own["bias"]], list(expected))


def test_no_graph_and_no_grad_is_left_behind(problem, form):
    found = per_task_gradients(batch=problem.batch, **problem.form(form))
    assert not any(value.requires_grad for value in [found.losses, *found.shared_grads.values()])
    assert all(parameter.grad is None and parameter.requires_grad for parameter in problem.model.trunk.parameters())


def test_works_where_gradients_are_switched_off(problem, form):
    expected = per_task_gradients(batch=problem.batch, **problem.form(form))
    with torch.no_grad():
        found = per_task_gradients(batch=problem.batch, **problem.form(form))
    torch.testing.assert_close(found.shared_grads, expected.shared_grads, rtol=0, atol=0)


@pytest.mark.parametrize("where", ["shared", "head", "loss", "nowhere"])
def test_a_task_that_is_not_finite_is_in_nobodys_step(problem, form, where):
    found = per_task_gradients(batch=problem.batch, **problem.form(form))
    expected = {name: grad.clone() for name, grad in found.shared_grads.items()}
    if where == "shared":
        next(iter(found.shared_grads.values()))[2].fill_(float("inf"))
    elif where == "head":
        (found.head_grads[2] if form == "list of heads" else {k: v[2] for k, v in found.head_grads.items()})[
            "bias"
        ].fill_(float("nan"))
    elif where == "loss":
        found.losses[2] = float("nan")
    kept, sound = keep_finite(found)
    assert sound.tolist() == [True, True, where == "nowhere", True]
    for name, grad in kept.shared_grads.items():
        assert torch.equal(grad, expected[name] * sound.view(-1, *[1] * (grad.ndim - 1)))
    assert (kept.losses[2] == 0) == (where != "nowhere")
    its_head = kept.head_grads[2] if form == "list of heads" else {k: v[2] for k, v in kept.head_grads.items()}
    assert any(one.any() for one in its_head.values()) == (where == "nowhere")


def test_mean_equals_plain_backward_of_the_mean_loss(problem, form):
    found = per_task_gradients(batch=problem.batch, **problem.form(form))
    weights = Mean()(gramian(found.shared_grads))
    problem.losses(problem.batch).mean().backward()
    for name, grad in combine(found.shared_grads, weights).items():
        torch.testing.assert_close(grad, problem.model.trunk.get_parameter(name).grad)


def test_unlike_tasks():
    shared = {"w": torch.tensor([1.0, 2.0]), "unused by one": torch.tensor(3.0)}
    heads = [{"a": torch.tensor([2.0])}, {"b": torch.ones(2, 3), "c": (torch.tensor(1.0),)}]
    batch = [torch.tensor(5.0), torch.ones(4, 2)]

    def first(shared, head, batch):
        return batch * head["a"].sum() * shared["w"].sum()

    def second(shared, head, batch):
        return (batch * shared["w"]) @ head["b"].sum(1) * head["c"][0] * shared["unused by one"]

    found = per_task_gradients([first, second], shared, heads, batch)
    torch.testing.assert_close(found.losses, torch.tensor([30.0, 27.0]))
    torch.testing.assert_close(found.shared_grads["w"], torch.tensor([[10.0, 10.0], [9.0, 9.0]]))
    torch.testing.assert_close(found.shared_grads["unused by one"], torch.tensor([0.0, 9.0]))
    torch.testing.assert_close(found.head_grads[0], {"a": torch.tensor([15.0])})
    torch.testing.assert_close(found.head_grads[1]["c"][0], torch.tensor(27.0))


def batched_networks(n_nets=2, n_tasks=3):
    """Task gradients of networks side by side, as `[T, N, ...]` views of memory ordered `[N, T, ...]`."""
    generator = torch.Generator().manual_seed(0)
    draw = lambda *shape: torch.randn(shape, generator=generator, dtype=torch.float64)  # noqa: E731
    shared = {"w": draw(n_nets, 4, 5), "b": draw(n_nets, 1, 5)}
    x = draw(1, n_tasks, 6, 4)
    target = draw(n_nets, n_tasks, 6, 5)

    def losses(shared, heads, batch):
        return (shared_linear(x, shared["w"], shared["b"]) - batch).square().mean(dim=(0, 2, 3))

    batch = target.transpose(0, 1)
    return per_task_gradients(
        None, shared, {}, batch, losses=lambda s, h, b: losses(s, h, b.transpose(0, 1))
    ).shared_grads


class LargestCopy(TorchDispatchMode):
    """Elements of the largest tensor that was copied, and of the largest product."""

    elements = product = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if func.overloadpacket in (torch.ops.aten.clone, torch.ops.aten.copy_, torch.ops.aten._to_copy):
            self.elements = max(self.elements, result.numel())
        if func.overloadpacket is torch.ops.aten.bmm:
            self.product = max(self.product, result.numel())
        return result


@pytest.mark.parametrize(
    "layout",
    [
        lambda g: g,
        lambda g: g.transpose(1, 2).contiguous().transpose(1, 2),
        lambda g: g.movedim(0, 1).contiguous().movedim(1, 0),
        lambda g: g.movedim(0, -1).contiguous().movedim(-1, 0),
    ],
    ids=["contiguous", "matrices transposed", "networks first", "task axis fastest"],
)
def test_gramian_and_sums_of_any_memory_layout_without_a_copy(layout):
    draw = torch.Generator().manual_seed(0)
    grads = {
        "w": layout(torch.randn(3, 2, 4, 5, generator=draw, dtype=torch.float64)),
        "b": torch.randn(3, 5, generator=draw).double(),
    }
    vectors = torch.cat([grads["w"].reshape(3, -1), grads["b"]], 1)
    weights = torch.randn(6, 3, generator=draw, dtype=torch.float64)
    with LargestCopy() as copied:
        found = gramian(grads)
        assert copied.product <= 2 * 3 * 3, "one [T, T] block a network"
        sums, one = combine(grads, weights), combine(grads, weights[0])
    assert copied.elements == 0
    torch.testing.assert_close(found, vectors @ vectors.T)
    torch.testing.assert_close(sums["w"].reshape(6, -1), weights @ vectors[:, :40])
    torch.testing.assert_close(sums["b"], weights @ vectors[:, 40:])
    torch.testing.assert_close(one["w"].flatten(), weights[0] @ vectors[:, :40])
    assert one["w"].shape == (2, 4, 5)


def test_networks_side_by_side_are_read_where_they_lie():
    grads = batched_networks()
    assert grads["w"].transpose(0, 1).is_contiguous()
    assert not grads["w"].is_contiguous()
    with LargestCopy() as copied:
        found, sums = gramian(grads), combine(grads, torch.eye(3, dtype=torch.float64)[:2])
    assert copied.elements == 0
    vectors = flat(grads, 3)
    torch.testing.assert_close(found, vectors @ vectors.T)
    torch.testing.assert_close(sums["w"], grads["w"][:2])


def test_cross_gramian_is_giver_by_receiver():
    first = {"w": torch.tensor([[1.0, 0.0], [0.0, 2.0]])}
    second = {"w": torch.tensor([[3.0, 5.0], [7.0, 11.0]]).T.contiguous().T}
    torch.testing.assert_close(gramian(first, second), torch.tensor([[3.0, 7.0], [10.0, 22.0]]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"heads": [{}] * 3}, "len\\(heads\\) = 3"),
        ({"batch": [None] * 2}, "len\\(batch\\) = 2"),
        ({"heads": {}, "batch": ()}, "number of tasks is unknown"),
        ({"task_loss": None}, "needs losses="),
        ({"losses": lambda shared, heads, batch: torch.zeros(4, 1)}, "must return shape \\[4\\], got \\[4, 1\\]"),
    ],
)
def test_errors_name_what_is_wrong(problem, change, message):
    with pytest.raises(ValueError, match=message):
        per_task_gradients(**{**problem.form("mapped"), "batch": problem.batch, **change})


def test_empty_gradients():
    with pytest.raises(ValueError, match="no shared parameters"):
        gramian({})
