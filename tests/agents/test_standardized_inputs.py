"""Inputs that the networks see centred and divided by their spread."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mtrl_transfer.agents import MTSAC
from mtrl_transfer.agents.mtsac.networks import MultiTaskMLP
from mtrl_transfer.agents.mtsac.policies import LEAST_SPREAD
from mtrl_transfer.gradients import gramian

Make = Callable[..., MTSAC]


def policy_kwargs(**others: Any) -> dict[str, Any]:
    return {"net_arch": [16, 16], "layer_norm": True, "standardize_inputs": True, **others}


def networks(agent: MTSAC) -> dict[str, MultiTaskMLP]:
    policy = agent.policy
    assert policy.actor_average is not None
    return {
        "actor": policy.actor,
        "average": policy.actor_average,
        "critic": policy.critic,
        "target": policy.critic_target,
    }


@pytest.mark.parametrize("others", [{}, {"one_hot_in_trunk": True}, {"alignment": True}])
def test_a_network_sees_standardized_inputs_on_every_path(others: dict[str, bool]):
    """The oracle: the same network without buffers, whose inputs were standardised by hand."""
    torch.manual_seed(0)
    network = MultiTaskMLP(5, 2, [8, 6], 3, n_nets=2, standardize=True, **others)
    if network.aligned:
        torch.nn.init.normal_(network.heads["alignment"])
    plain = MultiTaskMLP(5, 2, [8, 6], 3, n_nets=2, **others)
    plain.load_state_dict({name: value for name, value in network.state_dict().items() if "input" not in name})
    network.input_mean.copy_(torch.randn(5))
    network.input_scale.copy_(torch.rand(5) + 0.5)
    x, rows, tasks = torch.randn(3, 7, 5), torch.randn(4, 5), torch.tensor([2, 0, 2, 1])
    by_hand = lambda values: (values - network.input_mean) * network.input_scale  # noqa: E731
    torch.testing.assert_close(network(x), plain(by_hand(x)))
    torch.testing.assert_close(network.of_tasks(rows, tasks), plain.of_tasks(by_hand(rows), tasks))


def test_moments_are_fixed_at_the_first_update(make_agent: Make):
    agent = make_agent(policy_kwargs=policy_kwargs(actor_tau=0.1))
    width, generator = agent.policy.obs_dim, agent.replay_buffer.generator.get_state()
    agent.learn(60)
    assert agent._n_updates == 0
    assert all((network.input_scale == 1).all() for network in networks(agent).values())
    agent.learn(30, reset_num_timesteps=False)
    first = {
        name: (network.input_mean.clone(), network.input_scale.clone()) for name, network in networks(agent).items()
    }
    for name, (mean, scale) in first.items():
        assert (mean[width:] == 0).all(), name  # the critics' actions are as they were
        assert (scale[width:] == 1).all(), name
        torch.testing.assert_close(mean[:width], first["actor"][0], rtol=0, atol=0)
        torch.testing.assert_close(scale[:width], first["actor"][1], rtol=0, atol=0)
    # The oracle: all that was stored by then, of which a large sample with replacement was taken.
    stored = agent.replay_buffer.storage.observations[:21].flatten(0, 1).numpy()
    np.testing.assert_allclose(first["actor"][0], stored.mean(axis=0), atol=0.05)
    np.testing.assert_allclose(1 / first["actor"][1], stored.std(axis=0), rtol=0.1)
    assert not torch.equal(agent.replay_buffer.generator.get_state(), generator)
    agent.learn(90, reset_num_timesteps=False)
    for name, network in networks(agent).items():
        assert torch.equal(network.input_mean, first[name][0]), name
        assert torch.equal(network.input_scale, first[name][1]), name


def test_moments_are_over_all_tasks_and_bounded(make_agent: Make):
    agent = make_agent(policy_kwargs=policy_kwargs())
    observations = torch.zeros(3, 50, agent.policy.obs_dim)
    observations[..., 0] = torch.tensor([-1.0, 0.0, 1.0]).unsqueeze(1)  # differs between tasks alone
    observations[..., 1] = torch.linspace(-1e-6, 1e-6, 50)  # hardly moves
    agent.policy.standardize(observations)
    scale, spread = agent.policy.actor.input_scale, (2 / 3) ** 0.5
    torch.testing.assert_close(scale[0].item(), 1 / spread, rtol=1e-5, atol=0)
    torch.testing.assert_close(scale[1:], torch.full_like(scale[1:], 1 / (LEAST_SPREAD * spread)))
    constant = torch.full_like(observations, 7.0)
    agent.policy.standardize(constant)
    assert torch.equal(agent.policy.actor.input_scale, scale)  # statistics that are there stay
    agent = make_agent(policy_kwargs=policy_kwargs())
    agent.policy.standardize(constant)
    assert (agent.policy.actor.input_scale == 1).all()
    assert (agent.policy.actor.input_mean == 7).all()


def test_nonfinite_inputs_count_as_the_mean(make_agent: Make):
    agent = make_agent(policy_kwargs=policy_kwargs())
    observations = torch.randn(3, 50, agent.policy.obs_dim, generator=torch.Generator().manual_seed(0))
    observations[0, 0, 0], observations[1, 3, 1], observations[..., 2] = torch.nan, torch.inf, torch.nan
    agent.policy.standardize(observations)
    mean, scale = agent.policy.actor.input_mean, agent.policy.actor.input_scale
    assert mean.isfinite().all()
    assert mean[2] == 0
    for dimension in (0, 1, 3):
        values = observations[..., dimension].flatten()
        finite = values[values.isfinite()]
        torch.testing.assert_close(mean[dimension], finite.mean())
        replaced = torch.where(values.isfinite(), values, finite.mean())
        torch.testing.assert_close(1 / scale[dimension], replaced.std(correction=0))


def test_a_saved_agent_keeps_them(make_agent: Make, tmp_path: Path):
    agent = make_agent(policy_kwargs=policy_kwargs(actor_tau=0.1))
    agent.learn(90)
    agent.save(tmp_path / "agent")
    loaded = MTSAC.load(tmp_path / "agent", env=agent.get_env())
    before = {name: copy.deepcopy(network.state_dict()) for name, network in networks(loaded).items()}
    for name, network in networks(agent).items():
        assert torch.equal(before[name]["input_mean"], network.input_mean), name
        assert (before[name]["input_mean"] != 0).any(), name
    observations = agent.get_env().reset()
    np.testing.assert_array_equal(*(one.predict(observations, deterministic=True)[0] for one in (agent, loaded)))
    loaded.learn(90, reset_num_timesteps=False)
    assert torch.equal(loaded.policy.actor.input_mean, before["actor"]["input_mean"])


def test_task_gradients_equal_standardizing_by_hand(make_agent: Make):
    agent = make_agent(combiner="pcgrad", policy_kwargs=policy_kwargs())
    by_hand = make_agent(combiner="pcgrad", policy_kwargs=policy_kwargs(standardize_inputs=False))
    for one in (agent, by_hand):
        one.learn(60)  # no update yet
    batch = agent.replay_buffer.sample(24)
    agent.policy.standardize(batch.observations)
    mean, scale = agent.policy.actor.input_mean, agent.policy.actor.input_scale
    seen = batch._replace(
        observations=(batch.observations - mean) * scale, next_observations=(batch.next_observations - mean) * scale
    )
    grams = []
    for one, rows in ((agent, batch), (by_hand, seen)):
        critic_batch = one.minibatches.critic(rows, torch.Generator().manual_seed(3))
        tasks, _ = one.updates["critic"]._task_gradients(critic_batch)
        grams.append(gramian(tasks.shared_grads))
    torch.testing.assert_close(*grams)
