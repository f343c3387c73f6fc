"""Tasks of different shapes in one agent: padding changes nothing."""

from __future__ import annotations

import io
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from shaped_tasks import TASKS, Reach, make
from stable_baselines3.common.vec_env import VecFrameStack, VecNormalize

from mtrl_transfer.agents import MTSAC, RoutedAgent, evaluate, load_actor, save_actor
from mtrl_transfer.agents.mtsac.losses import ActorBatch, ActorLoss, CriticBatch, CriticLoss, td_targets
from mtrl_transfer.agents.mtsac.networks import MultiTaskMLP, action_mask
from mtrl_transfer.agents.mtsac.temperatures import Temperatures
from mtrl_transfer.envs import make_vec_env

SHAPES = [(3, 1), (5, 2), (2, 4)]
WIDE, ACTIONS = 5, 4


# --- the oracle: networks cut to one task's shapes, in float64


def cut(network: MultiTaskMLP, task: int, inputs: list[int], outputs: list[int]) -> MultiTaskMLP:
    """The network of one task alone: its head, and only the inputs and outputs that it has."""
    hidden = [network.trunk[f"bias{layer}"].shape[-1] for layer in range(network.n_layers)]
    own = MultiTaskMLP(len(inputs), len(outputs), hidden, 1, network.n_nets, standardize=network.standardized).double()
    state = dict(network.state_dict())
    state["trunk.weight0"] = state["trunk.weight0"][:, inputs]
    for name in ("heads.weight", "heads.bias"):
        state[name] = state[name][task : task + 1][..., outputs]
    for name in ("input_mean", "input_scale"):
        if name in state:
            state[name] = state[name][task, 0, inputs]
    own.load_state_dict(state)
    return own


def networks(standardize: bool) -> tuple[MultiTaskMLP, MultiTaskMLP]:
    torch.manual_seed(0)
    settings: dict[str, Any] = {"n_tasks": 3, "standardize": standardize, "standardize_each": True}
    actor = MultiTaskMLP(WIDE, 2 * ACTIONS, [7, 6], **settings).double()
    critic = MultiTaskMLP(WIDE + ACTIONS, 1, [7, 6], n_nets=2, **settings).double()
    actor.action_mask = action_mask(SHAPES, ACTIONS)
    if standardize:
        for task, (features, _) in enumerate(SHAPES):
            mean, scale = torch.randn(features).double(), torch.rand(features).double() + 0.5
            for network in (actor, critic):
                network.input_mean[task, 0, :features], network.input_scale[task, 0, :features] = mean, scale
    return actor, critic


def assert_same_gradients(mixed: Any, own: Any, task: int, inputs: list[int], outputs: list[int]) -> None:
    """A task's gradients in the mixture are its own, and zero for what it does not have."""
    for name, grads in mixed.shared_grads.items():
        expected = torch.zeros_like(grads[task])
        if name == "weight0":
            expected[:, inputs] = own.shared_grads[name][0]
        else:
            expected.copy_(own.shared_grads[name][0])
        torch.testing.assert_close(grads[task], expected, rtol=1e-12, atol=1e-14)
    for name, grads in mixed.head_grads.items():
        expected = torch.zeros_like(grads[task])
        expected[..., outputs] = own.head_grads[name][0]
        torch.testing.assert_close(grads[task], expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("standardize", [False, True])
@pytest.mark.parametrize("task", range(3))
def test_padding_changes_no_task_update(task: int, standardize: bool):
    actor, critic = networks(standardize)
    features, n_actions = SHAPES[task]
    seen = list(range(features))
    seen_and_done = [*seen, *range(WIDE, WIDE + n_actions)]
    outputs = [*range(n_actions), *range(ACTIONS, ACTIONS + n_actions)]
    own_actor, own_critic = cut(actor, task, seen, outputs), cut(critic, task, seen_and_done, [0])
    generator = torch.Generator().manual_seed(1)
    draw = partial(torch.randn, generator=generator, dtype=torch.float64)
    observed, later = torch.zeros(3, 9, WIDE).double(), torch.zeros(3, 9, WIDE).double()
    for index, (width, _) in enumerate(SHAPES):
        observed[index, :, :width], later[index, :, :width] = draw(9, width), draw(9, width)
    noise, actions = draw(3, 9, ACTIONS), draw(3, 9, ACTIONS).tanh() * actor.action_mask
    rewards, discounts, alphas = draw(3, 9), draw(3, 9).sigmoid(), draw(3, 1).exp()
    one = slice(task, task + 1)
    targets = td_targets(actor, critic, later, rewards, discounts, noise, alphas)
    own_noise = noise[one][..., :n_actions]
    own_targets = td_targets(
        own_actor, own_critic, later[one][..., seen], rewards[one], discounts[one], own_noise, alphas[one]
    )
    torch.testing.assert_close(targets[one], own_targets, rtol=1e-12, atol=1e-14)
    mixed, rows = CriticLoss(critic).gradients(CriticBatch(observed, actions, targets))
    own_batch = CriticBatch(observed[one][..., seen], actions[one][..., :n_actions], own_targets)
    own, own_rows = CriticLoss(own_critic).gradients(own_batch)
    torch.testing.assert_close(rows.losses[:, one], own_rows.losses, rtol=1e-12, atol=1e-14)
    assert_same_gradients(mixed, own, task, seen_and_done, [0])
    loss, own_loss = ActorLoss(actor, critic), ActorLoss(own_actor, own_critic)
    batch = ActorBatch(observed, noise, alphas)
    own_actor_batch = ActorBatch(observed[one][..., seen], own_noise, alphas[one])
    mixed, rows = loss.gradients(batch)
    own, own_rows = own_loss.gradients(own_actor_batch)
    torch.testing.assert_close(rows.log_probs[:, one], own_rows.log_probs, rtol=1e-12, atol=1e-14)
    assert_same_gradients(mixed, own, task, seen, outputs)
    predictions = actor(observed).squeeze(0) + 0.1
    expanded = loss.loss_of(batch)(predictions)[one]
    torch.testing.assert_close(expanded, own_loss.loss_of(own_actor_batch)(predictions[one][..., outputs]))


def test_target_entropy_is_each_tasks_own():
    assert make().temperatures.target_entropy.tolist() == [-1, -2, -4]
    assert make(target_entropy=0.5).temperatures.target_entropy.tolist() == [0.5] * 3
    temperatures = Temperatures("auto", [-1.0, -4.0], 0.1, torch.device("cpu"))
    temperatures.update(torch.full((2, 5), 2.0))  # entropy -2: too low for one task, high for the other
    assert temperatures.log_alpha[0] > 0 > temperatures.log_alpha[1]


# --- the agent


@pytest.mark.parametrize("alignment", [None, "joint"])
def test_an_agent_of_different_shapes_learns_and_plays(tmp_path: Path, alignment: str | None):
    policy = {"net_arch": [8, 8], "standardize_inputs": True, "alignment": alignment}
    agent = make(combiner="transference", exploration_correlation=0.5, policy_kwargs=policy)
    agent.learn(60)
    stored = agent.replay_buffer.storage
    for task, (features, n_actions) in enumerate(SHAPES):
        assert (stored.observations[:, task, features:] == 0).all()
        assert (stored.actions[:, task, n_actions:] == 0).all()
        assert (stored.actions[: agent.replay_buffer.pos, task, :n_actions] != 0).all()
    scale, mean = agent.policy.critic.input_scale, agent.policy.critic.input_mean
    assert (mean[2, 0, 2:] == 0).all()
    assert not torch.equal(scale[0, 0, :2], scale[2, 0, :2])
    agent.save(tmp_path / "agent")
    loaded = MTSAC.load(tmp_path / "agent", env=make_vec_env(TASKS, seed=3))
    save_actor(agent, tmp_path / "actor.safetensors")
    actor = load_actor(tmp_path / "actor.safetensors")
    observations = agent.get_env().reset()
    actions, _ = agent.predict(observations, deterministic=True)
    assert (actions[0, 1:] == 0).all()
    np.testing.assert_array_equal(loaded.predict(observations, deterministic=True)[0], actions)
    np.testing.assert_allclose(actor.predict(observations)[0], actions, atol=1e-6)
    by_name = (one.predict(observations[1, :5], deterministic=True, task="two")[0] for one in (agent, actor))
    np.testing.assert_allclose(*by_name, atol=1e-5)
    assert evaluate(loaded, make_vec_env(TASKS, seed=1), n_eval_episodes=1).episodes == 1
    loaded.learn(12)


def test_predict_takes_and_returns_own_shapes():
    agent = make()
    observations = agent.get_env().reset()
    padded, _ = agent.predict(observations, deterministic=True)
    own, _ = agent.predict(observations[1, :5], deterministic=True, task="two")
    low, high = np.array([-1.0, 0.0]), np.array([1.0, 3.0])
    np.testing.assert_allclose(own, low + 0.5 * (padded[1, :2] + 1) * (high - low), rtol=1e-6)
    batch, _ = agent.predict(observations[:, :2], task="four")
    assert batch.shape == (3, 4)
    with pytest.raises(ValueError, match=r"observations of two should have 5 features; got shape \[3\]"):
        agent.predict(np.zeros(3), task="two")
    with pytest.raises(ValueError, match="no task 'tow'; did you mean two"):
        agent.predict(np.zeros(5), task="tow")


def test_predict_by_name_is_predict_by_one_hot():
    agent = make({name: partial(Reach, 3, [-2.0], [2.0]) for name in "ab"})
    assert agent.policy.actor.action_mask is None
    observations = agent.get_env().reset()
    rows, _ = agent.predict(observations, deterministic=True)
    np.testing.assert_array_equal(agent.predict(observations[1, :3], deterministic=True, task="b")[0], rows[1])


def test_other_shapes_on_load_are_one_error():
    file = io.BytesIO()
    make().save(file)
    others = {
        **TASKS,
        "two": partial(Reach, 4, [-1.0, 0.0], [1.0, 3.0]),
        "four": partial(Reach, 5, [-1.0] * 4, [1.0] * 4),
    }
    with pytest.raises(
        ValueError, match=r"trained on two with 5 features and 2 actions .* the environment's has 4 fea"
    ):
        MTSAC.load(io.BytesIO(file.getvalue()), env=make_vec_env(others))
    agent = MTSAC.load(io.BytesIO(file.getvalue()))
    with pytest.raises(ValueError, match="trained on two with 5 features"):
        agent.set_env(make_vec_env(others))


def test_groups_of_different_shapes_are_routed(tmp_path: Path):
    """Each group has its own widest task, and one of them its tasks' own bounds."""
    parts = [["one"], ["four", "two"]]
    routed = RoutedAgent(list(TASKS), [make({name: TASKS[name] for name in part}) for part in parts], [0, 1, 1])
    routed.save(tmp_path / "routed")
    loaded = RoutedAgent.load(tmp_path / "routed", "cpu")
    env = make_vec_env(TASKS, seed=3)
    observations = env.reset()
    actions, _ = routed.predict(observations, deterministic=True)
    own, _ = routed.agents[0].predict(observations[0, :3], deterministic=True, task="one")
    np.testing.assert_allclose(actions[0], [own[0] / 2, 0, 0, 0], rtol=1e-6)
    by_name, _ = routed.predict(observations[0, :3], deterministic=True, task="one")
    np.testing.assert_array_equal(by_name, own)
    np.testing.assert_array_equal(loaded.predict(observations, deterministic=True)[0], actions)
    assert evaluate(loaded, env, n_eval_episodes=1).episodes == 1


def test_a_policy_alone_keeps_its_shapes(tmp_path: Path):
    agent = make()
    agent.policy.save(tmp_path / "policy")
    policy = type(agent.policy).load(tmp_path / "policy")
    observations = agent.get_env().reset()
    np.testing.assert_array_equal(
        policy.predict(observations, deterministic=True)[0], agent.policy.predict(observations, deterministic=True)[0]
    )


def test_wrappers_that_mix_shapes_are_refused():
    arguments: dict[str, Any] = {"policy_kwargs": {"net_arch": [8]}}
    with pytest.raises(ValueError, match="VecNormalize takes its statistics over all tasks"):
        MTSAC("MultiTaskPolicy", VecNormalize(make_vec_env(TASKS)), **arguments)
    with pytest.raises(ValueError, match="wrappers around tasks of different shapes"):
        MTSAC("MultiTaskPolicy", VecFrameStack(make_vec_env(TASKS), 2), **arguments)
    MTSAC("MultiTaskPolicy", VecNormalize(make_vec_env(TASKS), norm_obs=False), **arguments)
