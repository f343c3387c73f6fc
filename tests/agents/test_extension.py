"""Tasks added to a trained agent, and taken from it."""

from __future__ import annotations

import io
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from shaped_tasks import TASKS, Reach
from shaped_tasks import make as make_shaped

from mtrl_transfer.agents import MTSAC
from mtrl_transfer.agents.mtsac.losses import action_values
from mtrl_transfer.envs import make_vec_env

BEFORE, AFTER = "Point-4:point-a0,point-b0,noise", "Point-4:point-a1,noise,point-a0"


def saved(agent: MTSAC) -> io.BytesIO:
    file = io.BytesIO()
    agent.save(file)
    return io.BytesIO(file.getvalue())


def values(agent: MTSAC, task: str, observations: np.ndarray, actions: np.ndarray) -> torch.Tensor:
    """Values ``[N, B]`` of a task's own rows, by the target critics."""
    policy, index = agent.policy, agent.task_names.index(task)
    seen = torch.zeros(agent.n_tasks, len(actions), policy.obs_dim)
    done = torch.zeros(agent.n_tasks, len(actions), agent.action_space.shape[0])
    seen[index, :, : observations.shape[1]] = torch.from_numpy(observations)
    done[index, :, : actions.shape[1]] = torch.from_numpy(actions)
    with torch.no_grad():
        return action_values(policy.critic_target, seen, done)[:, index]


def assert_same_skill(before: MTSAC, after: MTSAC, task: str) -> None:
    draw = np.random.default_rng(0)
    place = before.task_names.index(task)
    observations = draw.standard_normal((6, before.task_spaces.own[place].features)).astype(np.float32)
    before_actions, after_actions = (
        agent.predict(observations, deterministic=True, task=task)[0] for agent in (before, after)
    )
    np.testing.assert_allclose(after_actions, before_actions, rtol=1e-5, atol=1e-6)
    actions = draw.uniform(-1, 1, before_actions.shape).astype(np.float32)
    torch.testing.assert_close(values(after, task, observations, actions), values(before, task, observations, actions))
    names = before.task_names, after.task_names
    alphas = [agent.temperatures.alphas[own.index(task)] for agent, own in zip((before, after), names, strict=True)]
    assert alphas[0] == alphas[1]


@pytest.mark.parametrize("one_hot_in_trunk", [False, True])
def test_common_tasks_keep_what_was_learned(make_agent: Any, one_hot_in_trunk: bool):
    kwargs = {
        "net_arch": [16, 16],
        "layer_norm": True,
        "standardize_inputs": True,
        "actor_tau": 0.1,
        "one_hot_in_trunk": one_hot_in_trunk,
    }
    before = make_agent(BEFORE, policy_kwargs=kwargs, reward_scaling="max_return", clip_targets=True).learn(90)
    after = MTSAC.load(saved(before), env=make_vec_env(AFTER, seed=1), tasks="extend")
    assert after.task_names == ["point-a1", "noise", "point-a0"]
    for task in ("noise", "point-a0"):
        assert_same_skill(before, after, task)
    assert before.temperatures.alphas[0] != 1 == after.temperatures.alphas[0]
    assert after.rewards.scaler.largest.tolist() == [0, *before.rewards.scaler.largest[[2, 0]]]
    assert (after.num_timesteps, after._n_updates, after.batch_size) == (0, 0, before.batch_size)
    mean = after.policy.actor.input_mean.clone()
    after.learn(90)
    assert torch.equal(after.policy.actor.input_mean, mean)


def test_tasks_of_other_shapes_join_and_leave():
    few = {name: TASKS[name] for name in ("two", "one")}
    before = make_shaped(few).learn(40)
    wider = MTSAC.load(saved(before), env=make_vec_env(TASKS, seed=1), tasks="extend")
    for task in few:
        assert_same_skill(before, wider, task)
    assert wider.batch_size == 24
    scales = wider.policy.actor.input_scale.clone()
    assert (scales[2] == 1).all()
    wider.learn(40)
    assert not (wider.policy.actor.input_scale[2, 0, :2] == 1).any()
    assert torch.equal(wider.policy.actor.input_scale[:2], scales[:2])
    narrower = MTSAC.load(saved(wider), env=make_vec_env({**few, "four": TASKS["four"]}, seed=1), tasks="extend")
    for task in TASKS:
        assert_same_skill(wider, narrower, task)


def test_tasks_of_one_shape_get_a_wider_companion():
    alike = {name: partial(Reach, 3, [-2.0], [2.0]) for name in "ab"}
    before = make_shaped(alike).learn(40)
    after = MTSAC.load(saved(before), env=make_vec_env({**TASKS, **alike}, seed=1), tasks="extend")
    assert_same_skill(before, after, "b")
    assert after.policy.actor.input_mean.shape == (5, 1, 5)


def test_replay_of_common_tasks_is_loaded(tmp_path: Path):
    few = {name: TASKS[name] for name in ("two", "one")}
    before = make_shaped(few, buffer_size=60).learn(100)
    before.save_replay_buffer(tmp_path / "replay")
    env = make_vec_env(TASKS, seed=1)
    after = MTSAC.load(saved(before), env=env, tasks="extend", buffer_size=75)  # 25 steps of each task
    after.load_replay_buffer(tmp_path / "replay")
    old, new = before.replay_buffer, after.replay_buffer
    assert (new.size(), new.starts) == (25, [0, 0, 25])
    assert torch.equal(new.storage.rewards[:25, :2], old.rows(old.added - 25, old.added)["rewards"][:, [1, 0]])
    assert torch.equal(new.storage.actions[:25, 0, :1], old.rows(old.added - 25, old.added)["actions"][:, 1, :1])
    after.learn(18)
    batch = new.sample(3 * 200)
    assert (batch.observations[2] != 0).any(dim=-1).all()  # none of the steps before it came
    assert len(batch.rewards[0].unique()) > len(batch.rewards[2].unique()) == 6
    after.save_replay_buffer(tmp_path / "again")
    again = MTSAC.load(saved(after))
    again.load_replay_buffer(tmp_path / "again")
    assert again.replay_buffer.starts == [0, 0, 25]
    foreign = make_shaped({"four": TASKS["four"]})
    with pytest.raises(ValueError, match="stored are two, one; none of them is one of four"):
        foreign.load_replay_buffer(tmp_path / "replay")


def test_refused_extensions(make_agent: Any):
    file = saved(make_agent(BEFORE))
    with pytest.raises(ValueError, match="tasks='extend' needs env"):
        MTSAC.load(file, tasks="extend")
    with pytest.raises(ValueError, match=r"unknown tasks: 'extended'.*[Dd]id you mean .?extend"):
        MTSAC.load(file, tasks="extended")
    with pytest.raises(
        ValueError, match="no task in common: trained were point-a0, point-b0, noise, now one, two, four"
    ):
        MTSAC.load(file, env=make_vec_env(TASKS), tasks="extend")
    with pytest.raises(ValueError, match=r"trained on noise with 4 features .* the environment's has 3 features"):
        MTSAC.load(file, env=make_vec_env({"noise": TASKS["one"]}), tasks="extend")
    with pytest.raises(ValueError, match="policy_kwargs should be the same"):
        MTSAC.load(file, env=make_vec_env(AFTER), tasks="extend", policy_kwargs={"net_arch": [16, 16]})
    arguments = {"net_arch": [16, 8], "layer_norm": True}
    with pytest.raises(ValueError, match="are net_arch and n_critics the same"):
        MTSAC.load(file, env=make_vec_env(AFTER), tasks="extend", policy_kwargs=arguments)


def test_a_metaworld_task_is_added():
    arguments = {"batch_size": 8, "learning_starts": 4, "combiner": "mean", "policy_kwargs": {"net_arch": [16]}}
    env = make_vec_env("MT10:reach-v3", n_goals=1)
    before = MTSAC("MultiTaskPolicy", env, seed=0, **arguments).learn(10)
    env = make_vec_env("MT10:push-v3,reach-v3", n_goals=1)
    after = MTSAC.load(saved(before), env=env, tasks="extend")
    assert_same_skill(before, after, "reach-v3")
    after.learn(20)
