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


def test_times_out_of_order_are_refused():
    with pytest.raises(ValueError, match=r"at=\[20, 10\] should be increasing"):
        ResetNetworks(at=[20, 10])
