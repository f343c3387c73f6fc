"""Resets of networks: what they renew, what they keep, and when."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from mtrl_transfer.agents import MTSAC, ResetNetworks
from mtrl_transfer.agents.mtsac.policies import MultiTaskPolicy

Make = Callable[..., MTSAC]


def parameters(agent: MTSAC) -> list[torch.Tensor]:
    return [value.detach().clone() for value in agent.policy.parameters()]


def test_renewed_networks_are_those_of_the_seed(make_agent: Make):
    agent = make_agent()
    agent.learn(90)
    stream = torch.get_rng_state()
    agent.policy.renew(7)
    assert torch.equal(torch.get_rng_state(), stream)
    torch.manual_seed(7)
    fresh = type(agent.policy)(**agent.policy._get_constructor_parameters())
    for own, new in zip(agent.policy.parameters(), fresh.parameters(), strict=True):
        assert torch.equal(own, new)
    for optimizer in (agent.policy.actor_optimizer, agent.policy.critic_optimizer):
        assert all((value == 0).all() for state in optimizer.state.values() for value in state.values())


def test_share_shrinks_and_perturbs(make_agent: Make):
    agent = make_agent()
    agent.learn(90)
    before = parameters(agent)
    agent.policy.renew(7, share=0.25)
    after = parameters(agent)
    agent.policy.renew(7)
    for old, mixed, new in zip(before, after, parameters(agent), strict=True):
        torch.testing.assert_close(mixed, 0.75 * old + 0.25 * new)


@pytest.mark.parametrize("overlap", [False, True])
def test_reset_adds_updates_once(make_agent: Make, monkeypatch: pytest.MonkeyPatch, overlap: bool):
    renewed: list[int] = []
    monkeypatch.setattr(MultiTaskPolicy, "renew", lambda _, seed, share: renewed.append(seed))
    agent, callback = make_agent(overlap=overlap), ResetNetworks(at=[75, 90], updates=4)
    agent.learn(81, callback)
    agent.learn(30, callback, reset_num_timesteps=False)
    plain = make_agent(overlap=overlap).learn(111)
    assert renewed == [75, 90]
    assert agent._n_updates == plain._n_updates + 8


def test_next_training_resets_at_its_own_times(make_agent: Make, monkeypatch: pytest.MonkeyPatch):
    renewed: list[int] = []
    monkeypatch.setattr(MultiTaskPolicy, "renew", lambda _, seed, share: renewed.append(seed))
    agent, callback = make_agent(), ResetNetworks(at=[75, 90], updates=1)
    for _ in range(2):
        agent.learn(93, callback)
    assert renewed == [75, 90] * 2


def test_frozen_parameters_are_not_renewed(make_agent: Make):
    agent = make_agent(policy_kwargs={"net_arch": [8, 8], "actor_tau": 0.1})
    agent.policy.critic.trunk["weight0"].requires_grad_(False)
    agent.policy.actor.trunk["weight1"].requires_grad_(False)
    before = dict(zip(agent.policy.state_dict(), parameters(agent), strict=True))
    agent.policy.renew(7)
    stayed = {name for name, value in agent.policy.named_parameters() if torch.equal(value, before[name])}
    roles = {"critic": "weight0", "critic_target": "weight0", "actor": "weight1", "actor_average": "weight1"}
    assert {f"{role}.trunk.{name}" for role, name in roles.items()} <= stayed
    assert not any(name.endswith("heads.weight") for name in stayed)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"at": [20, 10]}, r"at=\[20, 10\] should be increasing"),
        ({"at": [0]}, "at=0 must be a whole number"),
        ({"at": [20], "updates": -1}, "updates=-1 must be a whole number"),
        ({"at": [20], "share": 2.0}, "share=2.0 should be at most 1"),
    ],
)
def test_values_out_of_range_are_refused(arguments: dict, told: str):
    with pytest.raises(ValueError, match=told):
        ResetNetworks(**arguments)
