"""Alignment of tasks in MTSAC: where it acts, what it costs the trunk's task gradients, and when it trains."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from mtrl_transfer.agents import MTSAC, MeasureTransference
from mtrl_transfer.agents.mtsac.networks import MultiTaskMLP

Make = Callable[..., MTSAC]


def policy_kwargs(**alignment: Any) -> dict[str, Any]:
    return {"net_arch": [16, 16], "layer_norm": True, **alignment}


def randomised(network: MultiTaskMLP) -> MultiTaskMLP:
    with torch.no_grad():
        network.heads["alignment"].normal_(generator=torch.Generator().manual_seed(0))
    return network


@pytest.mark.parametrize("one_hot_in_trunk", [False, True])
def test_alignment_maps_inputs_per_task_and_net(one_hot_in_trunk: bool):
    """The oracle: one plain network a task and net, whose rows were mapped by hand."""
    torch.manual_seed(0)
    network = randomised(MultiTaskMLP(5, 2, [8, 6], 3, n_nets=2, alignment=True, one_hot_in_trunk=one_hot_in_trunk))
    plain = MultiTaskMLP(5, 2, [8, 6], 3, n_nets=2, one_hot_in_trunk=one_hot_in_trunk)
    plain.load_state_dict({name: value for name, value in network.state_dict().items() if "alignment" not in name})
    x = torch.randn(3, 7, 5)
    for net in range(2):
        mapped = torch.stack([x[task] @ network.heads["alignment"][task, net] for task in range(3)])
        torch.testing.assert_close(network(x)[net], plain(mapped)[net])
    tasks = torch.tensor([2, 0, 2, 1])
    rows = torch.randn(4, 5)
    found = network.of_tasks(rows, tasks)
    for row, task in enumerate(tasks.tolist()):
        grouped = torch.zeros(3, 1, 5)
        grouped[task, 0] = rows[row]
        torch.testing.assert_close(found[:, row], network(grouped)[:, task, 0])


def test_an_agent_begins_as_one_without_alignment(make_agent: Make):
    plain, aligned = (make_agent(policy_kwargs=policy_kwargs(**kwargs)) for kwargs in ({}, {"alignment": "joint"}))
    observations = plain.get_env().reset()
    np.testing.assert_array_equal(*(one.predict(observations, deterministic=True)[0] for one in (plain, aligned)))
    batch = aligned.minibatches.critic(plain_batch(aligned), aligned.learner.noise_generator)
    torch.testing.assert_close(
        aligned.updates["critic"].model(batch).losses, plain.updates["critic"].model(batch).losses, rtol=1e-6, atol=1e-6
    )


def plain_batch(agent: MTSAC) -> Any:
    agent.replay_buffer.pos = 0
    random = np.random.default_rng(0)
    for _ in range(10):
        observations = random.normal(size=(2, 3, 4 + 3))
        agent.replay_buffer.add(*observations, random.uniform(-1, 1, (3, 2)), np.ones(3), np.zeros(3, bool), [{}] * 3)
    return agent.minibatches.sample(24, None)


def test_alignment_has_no_part_in_the_gramian(make_agent: Make):
    """Its gradients are a head's: the task gradients that a combiner sees are of the trunk alone."""
    agent = make_agent(combiner="pcgrad", policy_kwargs=policy_kwargs(alignment="joint"))
    batch = agent.minibatches.critic(plain_batch(agent), agent.learner.noise_generator)
    tasks, _ = agent.updates["critic"]._task_gradients(batch)
    assert set(tasks.shared_grads) == set(agent.policy.critic.trunk.keys())
    width = agent.policy.obs_dim + 2
    assert tasks.head_grads["alignment"].shape == (3, 2, width, width)


def parts(agent: MTSAC) -> dict[str, dict[str, Tensor]]:
    """Copies of all parameters by part, of actor and critics."""
    found: dict[str, dict[str, Tensor]] = {"trunk": {}, "alignment": {}, "heads": {}}
    for role, network in (("actor", agent.policy.actor), ("critic", agent.policy.critic)):
        for name, value in network.state_dict().items():
            part = "alignment" if "alignment" in name else name.partition(".")[0]
            found[part][f"{role}.{name}"] = value.clone()
    return found


def changed(before: dict[str, dict[str, Tensor]], after: dict[str, dict[str, Tensor]]) -> set[str]:
    """Parts all of whose parameters changed; each part must change as a whole or not at all."""
    moved = {part: {not torch.equal(before[part][name], after[part][name]) for name in before[part]} for part in before}
    assert all(len(kinds) == 1 for kinds in moved.values()), moved
    return {part for part, kinds in moved.items() if kinds == {True}}


@pytest.mark.parametrize("combiner", ["mean", "pcgrad", "transference", "famo"])
def test_trunk_and_alignment_take_turns(make_agent: Make, combiner: str):
    agent = make_agent(combiner=combiner, policy_kwargs=policy_kwargs(alignment="alternating", alignment_period=2))
    agent.learn(60)
    assert agent._n_updates == 0
    seen = []
    for _ in range(6):
        before = parts(agent)
        agent.train(1, 24)
        seen.append(changed(before, parts(agent)))
    trunk, alignment = {"trunk", "heads"}, {"alignment", "heads"}
    assert seen == [trunk, trunk, alignment, alignment, trunk, trunk]
    assert agent.updates["critic"].n_combined == 4  # nothing is combined while the trunk is fixed


def test_joint_trains_all(make_agent: Make):
    agent = make_agent(policy_kwargs=policy_kwargs(alignment="joint")).learn(60)
    before = parts(agent)
    agent.train(1, 24)
    assert changed(before, parts(agent)) == {"trunk", "alignment", "heads"}


def test_the_target_critics_follow_the_alignment(make_agent: Make):
    agent = make_agent(policy_kwargs=policy_kwargs(alignment="joint")).learn(60)
    target = agent.policy.critic_target.heads["alignment"]
    before = target.clone()
    agent.train(1, 24)
    online = agent.policy.critic.heads["alignment"]
    torch.testing.assert_close(target, before + agent.tau * (online - before))


def test_measuring_changes_no_run_in_any_turn(make_agent: Make):
    runs = [
        make_agent(
            combiner="transference",
            policy_kwargs=policy_kwargs(alignment="alternating", alignment_period=3),
        ).learn(120, MeasureTransference(every))
        for every in (None, 2)
    ]
    for one, other in zip(*(copy.deepcopy(run.policy.state_dict()).values() for run in runs), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)


def test_alignment_is_saved(make_agent: Make, tmp_path: Path):
    agent = make_agent(policy_kwargs=policy_kwargs(alignment="alternating", alignment_period=5)).learn(120)
    assert not torch.equal(agent.policy.actor.heads["alignment"][0, 0], torch.eye(4))
    agent.save(tmp_path / "agent")
    loaded = MTSAC.load(tmp_path / "agent", env=agent.get_env())
    agent.save_replay_buffer(tmp_path / "replay")
    loaded.load_replay_buffer(tmp_path / "replay")
    for one in (agent, loaded):
        one.train(12, 24)  # over turns of both kinds
    for found, expected in zip(loaded.policy.parameters(), agent.policy.parameters(), strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=0)


def test_bad_alignment_is_named(make_agent: Make):
    with pytest.raises(ValueError, match=r"alignment='jiont' should be.*did you mean joint"):
        make_agent(policy_kwargs=policy_kwargs(alignment="jiont"))
