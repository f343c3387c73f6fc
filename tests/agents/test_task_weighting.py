"""SVD task weights in MTSAC: what they are computed from, what they do to every loss, and that they are saved."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from mtrl_transfer.agents import MTSAC, ReweightTasks
from mtrl_transfer.agents.mtsac.losses import ActorBatch, ActorLoss, CriticBatch, CriticLoss
from mtrl_transfer.agents.mtsac.networks import MultiTaskMLP
from mtrl_transfer.agents.mtsac.task_weighting import SMALLEST, normalised, shared_value_weights
from mtrl_transfer.gradients import gramian
from mtrl_transfer.lookahead import StepLookahead

T, B, D, A = 3, 7, 5, 2
Make = Callable[..., MTSAC]
WEIGHTS = torch.tensor([[0.5], [1.0], [2.0]], dtype=torch.float64)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.fixture(params=["critic", "actor"])
def losses(request: pytest.FixtureRequest) -> tuple[MultiTaskMLP, Any, Any, Any]:
    """A network, its loss without and with weights, and a batch."""
    torch.manual_seed(0)
    critic = MultiTaskMLP(D + A, 1, [8, 6], T, n_nets=2).double()
    if request.param == "critic":
        batch: Any = CriticBatch(normal(T, B, D), normal(T, B, A, seed=1), normal(T, B, seed=2))
        return critic, CriticLoss(critic), CriticLoss(critic, WEIGHTS), batch
    actor = MultiTaskMLP(D, 2 * A, [8, 6], T).double()
    batch = ActorBatch(normal(T, B, D), normal(T, B, A, seed=1), normal(T, 1, seed=2).abs())
    return actor, ActorLoss(actor, critic), ActorLoss(actor, critic, WEIGHTS), batch


def test_weights_multiply_every_loss_and_every_task_gradient(losses: Any):
    _, plain, weighted, batch = losses
    factor = WEIGHTS.squeeze(1)
    own, scaled = (loss.gradients(batch)[0] for loss in (plain, weighted))
    torch.testing.assert_close(scaled.losses, own.losses * factor)
    for before, after in ((own.shared_grads, scaled.shared_grads), (own.head_grads, scaled.head_grads)):
        for name, gradient in before.items():
            torch.testing.assert_close(after[name], gradient * factor.view(-1, *[1] * (gradient.dim() - 1)))


def test_weights_multiply_lookahead_losses_and_those_of_predictions(losses: Any):
    _, plain, weighted, batch = losses
    tasks, _ = plain.gradients(batch)
    candidates, step = normal(2, T, seed=3), torch.tensor(0.01).double()
    own, scaled = (
        StepLookahead(loss, tasks, gramian(tasks.shared_grads), lambda *_: batch) for loss in (plain, weighted)
    )
    torch.testing.assert_close(scaled(candidates, step), own(candidates, step) * WEIGHTS.squeeze(1))
    for before, after in zip(own.predictions(candidates, step), scaled.predictions(candidates, step), strict=True):
        torch.testing.assert_close(scaled.loss_of(after), own.loss_of(before) * WEIGHTS.squeeze(1))


def test_weights_equal_a_direct_computation():
    torch.manual_seed(0)
    critic, target = (MultiTaskMLP(D, 1, [8, 6], T, n_nets=2) for _ in range(2))
    inputs = torch.randn(T, B, D)
    weights = shared_value_weights(critic, target, inputs, rank=2)

    rows = inputs.reshape(T * B, D).numpy().astype(np.float64)

    def features(network: MultiTaskMLP, net: int) -> np.ndarray:
        x = rows
        for layer in range(2):
            weight, bias = (network.trunk[f"{name}{layer}"][net].detach().numpy() for name in ("weight", "bias"))
            x = np.maximum(x @ weight + bias, 0)
        return x

    def value(task: int, net: int) -> np.ndarray:
        weight, bias = (target.heads[name][task, net].detach().numpy() for name in ("weight", "bias"))
        return (features(target, net) @ weight + bias)[:, 0]

    y = np.stack([np.minimum(value(task, 0), value(task, 1)) for task in range(T)], axis=1)
    y = (y - y.mean(axis=0)) / y.std(axis=0)
    models = np.concatenate([features(critic, 0), features(critic, 1)], axis=1).T @ y
    left = np.linalg.svd(models)[0][:, :2]
    lengths = np.linalg.norm(left.T @ models, axis=0)
    expected = np.maximum(lengths / lengths.mean(), SMALLEST)
    np.testing.assert_allclose(weights[:, 0].numpy(), expected / expected.mean(), rtol=1e-4)


def test_weights_have_mean_one_and_a_floor():
    np.testing.assert_allclose(normalised(torch.tensor([6.0, 3.0, 0.0])), np.array([2.0, 1.0, 0.1]) / (3.1 / 3))
    np.testing.assert_array_equal(normalised(torch.zeros(3)), np.ones(3))


@pytest.mark.parametrize("combiner", ["mean", "pcgrad", "transference", "famo"])
def test_runs_repeat_and_are_saved(make_agent: Make, combiner: str, tmp_path: Path):
    agent, again = (make_agent(combiner=combiner).learn(120, ReweightTasks(1, every=5)) for _ in range(2))
    weights = agent.learner.task_weights
    assert weights.mean().item() == pytest.approx(1.0)
    assert weights.std() > 0.01
    agent.save(tmp_path / "agent")
    loaded = MTSAC.load(tmp_path / "agent")
    agent.save_replay_buffer(tmp_path / "replay")
    loaded.load_replay_buffer(tmp_path / "replay")
    for one in (agent, again, loaded):
        one.train(7, 24)
        torch.testing.assert_close(one.learner.task_weights, weights, rtol=0, atol=0)
        for name, value in agent.policy.state_dict().items():
            torch.testing.assert_close(one.policy.state_dict()[name], value, rtol=0, atol=0)


def test_until_the_first_computation_nothing_changes(make_agent: Make):
    plain = make_agent(combiner="pcgrad").learn(120)
    waiting = make_agent(combiner="pcgrad").learn(120, ReweightTasks(1))
    weighted = make_agent(combiner="pcgrad").learn(120, ReweightTasks(1, every=5))
    for name, value in plain.policy.actor.state_dict().items():
        torch.testing.assert_close(waiting.policy.actor.state_dict()[name], value, rtol=0, atol=0)
    assert any(not torch.equal(weighted.policy.state_dict()[name], v) for name, v in plain.policy.state_dict().items())


def test_losses_are_logged_without_weights(make_agent: Make):
    agent = make_agent().learn(60)
    agent.learner.set_task_weights(WEIGHTS.float())
    batch = agent.minibatches.sample(24, torch.Generator())
    rows = [
        agent.updates["critic"].model(agent.minibatches.critic(batch, torch.Generator())),
        agent.updates["actor"].model(agent.minibatches.actor(batch, torch.Generator())),
    ]
    agent.learner.means.flush()
    agent.learner._count(*rows)
    means = agent.learner.means.flush()
    assert means["task_weight"].tolist() == [0.5, 1.0, 2.0]
    for name, found in zip(("critic_loss", "actor_loss"), rows, strict=True):
        torch.testing.assert_close(means[name] * WEIGHTS.squeeze(1).float(), found.losses[0].mean(dim=-1))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"rank": 3}, "rank=3 should be 1 to 2, below the 3 tasks"),
        ({"rank": 0}, "rank=0 must be a whole number of at least 1"),
        ({"rank": 1, "every": 0}, "every=0 must be a whole number of at least 1"),
    ],
)
def test_bad_arguments_are_named(make_agent: Make, arguments: dict[str, int], message: str):
    with pytest.raises(ValueError, match=message):
        make_agent().learn(30, ReweightTasks(**arguments))
