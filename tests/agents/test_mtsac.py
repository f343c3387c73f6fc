from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from safetensors.torch import load_file, save_file
from stable_baselines3.common.logger import configure
from stable_baselines3.common.utils import LinearSchedule

from mtrl_transfer import Combiner, Context, Transference, candidates
from mtrl_transfer.agents import MTSAC, MeasureTransference, MultiTaskEvalCallback, evaluate
from mtrl_transfer.agents.monitoring.training_log import record_training
from mtrl_transfer.agents.storage.agent_archive import agent_to_archive
from mtrl_transfer.agents.storage.archive import write_archive
from mtrl_transfer.envs import make_vec_env

Make = Callable[..., MTSAC]
STEPS = 150  # transitions: 30 updates after warm-up


def parameters(agent: MTSAC) -> dict[str, torch.Tensor]:
    return {**agent.policy.state_dict(), "log_alpha": agent.temperatures.log_alpha.detach()}


def assert_identical(one: MTSAC, other: MTSAC) -> None:
    for name, value in parameters(one).items():
        assert torch.equal(value, parameters(other)[name]), name


@pytest.mark.parametrize("combiner", ["mean", "pcgrad", "transference"])
def test_a_seed_fixes_the_run_bit_for_bit(make_agent: Make, combiner: str) -> None:
    agents = [make_agent(combiner=combiner, reward_scaling="max_return").learn(STEPS) for _ in range(2)]
    assert_identical(*agents)
    assert agents[0]._n_updates == 30
    with pytest.raises(AssertionError):
        assert_identical(agents[0], make_agent(combiner=combiner, reward_scaling="max_return", seed=1).learn(STEPS))


@pytest.mark.parametrize("combiner", ["mean", "pcgrad", "transference"])
def test_measuring_changes_no_bit(make_agent: Make, combiner: str) -> None:
    plain = make_agent(combiner=combiner).learn(STEPS)
    measured = make_agent(combiner=combiner).learn(STEPS, MeasureTransference(1))
    assert_identical(plain, measured)
    assert all(np.isnan(value) for value in plain.prediction_correlation().values())
    assert all(-1 <= value <= 1 for value in measured.prediction_correlation().values())
    for update in measured.updates.values():  # the first predicts nothing: no step before it has a length to match
        pairs = sum(float(moments[0]) for moments in update.measurement.correlation.state_dict().values())
        assert pairs == (measured._n_updates - 1) * measured.n_tasks


class LooksAhead(Combiner):
    """Leaves out the task whose absence the tasks together like best, by a context alone."""

    needs_context = True

    def __init__(self) -> None:
        super().__init__()
        self.lengths: list[float] = []

    def weigh(self, gramian: torch.Tensor, context: Context | None) -> torch.Tensor:
        assert context is not None
        self.lengths.append(float(context.step_norm))
        rows = candidates.leave_one_out(len(gramian))
        return rows[context.lookahead(rows).sum(dim=1).argmin()]


def test_own_combiners_look_ahead_by_the_last_step(make_agent: Make) -> None:
    plain = make_agent(combiner=LooksAhead()).learn(STEPS)
    lengths = plain.updates["critic"].combiner.lengths
    assert lengths[0] == 0.0
    assert min(lengths[1:]) > 0.0
    assert_identical(plain, make_agent(combiner=LooksAhead()).learn(STEPS, MeasureTransference(2)))


@pytest.mark.parametrize("alignment", [None, "alternating"])
def test_step_length_is_noted_before_each_measurement(
    make_agent: Make, monkeypatch: pytest.MonkeyPatch, alignment: str | None
) -> None:
    settings: dict[str, Any] = {
        "combiner": "transference",
        "combiner_kwargs": {"every": 3},
        "policy_kwargs": {"net_arch": [16, 16], "alignment": alignment, "alignment_period": 2},
    }
    agent = make_agent(**settings).learn(STEPS, MeasureTransference(4, 5))
    monkeypatch.setattr(Transference, "measures_next", True)
    always = make_agent(**settings).learn(STEPS, MeasureTransference(4, 5))
    assert_identical(agent, always)
    for role, update in agent.updates.items():
        state, expected = update.measurement.state_dict(), always.updates[role].measurement.state_dict()
        assert all(torch.equal(value, expected[name]) for name, value in state.items())


def test_evaluating_changes_no_bit(make_agent: Make) -> None:
    plain = make_agent().learn(STEPS)
    watched = make_agent().learn(STEPS, MultiTaskEvalCallback(make_vec_env("Point-3", seed=5), 10, 1))
    assert_identical(plain, watched)


def test_td_targets_come_from_next_observations(make_agent: Make) -> None:
    agent = make_agent().learn(90)
    batch = agent.minibatches.sample(24, torch.Generator().manual_seed(0))
    targets = lambda batch: agent.minibatches.critic(batch, torch.Generator().manual_seed(1)).targets  # noqa: E731
    moved = batch._replace(observations=batch.observations + 1.0)
    assert torch.equal(targets(batch), targets(moved))
    assert not torch.equal(targets(batch), targets(batch._replace(next_observations=batch.next_observations + 1.0)))
    ended = batch._replace(discounts=torch.zeros_like(batch.discounts))
    assert torch.equal(targets(ended), batch.rewards)


def test_clipped_targets_stay_within_possible_returns(make_agent: Make, tmp_path: Path) -> None:
    agent = make_agent(gamma=0.9, reward_scaling="max_reward", clip_targets=True).learn(90)
    free = make_agent(gamma=0.9, reward_scaling="max_reward").learn(90)
    rewards = agent.replay_buffer.storage.rewards[: agent.replay_buffer.size()]
    bounds = torch.stack([rewards.amin(dim=0), rewards.amax(dim=0)]).unsqueeze(-1) * 10
    low, high = bounds * agent.rewards.scaler.factors.unsqueeze(1)
    for height, bias in (("low", -100.0), ("high", 100.0), ("between", 0.0)):
        targets = {}
        for name, one in (("agent", agent), ("free", free)):
            with torch.no_grad():
                one.policy.critic_target.heads["bias"].fill_(bias)
            batch = one.minibatches.sample(24, torch.Generator().manual_seed(0))
            targets[name] = one.minibatches.critic(batch, torch.Generator().manual_seed(1)).targets
        expected = targets["free"].clamp(low, high)
        torch.testing.assert_close(targets["agent"], expected)
        edge = {"low": low, "high": high}.get(height)
        assert edge is None or torch.equal(expected, edge.expand_as(expected))
    agent.save_replay_buffer(tmp_path / "replay.safetensors")
    other = make_agent(gamma=0.9, clip_targets=True)
    other.load_replay_buffer(tmp_path / "replay.safetensors")
    np.testing.assert_array_equal(other.rewards.bounds.highest, agent.rewards.bounds.highest)
    np.testing.assert_array_equal(other.rewards.bounds.lowest, agent.rewards.bounds.lowest)
    make_agent().save_replay_buffer(tmp_path / "empty.safetensors")
    make_agent(clip_targets=True).load_replay_buffer(tmp_path / "empty.safetensors")
    for name in ("clip_targets", "reward_scaling"):
        with pytest.raises(ValueError, match="gamma below 1"):
            make_agent(gamma=1.0, **{name: True if name == "clip_targets" else "max_reward"})


def test_where_episodes_terminate_nothing_is_received_any_more(make_agent: Make, tmp_path: Path) -> None:
    """One task's reward is -1 until its goal, another's 1, and the third only stops at its time limit."""
    agent = make_agent(gamma=0.9, clip_targets=True)
    for dones in (False, True):
        infos = [{"TimeLimit.truncated": dones and task == 2} for task in range(3)]
        agent._last_obs = np.zeros((3, agent.policy.obs_dim + 3), np.float32)
        came = np.array([-1.0, 1.0, -1.0]), np.full(3, dones), infos
        agent._store_transition(agent.replay_buffer, np.zeros((3, 2)), agent._last_obs, *came)
    expected = torch.tensor([[-10.0, 0.0, -10.0], [0.0, 10.0, -10.0]])
    torch.testing.assert_close(agent.rewards.bounds.bounds, expected)
    agent.save(tmp_path / "agent")
    agent.save_replay_buffer(tmp_path / "replay.safetensors")
    torch.testing.assert_close(MTSAC.load(tmp_path / "agent").rewards.bounds.bounds, expected)
    other = make_agent(gamma=0.9, clip_targets=True)
    other.load_replay_buffer(tmp_path / "replay.safetensors")
    torch.testing.assert_close(other.rewards.bounds.bounds, expected)


@pytest.mark.parametrize("way", ["again", "loaded"])
def test_returns_stop_where_training_resets_the_environment(make_agent: Make, tmp_path: Path, way: str) -> None:
    agent = make_agent(n_steps=3, reward_scaling="max_return", learning_starts=1_000).learn(30)
    if way == "loaded":
        agent.save(tmp_path / "agent")
        agent.save_replay_buffer(tmp_path / "replay.safetensors")
        agent = MTSAC.load(tmp_path / "agent", env=make_vec_env("Point-3"))
        agent.load_replay_buffer(tmp_path / "replay.safetensors")
    agent.learn(3, reset_num_timesteps=way == "again")
    storage, gamma = agent.replay_buffer.storage, agent.gamma
    _, discounts, last = agent.replay_buffer._returns(torch.full((3, 1), 9))
    assert last.flatten().tolist() == [9, 9, 9]
    torch.testing.assert_close(discounts, torch.full((3, 1), gamma))  # no termination: its value counts on
    np.testing.assert_allclose(agent.rewards.scaler.running, storage.rewards[10].numpy(), rtol=1e-6)


def test_going_on_without_a_reset_ends_no_episode(make_agent: Make) -> None:
    agent = make_agent(learning_starts=1_000).learn(30).learn(30, reset_num_timesteps=False)
    assert not agent.replay_buffer.storage.ends.any()


def test_hidden_from_the_trunk_the_one_hot_only_selects_the_head(make_agent: Make) -> None:
    agent = make_agent(policy_kwargs={"net_arch": [16], "one_hot_in_trunk": False})
    heads = agent.policy.actor.heads
    row = np.random.default_rng(0).normal(size=agent.policy.obs_dim).astype(np.float32)
    observations = np.concatenate([np.tile(row, (3, 1)), np.eye(3, dtype=np.float32)], axis=1)
    actions = agent.predict(observations, deterministic=True)[0]
    assert not np.allclose(actions[0], actions[1])
    with torch.no_grad():
        for head in heads.values():
            head.copy_(head[:1].expand_as(head))
    actions = agent.predict(observations, deterministic=True)[0]
    # Up to rounding: rows of one product may be grouped differently.
    np.testing.assert_allclose(actions, np.tile(actions[0], (3, 1)), rtol=1e-6)


def test_by_default_the_trunk_sees_the_one_hot(make_agent: Make) -> None:
    agent = make_agent(policy_kwargs={"net_arch": [16]})
    assert agent.policy.actor.trunk["weight0"].shape[1] == agent.policy.obs_dim + 3
    with torch.no_grad():
        for head in agent.policy.actor.heads.values():
            head.copy_(head[:1].expand_as(head))
    observations = np.concatenate([np.ones((3, agent.policy.obs_dim)), np.eye(3)], axis=1).astype(np.float32)
    actions = agent.predict(observations, deterministic=True)[0]
    assert not np.allclose(actions[0], actions[1])
    agent.learn(90)


def test_predict_takes_any_mixture_of_tasks(make_agent: Make) -> None:
    agent = make_agent().learn(90)
    observations = np.random.default_rng(0).normal(size=(3, agent.policy.obs_dim)).astype(np.float32)
    rows = np.concatenate([observations, np.eye(3, dtype=np.float32)], axis=1)
    grouped = torch.tanh(agent.policy.actor(torch.tensor(observations)[:, None])[0, :, 0, :2]).detach().numpy()
    order = [2, 0, 2, 1]
    actions = agent.predict(rows[order], deterministic=True)[0]
    np.testing.assert_allclose(actions, grouped[order], rtol=1e-5)
    np.testing.assert_allclose(agent.predict(rows[1], deterministic=True)[0], grouped[1], rtol=1e-5)


def test_deterministic_actions_use_the_averaged_actor(make_agent: Make, tmp_path: Path) -> None:
    agent = make_agent(policy_kwargs={"net_arch": [8], "actor_tau": 0.25})
    average = agent.policy.actor.trunk["weight0"].detach().clone()
    move = agent.policy.move_averages

    def literally(tau: float) -> None:
        nonlocal average
        average = 0.75 * average + 0.25 * agent.policy.actor.trunk["weight0"].detach()
        move(tau)

    agent.policy.move_averages = literally  # type: ignore[method-assign]
    agent.learn(STEPS)
    torch.testing.assert_close(agent.policy.actor_average.trunk["weight0"], average)
    assert not torch.allclose(average, agent.policy.actor.trunk["weight0"], atol=1e-4)
    observations = np.concatenate([np.ones((3, agent.policy.obs_dim)), np.eye(3)], axis=1).astype(np.float32)
    expected = torch.tanh(agent.policy.actor_average(torch.as_tensor(observations[:, None, :-3]))[0, :, 0, :2])
    np.testing.assert_allclose(agent.predict(observations, deterministic=True)[0], expected.numpy(), rtol=1e-5)
    agent.save(tmp_path / "agent")
    assert_identical(agent, MTSAC.load(tmp_path / "agent"))


def test_averaging_the_actor_changes_no_training(make_agent: Make) -> None:
    plain, averaged = (
        make_agent(policy_kwargs={"net_arch": [8], "actor_tau": tau}).learn(STEPS) for tau in (None, 0.1)
    )
    for name, value in parameters(plain).items():
        assert torch.equal(value, parameters(averaged)[name]), name


def test_exploration_noise_carries_on_from_step_to_step(make_agent: Make) -> None:
    """In warm-up as uniform as independent noise; afterwards the policy's own actions at that noise."""
    agent = make_agent(learning_starts=6_000, exploration_correlation=0.9, buffer_size=6_000).learn(6_000)
    actions = agent.replay_buffer.storage.actions.numpy()
    np.testing.assert_allclose(np.quantile(np.abs(actions), [0.25, 0.5, 0.75]), [0.25, 0.5, 0.75], atol=0.05)
    assert 0.85 < np.corrcoef(actions[1:].ravel(), actions[:-1].ravel())[0, 1] < 0.93
    assert agent.exploration_noise is not None
    state, observations = agent.exploration_noise.state_dict(), agent._last_obs
    _, explored = agent._sample_action(0, None, 3)
    agent.exploration_noise.load_state_dict(state)
    noise = torch.as_tensor(agent.exploration_noise.draw())
    mean, log_std = agent.policy.actor(torch.as_tensor(observations[:, None, :-3]))[0, :, 0].detach().chunk(2, dim=-1)
    np.testing.assert_allclose(explored, torch.tanh(mean + log_std.exp() * noise).numpy(), rtol=1e-4, atol=1e-6)


def test_save_and_load(make_agent: Make, tmp_path: Path) -> None:
    agent = make_agent(combiner="transference", reward_scaling="max_return", max_grad_norm=0.5)
    agent.learn(STEPS, MeasureTransference(2)).save(tmp_path / "agent")
    loaded = MTSAC.load(tmp_path / "agent", env=agent.get_env())
    assert_identical(agent, loaded)
    assert (loaded.num_timesteps, loaded._n_updates, loaded.max_grad_norm) == (150, 30, 0.5)
    assert loaded.prediction_correlation() == agent.prediction_correlation()
    for role, share in agent.kept_share().items():
        np.testing.assert_array_equal(loaded.kept_share()[role], share)
    # From equal replay both take the same next update: optimizers, scales, generators and combiners came along.
    agent.save_replay_buffer(tmp_path / "replay.safetensors")
    loaded.load_replay_buffer(tmp_path / "replay.safetensors")
    for one in (agent, loaded):
        one.train(gradient_steps=3, batch_size=24)
    assert_identical(agent, loaded)


def test_an_archive_holds_no_pickle(make_agent: Make, tmp_path: Path) -> None:
    import zipfile

    make_agent().save(tmp_path / "agent.zip")
    with zipfile.ZipFile(tmp_path / "agent.zip") as archive:
        assert sorted(archive.namelist()) == ["data.json", "tensors.safetensors"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batch_size": 25}, "batch_size=25 should be a multiple of the 3 tasks.*e.g. 24 or 27"),
        ({"batch_size": 2}, "e.g. 3"),
        ({"combiner": "pcgrat"}, "'pcgrat'.*did you mean pcgrad"),
        ({"combiner": "transference", "combiner_kwargs": {"evry": 2}}, "evry.*did you mean every"),
        ({"combiner": Transference(), "combiner_kwargs": {"every": 2}}, "set them in combiner=Transference"),
        ({"combiner": 3}, "combiner=3 should be a name, a mtrl_transfer.Combiner, or a dict"),
        ({"combiner": "transference", "combiner_kwargs": {"critic": 3}}, "dict of arguments for the critic"),
        ({"reward_scaling": "max"}, "reward_scaling='max' should be 'max_return' or 'max_reward'"),
        ({"reward_scaling": "max_reward", "gamma": 1.0}, "needs gamma below 1"),
        ({"target_entropy": "automatic"}, "target_entropy='automatic' should be.*did you mean auto"),
        ({"ent_coef": "auto_0"}, "ent_coef='auto_0' should be a fixed number of at least 0, 'auto'"),
        ({"ent_coef": -0.1}, "ent_coef=-0.1 should be"),
        ({"exploration_correlation": 1.0}, "exploration_correlation=1.0 should be less than 1"),
        ({"n_steps": 0}, "n_steps=0 should be greater than or equal to 1"),
        ({"max_grad_norm": -1}, "max_grad_norm=-1 should be greater than 0"),
        ({"buffer_size": 0}, "buffer_size=0 should be greater than or equal to 1"),
        ({"buffer_size": 24.5}, "buffer_size=24.5 should be a valid integer"),
        ({"tau": 2.0, "gamma": 1.5}, "tau=2.0 should be .* 1; gamma=1.5 should be less than or equal to 1"),
        ({"gradient_steps": -2}, "gradient_steps=-2 should be greater than or equal to -1"),
        ({"train_freq": (1, "episode")}, r"train_freq=\[1, 'episode'\] should count steps"),
        ({"learning_rate": "fast"}, "learning_rate='fast' should be a number of at least 0, or a function"),
        ({"combiner_kwargs": {"rates": torch.ones(3)}}, "combiner_kwargs=.*cannot be stored"),
        ({"policy_kwargs": {"actor_tau": 0.0}}, "actor_tau=0.0 should be greater than 0"),
        (
            {"policy_kwargs": {"activation": "relu"}},
            "unknown key policy_kwargs.activation; did you mean policy_kwargs.activation_fn?",
        ),
        ({"policy_kwargs": {"activation_fn": "rely"}}, "did you mean relu?"),
        ({"policy_kwargs": {"activation_fn": torch.nn.Softmax}}, "activation_fn='Softmax' should be 'relu'"),
        ({"policy_kwargs": {"net_arch": []}}, r"net_arch=\[\] should be the widths"),
        ({"policy_kwargs": {"net_arch": 64}}, "net_arch=64 should be the widths"),
        ({"policy_kwargs": {"net_arch": {"pi": [8]}}}, "net_arch={'pi': .8.} should be the widths"),
        ({"policy_kwargs": {"n_critics": 0}}, "n_critics=0 should be greater than or equal to 1"),
        ({"policy_kwargs": {"optimizer_class": torch.optim.LBFGS}}, "optimizer_class='LBFGS' should be 'Adam'"),
        ({"policy_kwargs": {"optimizer_kwargs": {"eps": torch.ones(2)}}}, "holds eps=.*which cannot be stored"),
    ],
)
def test_bad_arguments_get_one_clear_message(make_agent: Make, change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_agent(**change)


def test_other_tasks_on_load_are_named(make_agent: Make, tmp_path: Path) -> None:
    make_agent().save(tmp_path / "agent")
    with pytest.raises(ValueError, match=r"trained on the tasks.*the environment has.*same tasks"):
        MTSAC.load(tmp_path / "agent", env=make_vec_env("Point-4"))


def test_tasks_in_another_order_are_refused(make_agent: Make) -> None:
    agent = make_agent("Point-5:point-a0,point-b0,point-a1")
    env, before = make_vec_env("Point-5:point-b0,point-a1,point-a0"), agent.env
    message = "trained on the tasks point-a0.*the environment has point-b0.*same order"
    for use in (agent.set_env, lambda env: evaluate(agent, env, 1)):
        with pytest.raises(ValueError, match=message):
            use(env)
    assert agent.env is before
    agent.set_env(make_vec_env("Point-5:point-a0,point-b0,point-a1"))
    agent.learn(30)


class Still(gymnasium.Env[Any, Any]):
    """Nothing happens."""

    observation_space = spaces.Box(-1, 1, (2,))

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.action_space = spaces.Box(-1, 1, shape)


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("mean", (1,), "a task is called 'mean'"),
        ("x", (2, 2), r"must have .* a Box vector .* it has .* Box\(-1.0, 1.0, \(2, 2\)"),
    ],
)
def test_tasks_that_no_agent_can_have(name: str, shape: tuple[int, ...], message: str) -> None:
    still = lambda: gymnasium.wrappers.TimeLimit(Still(shape), 10)  # noqa: E731
    with pytest.raises(ValueError, match=message):
        MTSAC("MultiTaskPolicy", make_vec_env({name: still, "other": still}), buffer_size=100)


def test_a_foreign_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "agent.zip").write_bytes(b"not a zip")
    with pytest.raises(ValueError, match="not an agent saved by MTSAC"):
        MTSAC.load(tmp_path / "agent")
    with pytest.raises(FileNotFoundError, match="no agent at"):
        MTSAC.load(tmp_path / "nothing")


def test_a_combiner_object_must_come_along(make_agent: Make, tmp_path: Path) -> None:
    agent = make_agent(combiner=Transference(every=2)).learn(90)
    assert agent.updates["critic"].combiner is not agent.updates["actor"].combiner
    agent.save(tmp_path / "agent")
    with pytest.raises(ValueError, match=r"pass combiner=Transference"):
        MTSAC.load(tmp_path / "agent")
    assert_identical(agent, MTSAC.load(tmp_path / "agent", combiner=Transference(every=2)))


@pytest.mark.parametrize(
    ("stored", "replaced"),
    [
        ({"combiner": "mean"}, {"combiner": "transference"}),
        ({"combiner": "transference", "combiner_kwargs": {"every": 2}}, {"combiner": "pcgrad"}),
        ({"combiner": "transference"}, {"combiner_kwargs": {"candidates": "power_set"}}),
        ({"combiner": "transference", "combiner_kwargs": {"every": 2}}, {"combiner": Transference(every=3)}),
        ({"combiner": Transference()}, {"combiner": "mean"}),
    ],
)
def test_another_combiner_begins_anew(make_agent: Make, tmp_path: Path, stored: Any, replaced: Any) -> None:
    agent = make_agent(**stored).learn(STEPS)
    agent.save(tmp_path / "agent")
    loaded = MTSAC.load(tmp_path / "agent", env=agent.get_env(), **replaced)
    new = make_agent(**{**stored, "combiner_kwargs": None, **replaced})
    assert_identical(agent, loaded)
    for role, update in loaded.updates.items():
        assert update.combiner.state_dict().keys() == new.updates[role].combiner.state_dict().keys()
        assert getattr(update.combiner, "last", None) is None
        assert update.choices is None
        assert torch.equal(update.kept, agent.updates[role].kept)
    loaded.learn(60, reset_num_timesteps=False)


def test_the_same_combiner_goes_on(make_agent: Make, tmp_path: Path) -> None:
    for combiner, kwargs in (("transference", {"every": 4}), (Transference(every=4), None)):
        agent = make_agent(combiner=combiner, combiner_kwargs=kwargs).learn(STEPS)
        agent.save(tmp_path / "agent")
        loaded = MTSAC.load(tmp_path / "agent", combiner=combiner)
        assert loaded.updates["critic"].combiner.every == 4
        for role, update in agent.updates.items():
            state = loaded.updates[role].combiner.state_dict()
            assert all(torch.equal(value, state[key]) for key, value in update.combiner.state_dict().items())


@pytest.mark.parametrize("way", ["agent", "replay"])
def test_generator_state_of_another_device_becomes_a_seed(make_agent: Make, tmp_path: Path, way: str) -> None:
    """On CUDA a generator's state is 16 bytes."""
    foreign = torch.tensor([7, *[0] * 15], dtype=torch.uint8)
    agent = make_agent(combiner="pcgrad").learn(90)
    if way == "agent":
        data, tensors = agent_to_archive(agent)
        moved = {name: foreign if "generator" in name else value for name, value in tensors.items()}
        assert sum(value is foreign for value in moved.values()) == 9
        write_archive(tmp_path / "agent", data, moved)
        generator = MTSAC.load(tmp_path / "agent").learner.noise_generator
    else:
        agent.save_replay_buffer(tmp_path / "replay")
        save_file({**load_file(tmp_path / "replay"), "generator": foreign}, tmp_path / "replay")
        agent.load_replay_buffer(tmp_path / "replay")
        generator = agent.replay_buffer.generator
    assert torch.equal(generator.get_state(), torch.Generator().manual_seed(7).get_state())


def test_updates_per_second_continue_after_loading(make_agent: Make, tmp_path: Path) -> None:
    agent = make_agent().learn(STEPS)
    agent.save(tmp_path / "agent")
    agent.save_replay_buffer(tmp_path / "replay.safetensors")
    loaded = MTSAC.load(tmp_path / "agent")
    loaded.load_replay_buffer(tmp_path / "replay.safetensors")
    loaded.timing.update(update=2.0, transference=1.0)
    loaded.set_logger(configure(None, []))
    record_training(loaded)
    assert loaded.logger.name_to_value["time/updates_per_second"] == 10.0


def test_sub_environments_must_be_the_tasks_in_order(make_agent: Make) -> None:
    agent = make_agent()
    reset = agent.env.reset
    agent.env.reset = lambda: reset()[::-1]
    with pytest.raises(ValueError, match="sub-environment 0 must be task 0"):
        agent.learn(30)


def test_temperatures_are_per_task(make_agent: Make) -> None:
    agent = make_agent()
    agent.temperatures.update(torch.tensor([[9.0], [2.0], [-9.0]]))
    low, kept, high = agent.temperatures.log_alpha.tolist()
    # Too little entropy (log pi high) raises a task's temperature; on target it stays.
    assert low > kept == 0.0 > high


def test_transference_can_differ_by_role(make_agent: Make) -> None:
    agent = make_agent(combiner="transference", combiner_kwargs={"every": 4, "actor": {"every": 2}})
    assert (agent.updates["critic"].combiner.every, agent.updates["actor"].combiner.every) == (4, 2)
    assert agent.updates["critic"].combiner.default_seed is not None
    agent.learn(90)


@pytest.mark.parametrize(
    ("combiner", "kwargs"),
    [
        ("transference", {"measure": {"name": "first_order", "held_out": False}}),
        ("transference", {"measure": {"name": "basis", "rows": 4}, "candidates": "power_set"}),
        ("transference", {"measure": {"step_size": "optimizer"}}),
        ("transference", {"every": 3, "selector": {"max_absence": 3}}),
        ("transference", {"candidates": ["mean", "pcgrad", "leave_one_out"]}),
        ("famo", {}),
        ("gradnorm", {}),
        ("random_drop", {}),
        ("mgda", {}),
    ],
)
def test_every_kind_of_combiner_trains_and_repeats(make_agent: Make, combiner: str, kwargs: dict[str, Any]) -> None:
    agents = [make_agent(combiner=combiner, combiner_kwargs=kwargs).learn(120) for _ in range(2)]
    assert_identical(*agents)
    assert all(torch.isfinite(value).all() for value in parameters(agents[0]).values())
    assert agents[0]._n_updates == 20


def test_combiners_hear_how_the_step_went(make_agent: Make) -> None:
    agent = make_agent(combiner="famo")
    before = agent.learn(60).updates["critic"].combiner.state_dict()
    heard: list[torch.Tensor] = []
    combiner = agent.updates["critic"].combiner
    own = combiner.after_step
    combiner.after_step = lambda losses: (heard.append(losses), own(losses))[1]  # type: ignore[method-assign]
    batch = agent.minibatches.critic(agent.minibatches.sample(24, None), agent.learner.noise_generator)
    agent.updates["critic"].step(batch, agent.minibatches.drawing(agent.minibatches.critic, agent.minibatches.sample))
    torch.testing.assert_close(heard[0], agent.updates["critic"].model(batch).losses[0].mean(dim=-1))
    after = combiner.state_dict()
    assert any(name not in before or not torch.equal(value, before[name]) for name, value in after.items())


def test_a_linear_learning_rate_falls_and_is_stored(make_agent: Make, tmp_path: Path) -> None:
    agent = make_agent(learning_rate=LinearSchedule(1e-2, 1e-3, 1.0)).learn(STEPS)
    agent.save(tmp_path / "agent")
    loaded = MTSAC.load(tmp_path / "agent")
    for one in (agent, loaded):
        assert [one.lr_schedule(progress) for progress in (1.0, 0.5, 0.0)] == pytest.approx([1e-2, 5.5e-3, 1e-3])
    assert agent.policy.actor_optimizer.param_groups[0]["lr"] == pytest.approx(1e-3)
