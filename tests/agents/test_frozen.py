"""Parameters that do not require a gradient stay in training, and count nowhere."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from mtrl_transfer import probe
from mtrl_transfer.agents import MTSAC, MeasureTransference

BY_OPTIMIZER = {"measure": {"name": "exact", "step_size": "optimizer"}}


@pytest.mark.parametrize(
    ("combiner", "kwargs", "frozen"),
    [
        ("mean", {}, ["trunk"]),
        ("mean", {}, ["trunk.weight0", "heads.bias"]),
        ("pcgrad", {}, ["trunk"]),
        ("transference", BY_OPTIMIZER, ["trunk.weight0", "heads.bias"]),
        ("transference", BY_OPTIMIZER, ["heads"]),
        ("transference", {"measure": "basis"}, ["trunk.weight1"]),
    ],
)
def test_frozen_parameters_stay(make_agent: Callable[..., MTSAC], combiner: str, kwargs: dict, frozen: list):
    agent = make_agent(combiner=combiner, combiner_kwargs=kwargs)
    for network in (agent.policy.actor, agent.policy.critic):
        for name, parameter in network.named_parameters():
            parameter.requires_grad_(not any(name.startswith(part) for part in frozen))
    networks = [agent.policy.actor, agent.policy.critic]
    before = [(one, one.detach().clone()) for network in networks for one in network.parameters()]
    agent.learn(105, MeasureTransference(3, 4))
    for parameter, value in before:
        assert torch.equal(parameter, value) != parameter.requires_grad


def test_steps_alone_leave_frozen_layers(make_agent: Callable[..., MTSAC], monkeypatch: pytest.MonkeyPatch):
    agent = make_agent().learn(90)
    update = agent.updates["critic"]
    for name in ("weight0", "bias1", "scale0"):
        agent.policy.critic.trunk[name].requires_grad_(False)
    rows, others = (
        agent.minibatches.critic(agent.minibatches.sample(size, None), agent.learner.noise_generator)
        for size in (9, 15)
    )
    found = []
    for times_wider in (0, 1_000):  # by low rank, and by task gradients
        monkeypatch.setattr(probe, "FEW", times_wider)
        found.append(probe.effects_alone(update.model, rows, others, torch.tensor(0.3)))
    (before, low_rank, _), (_, full, _) = found
    assert ((low_rank - before).abs() > 1e-5).any()
    torch.testing.assert_close(low_rank - before, full - before, rtol=1e-3, atol=2e-6)
