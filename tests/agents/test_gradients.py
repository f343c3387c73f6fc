"""The network's task gradients, lookahead and steps against literal computations in float64."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from torch import Tensor

from mtrl_transfer import Combiner, Mean, PCGrad, Update, lookahead
from mtrl_transfer.agents.mtsac.losses import ActorBatch, ActorLoss, CriticBatch, CriticLoss
from mtrl_transfer.agents.mtsac.networks import MultiTaskMLP
from mtrl_transfer.gradients import gramian
from mtrl_transfer.lookahead import StepLookahead

T, B, D, A = 3, 7, 5, 2


def critic_problem(generator: torch.Generator, **net: Any) -> tuple[MultiTaskMLP, Any, Any]:
    critic = MultiTaskMLP(D + A, 1, [8, 6], T, n_nets=2, **net).double()
    batch = CriticBatch(*(normal(generator, *shape) for shape in ((T, B, D), (T, B, A), (T, B))))
    return critic, CriticLoss(critic), batch


def actor_problem(generator: torch.Generator, **net: Any) -> tuple[MultiTaskMLP, Any, Any]:
    actor = MultiTaskMLP(D, 2 * A, [8, 6], T, **net).double()
    critic, _, _ = critic_problem(generator)
    batch = ActorBatch(normal(generator, T, B, D), normal(generator, T, B, A), torch.rand(T, 1, dtype=torch.float64))
    return actor, ActorLoss(actor, critic), batch


def normal(generator: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


@pytest.fixture(params=["critic", "actor", "aligned critic", "aligned actor"])
def problem(request: pytest.FixtureRequest) -> tuple[MultiTaskMLP, Any, Any]:
    torch.manual_seed(0)
    make = critic_problem if "critic" in request.param else actor_problem
    network, loss, batch = make(
        torch.Generator().manual_seed(1), layer_norm=True, alignment=request.param.startswith("aligned")
    )
    if network.aligned:
        with torch.no_grad():
            network.heads["alignment"] += 0.3 * normal(
                torch.Generator().manual_seed(2), *network.heads["alignment"].shape
            )
    return network, loss, batch


def own_losses(loss: Any, batch: Any) -> Tensor:
    return loss(batch).losses[0].mean(dim=-1)


def test_task_gradients_equal_separate_autograd_calls(problem: Any) -> None:
    network, loss, batch = problem
    tasks, _ = loss.gradients(batch)
    names, heads = [*network.trunk.keys()], dict(network.heads.items())
    for task, own_loss in enumerate(own_losses(loss, batch)):
        trunk = [network.trunk[name] for name in names]
        expected = torch.autograd.grad(own_loss, [*trunk, *heads.values()], retain_graph=True)
        for name, gradient in zip(names, expected, strict=False):
            torch.testing.assert_close(tasks.shared_grads[name][task], gradient)
        for name, gradient in zip(heads, expected[len(names) :], strict=True):
            torch.testing.assert_close(tasks.head_grads[name][task], gradient[task])


def test_lookahead_equals_a_copy_stepped_by_hand(problem: Any) -> None:
    network, loss, batch = problem
    lookahead = lookahead_of(problem)
    tasks = lookahead.tasks
    weights = torch.tensor([[0.0, 0.0, 0.0], [1.0, 0.5, -0.2], [0.0, 0.0, 2.0]], dtype=torch.float64)
    found = lookahead(weights, 0.05)
    saved = copy.deepcopy(network.state_dict())
    for row, candidate in enumerate(weights):
        with torch.no_grad():
            for name, parameter in network.trunk.items():
                for task in range(T):
                    parameter -= 0.05 * candidate[task] * tasks.shared_grads[name][task]
        torch.testing.assert_close(found[row], own_losses(loss, batch), rtol=1e-12, atol=1e-12)
        network.load_state_dict(saved)
    # None is the matched step: as long along the full set as the trunk's last real step.
    full_norm = (gramian(tasks.shared_grads).sum().sqrt() / T).item()
    torch.testing.assert_close(lookahead(weights), lookahead(weights, 0.3 / full_norm))


def lookahead_of(problem: Any, *optimizer: Any) -> StepLookahead:
    _, loss, batch = problem
    tasks, _ = loss.gradients(batch)
    length = torch.tensor(0.3).double()
    return StepLookahead(loss, tasks, gramian(tasks.shared_grads), lambda *_: batch, length, *optimizer)


CANDIDATES = torch.tensor([[0.0, 0.0, 0.0], [1.0, 0.5, 0.2], [0.0, 0.3, 2.0]], dtype=torch.float64)


def test_losses_of_predictions_are_the_losses(problem: Any) -> None:
    network, _, _ = problem
    lookahead = lookahead_of(problem)
    for step_size, tolerance in ((0.0, 1e-12), (1e-4, 1e-6)):
        step = torch.tensor(step_size).double()
        predictions = lookahead.predictions(CANDIDATES, step)
        found = torch.stack([lookahead.loss_of(prediction) for prediction in predictions])
        # The critics' is exact; the actor expands Q in the action, which a small step hardly moves.
        exact = network.n_nets == 2
        torch.testing.assert_close(found, lookahead(CANDIDATES, step), rtol=0, atol=1e-12 if exact else tolerance)


def test_gradients_at_a_step_are_those_of_a_stepped_copy(problem: Any) -> None:
    network, loss, batch = problem
    lookahead = lookahead_of(problem)
    found, rows = lookahead.gradients_at(CANDIDATES[1], 0.05), lookahead.row_losses(CANDIDATES[1:2], 0.05)
    with torch.no_grad():
        for name, parameter in network.trunk.items():
            parameter -= 0.05 * torch.einsum("t,t...->...", CANDIDATES[1], lookahead.tasks.shared_grads[name])
    expected, given = loss.gradients(batch)
    torch.testing.assert_close(rows, given.losses)
    torch.testing.assert_close(found.losses, expected.losses)
    for name, gradient in expected.shared_grads.items():
        torch.testing.assert_close(found.shared_grads[name], gradient)


@pytest.mark.parametrize("clip", [None, 1e-3])
def test_optimizer_lookahead_equals_a_real_step(problem: Any, clip: float | None) -> None:
    network, loss, batch = problem
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
    update = Update(loss, optimizer, EqualWeights(), max_grad_norm=clip)
    update.step(batch)
    full = torch.full((1, T), 1 / T, dtype=torch.float64)
    found = lookahead_of(problem, optimizer, clip).after_optimizer(full)
    torch.testing.assert_close(found[0], own_losses(loss, batch))
    heads = copy.deepcopy(network.heads.state_dict())
    update.step(batch)
    network.heads.load_state_dict(heads)
    torch.testing.assert_close(found[1], own_losses(loss, batch), rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("at_once", [1, 2])
def test_candidates_in_turns_are_the_candidates(problem: Any, at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    optimizer = torch.optim.Adam(problem[0].parameters(), lr=1e-2)
    look = lookahead_of(problem, optimizer)
    together = look(CANDIDATES, 0.1), look.after_optimizer(CANDIDATES)
    monkeypatch.setattr(lookahead, "CPU_UNITS", at_once * T * B * problem[0].width)
    assert len(look._parts(len(CANDIDATES))) == math.ceil(len(CANDIDATES) / at_once)
    in_turns = look(CANDIDATES, 0.1), look.after_optimizer(CANDIDATES)
    torch.testing.assert_close(in_turns, together, rtol=1e-12, atol=1e-12)
    assert not torch.allclose(together[1][2], together[1][3])


class EqualWeights(Combiner):
    """The mean, but computed from task gradients."""

    def __call__(self, gramian: Tensor, context: Any = None) -> Tensor:
        return torch.full_like(gramian[0], 1 / len(gramian))


def stepped(problem: Any, combiner: Combiner, clip: float | None) -> dict[str, Tensor]:
    network, loss, batch = problem
    saved = copy.deepcopy(network.state_dict())
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    Update(loss, optimizer, combiner, max_grad_norm=clip).step(batch)
    result = copy.deepcopy(network.state_dict())
    network.load_state_dict(saved)
    return result


@pytest.mark.parametrize("clip", [None, 0.01])
def test_mean_equals_plain_backward_of_the_mean_loss(problem: Any, clip: float | None) -> None:
    network, loss, batch = problem
    plain = copy.deepcopy(network.state_dict())
    gradients = torch.autograd.grad(own_losses(loss, batch).mean(), list(network.parameters()))
    norm = torch.stack([gradient.square().sum() for gradient in gradients]).sum().sqrt()
    factor = 1.0 if clip is None else min(1.0, clip / (norm.item() + 1e-6))
    for (name, _), gradient in zip(network.named_parameters(), gradients, strict=True):
        plain[name] = plain[name] - 0.1 * factor * gradient
    for combiner in (Mean(), EqualWeights()):
        result = stepped(problem, combiner, clip)
        for name, expected in plain.items():
            torch.testing.assert_close(result[name], expected, rtol=1e-10, atol=1e-12)


def test_a_combiner_touches_the_trunk_alone(problem: Any) -> None:
    mean, surgery = stepped(problem, Mean(), None), stepped(problem, PCGrad(), None)
    assert any(not torch.equal(mean[name], surgery[name]) for name in mean if name.startswith("trunk"))
    for name in mean:
        if name.startswith("heads"):
            torch.testing.assert_close(mean[name], surgery[name], rtol=1e-10, atol=1e-12)


class KnownWeights(Combiner):
    """Fixed weights, told before the gradients or computed after them."""

    def __init__(self, told: bool) -> None:
        super().__init__()
        self.weights, self.told = torch.tensor([0.5, 0.0, 0.2], dtype=torch.float64), told

    def reuse(self) -> Tensor | None:
        return self.weights if self.told else None

    def weigh(self, gramian: Tensor, context: Any) -> Tensor:
        return self.weights


@pytest.mark.parametrize("clip", [None, 0.01])
def test_known_weights_need_one_plain_backward(problem: Any, clip: float | None) -> None:
    told, computed = (stepped(problem, KnownWeights(told), clip) for told in (True, False))
    for name, expected in computed.items():
        torch.testing.assert_close(told[name], expected, rtol=1e-10, atol=1e-12)


def test_both_predictions_are_held_against_what_the_step_did(problem: Any) -> None:
    network, loss, batch = problem
    others = batch._replace(observations=batch.observations.flip(1) + 0.3)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.05)
    signed = network.n_nets == 1  # the actor's losses are divided by their spread
    update = Update(loss, optimizer, EqualWeights())
    trunk = list(network.trunk.values())
    predicted, realised, length = [], [], torch.tensor(0.0)
    for step in range(4):
        before = [parameter.detach().clone() for parameter in trunk]
        old, slopes = own_losses(loss, others), []
        divisor = (loss(batch).losses[0].std(dim=-1) if signed else old).detach()
        full = torch.cat([g.flatten() for g in torch.autograd.grad(own_losses(loss, batch).mean(), trunk)])
        for own_loss in own_losses(loss, others):
            slopes.append(torch.cat([g.flatten() for g in torch.autograd.grad(own_loss, trunk, retain_graph=True)]))
        heads = copy.deepcopy(network.heads.state_dict())
        update.step(batch, lambda *_: others, measure=True)
        moved = copy.deepcopy(network.heads.state_dict())
        network.heads.load_state_dict(heads)
        if step:  # the first has no step before it whose length it could match
            predicted.append(length / full.norm() * (torch.stack(slopes) @ full) / divisor)
            realised.append((old - own_losses(loss, others)).detach() / divisor)
        network.heads.load_state_dict(moved)
        length = torch.cat([(new - was).flatten() for new, was in zip(trunk, before, strict=True)]).norm().detach()
    pairs = torch.stack([torch.cat(predicted), torch.cat(realised)])
    by_hand = torch.corrcoef(pairs)[0, 1].item()
    assert update.measurement.correlation_first_order.overall() == pytest.approx(by_hand, rel=1e-6)
    assert update.measurement.correlation.overall() != pytest.approx(by_hand, rel=1e-4)
    assert by_hand < 0.99999  # or else any two lines would pass for it


def test_each_task_at_a_trunk_of_its_own(problem: Any) -> None:
    """The diagonal of all tasks' losses at all trunks, and its gradients."""
    _, loss, batch = problem
    generator = torch.Generator().manual_seed(3)
    trunks = {
        name: (value.detach() + 0.3 * normal(generator, T, *value.shape)).requires_grad_()
        for name, value in loss.trunk.items()
    }
    found, expected = loss.losses_of_own(batch, trunks), loss.losses(batch, trunks).diagonal()
    torch.testing.assert_close(found, expected)
    grads = [torch.autograd.grad(one.sum(), list(trunks.values())) for one in (found, expected)]
    torch.testing.assert_close(*grads)
