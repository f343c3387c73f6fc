"""Files of stable-baselines3's SAC: opened only where they are trusted, and then equal to the original."""

from __future__ import annotations

import base64
import io
import json
import pickle
import zipfile
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3 import SAC, TD3
from stable_baselines3.common.vec_env import VecEnvWrapper
from torch import nn

from mtrl_transfer.agents import MTSAC, evaluate
from mtrl_transfer.envs import make_vec_env

T, STEPS = 3, 55


def make_sac(env: Any, **arguments: Any) -> SAC:
    """SAC with sizes that differ from layer to layer, trained a little."""
    net = {"net_arch": {"pi": [7, 5], "qf": [6, 4]}, "activation_fn": nn.Tanh}
    settings = {"learning_starts": 30, "batch_size": 12, "buffer_size": 90, "n_steps": 2, "seed": 1}
    return SAC("MlpPolicy", env, **{**settings, "policy_kwargs": net, **arguments}).learn(T * STEPS)


class WithoutOneHot(VecEnvWrapper):
    """What somebody sees who trains an expert on bare observations."""

    def __init__(self, env: Any) -> None:
        space = spaces.Box(-np.inf, np.inf, (env.observation_space.shape[0] - T,), np.float32)
        super().__init__(env, space)

    def reset(self) -> np.ndarray:
        return self.venv.reset()[:, :-T]

    def step_wait(self) -> Any:
        observations, rewards, dones, infos = self.venv.step_wait()
        for info in infos:
            if "terminal_observation" in info:
                info["terminal_observation"] = info["terminal_observation"][:-T]
        return observations[:, :-T], rewards, dones, infos


@pytest.fixture(scope="module")
def sac() -> SAC:
    return make_sac(make_vec_env("Point-3", seed=0))


@pytest.fixture
def path(sac: SAC, tmp_path: Path) -> Path:
    sac.save(tmp_path / "sac")
    sac.save_replay_buffer(tmp_path / "replay.pkl")
    return tmp_path / "sac.zip"


def check_same_networks(agent: MTSAC, sac: SAC, width: int) -> None:
    """Actions, their distribution, and values: of the task's own rows, and of every task's."""
    generator = np.random.default_rng(0)
    features = generator.normal(size=(T, 8, agent.policy.obs_dim)).astype(np.float32)
    one_hot = np.repeat(np.eye(T, dtype=np.float32)[:, None], 8, axis=1)
    actions = generator.uniform(-1, 1, (T, 8, 2)).astype(np.float32)
    seen = np.concatenate([features, one_hot], axis=-1)
    theirs = torch.from_numpy(seen[..., :width].reshape(T * 8, width))
    np.testing.assert_allclose(
        agent.predict(seen.reshape(T * 8, -1), deterministic=True)[0],
        sac.predict(theirs.numpy(), deterministic=True)[0],
        atol=1e-6,
    )
    with torch.no_grad():
        out = agent.policy.actor(torch.from_numpy(features)).reshape(T * 8, -1)
        mean, log_std, _ = sac.actor.get_action_dist_params(theirs)
        torch.testing.assert_close(out, torch.cat([mean, log_std], dim=-1), atol=1e-6, rtol=1e-5)
        for ours, other in ((agent.policy.critic, sac.critic), (agent.policy.critic_target, sac.critic_target)):
            values = ours(torch.from_numpy(np.concatenate([features, actions], axis=-1)))
            expected = torch.stack(other(theirs, torch.from_numpy(actions).reshape(T * 8, 2)))
            torch.testing.assert_close(values.reshape(2, T * 8, 1), expected, atol=1e-6, rtol=1e-5)


def test_a_sac_that_saw_the_one_hot(path: Path, sac: SAC):
    env = make_vec_env("Point-3", seed=4)
    agent = MTSAC.load(path, env, trust=True, combiner="pcgrad", max_grad_norm=None)
    check_same_networks(agent, sac, agent.observation_space.shape[0])
    assert (agent.task_names, agent.combiner) == (env.get_attr("task_name"), "pcgrad")
    assert (agent.gamma, agent.batch_size, agent.num_timesteps) == (sac.gamma, 12, T * STEPS)
    assert agent.n_steps == agent.replay_buffer.n_steps == sac.n_steps == 2
    assert agent.entropy_target == sac.target_entropy
    torch.testing.assert_close(agent.log_alpha.detach(), sac.log_ent_coef.detach().expand(T))
    # It goes on as any agent of ours: the heads part, and it is saved without pickle.
    agent.learn(T * STEPS)
    heads = agent.policy.actor.heads["weight"]
    assert not torch.equal(heads[0], heads[1])
    agent.save(path.with_name("ours"))
    again = MTSAC.load(path.with_name("ours"))
    assert torch.equal(again.policy.actor.heads["weight"], heads)


def test_an_expert_of_one_task_becomes_the_start_of_all(tmp_path: Path):
    """It never saw a one-hot; so neither do our trunks."""
    sac = make_sac(WithoutOneHot(make_vec_env("Point-3", seed=0)), ent_coef=0.2, batch_size=7)
    sac.save(tmp_path / "sac")
    agent = MTSAC.load(tmp_path / "sac", make_vec_env("Point-3"), trust=True)
    check_same_networks(agent, sac, agent.policy.obs_dim)
    assert agent.batch_size == 128 * T  # 7 is no multiple of the tasks
    torch.testing.assert_close(agent.log_alpha.detach().exp(), torch.full((T,), 0.2))


def test_from_a_stream_and_evaluated_by_the_protocol(sac: SAC):
    stream = io.BytesIO()
    sac.save(stream)
    agent = MTSAC.load(stream, make_vec_env("Point-3"), trust=True)
    ours = evaluate(agent, make_vec_env("Point-3", seed=9), 2)
    theirs = evaluate(sac, make_vec_env("Point-3", seed=9), 2)
    np.testing.assert_allclose(ours.returns, theirs.returns, rtol=1e-4)


def test_replay_comes_along(path: Path, sac: SAC):
    """The ring of 30 steps has overflowed; the newest fit, oldest first, and time limits are no terminations."""
    replay = path.with_name("replay.pkl")
    agent = MTSAC.load(path, make_vec_env("Point-3"), trust=True, buffer_size=3 * 20)
    agent.load_replay_buffer(replay, trust=True)
    theirs = sac.replay_buffer
    assert theirs.full
    assert theirs.pos == 25
    order = [*range(theirs.pos, 30), *range(theirs.pos)][-20:]
    stored = agent.replay_buffer.storage
    for ours, expected in (
        (stored.observations, theirs.observations[..., :-T]),
        (stored.next_observations, theirs.next_observations[..., :-T]),
        (stored.actions, theirs.actions),
        (stored.rewards, theirs.rewards),
        (stored.ends, theirs.dones),
    ):
        np.testing.assert_array_equal(ours.numpy(), expected[order])
    assert theirs.dones.any()  # the horizon is 50
    assert not stored.terminations.any()
    assert agent.replay_buffer.size() == 20
    agent.learn(T * 30)


class Bomb:
    """Writes a file when unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (Path.write_text, (self.path, "boom"))


def test_without_trust_no_pickle_is_run(path: Path, tmp_path: Path):
    """The zip and the replay are sound but for one pickle, which runs as soon as they are trusted."""
    fuse, trap = tmp_path / "exploded", tmp_path / "trap.zip"
    with zipfile.ZipFile(path) as sound, zipfile.ZipFile(trap, "w") as archive:
        for name in sound.namelist():
            content = sound.read(name)
            if name == "data":
                bomb = base64.b64encode(pickle.dumps(Bomb(fuse))).decode()
                content = json.dumps(json.loads(content) | {"extra": {":type:": "x", ":serialized:": bomb}}).encode()
            archive.writestr(name, content)
    mine = tmp_path / "replay"
    mine.write_bytes(pickle.dumps(Bomb(fuse)))
    agent = MTSAC.load(path, make_vec_env("Point-3"), trust=True)
    for distrust in ({}, {"trust": False}):
        with pytest.raises(
            ValueError, match=r"runs any code: if you trust who made it, MTSAC\.load\(\.\.\., env=env, trust"
        ):
            MTSAC.load(trap, make_vec_env("Point-3"), **distrust)
        with pytest.raises(ValueError, match=r"if you trust who made it, load_replay_buffer\(path, trust=True\)"):
            agent.load_replay_buffer(mine, **distrust)
    assert not fuse.exists()
    MTSAC.load(trap, make_vec_env("Point-3"), trust=True)
    assert fuse.read_text() == "boom"
    fuse.unlink()
    with pytest.raises(ValueError, match="should hold a plain ReplayBuffer"):
        agent.load_replay_buffer(mine, trust=True)
    assert fuse.exists()


def test_trust_changes_nothing_for_our_own_files(path: Path, tmp_path: Path):
    agent = MTSAC.load(path, make_vec_env("Point-3"), trust=True)
    agent.learn(T * STEPS)
    agent.save(tmp_path / "agent")
    agent.save_replay_buffer(tmp_path / "replay")
    again = MTSAC.load(tmp_path / "agent", trust=True)
    again.load_replay_buffer(tmp_path / "replay", trust=True)
    assert torch.equal(again.replay_buffer.storage.rewards, agent.replay_buffer.storage.rewards)
    (tmp_path / "noise.zip").write_bytes(b"noise")
    with pytest.raises(ValueError, match="is not an agent saved by MTSAC"):
        MTSAC.load(tmp_path / "noise", trust=True)


def test_what_does_not_fit_is_refused(path: Path, tmp_path: Path):
    env = make_vec_env("Point-3")
    for message, arguments in {
        "does not say what tasks it knows: pass env=": {},
        "observes 7 numbers, the environment gives 4 and a one-hot of 4": {"env": make_vec_env("Point-4")},
        "policy_kwargs: cannot be set with a SAC's networks": {"env": env, "policy_kwargs": {}},
        "evil: cannot be set": {"env": env, "evil": 1},
        "acts in Box": {"env": make_vec_env({"a": Other, "b": Other, "c": Other})},
    }.items():
        with pytest.raises(ValueError, match=message):
            MTSAC.load(path, trust=True, **arguments)
    with pytest.raises(ValueError, match="is of 3 environments; this agent's are 4"):
        MTSAC("MultiTaskPolicy", make_vec_env("Point-4")).load_replay_buffer(path.with_name("replay.pkl"), trust=True)


class Other(gym.Env[np.ndarray, np.ndarray]):
    """Observations as Point's, other actions."""

    observation_space = spaces.Box(-np.inf, np.inf, (4,), np.float32)
    action_space = spaces.Box(-1.0, 1.0, (5,), np.float32)


@pytest.mark.parametrize(
    ("algorithm", "arguments", "message"),
    [
        (TD3, {}, "'actor.mu.weight' is missing"),
        (SAC, {"policy_kwargs": {"n_critics": 3}}, r"also has critic\.qf2\.0\.bias"),
        (SAC, {"policy_kwargs": {"n_critics": 1}}, r"critic\.qf1' is missing"),
        (SAC, {"use_sde": True}, "is missing"),
        (SAC, {"policy_kwargs": {"activation_fn": nn.Hardtanh}}, "Hardtanh.* is none of relu"),
    ],
)
def test_other_algorithms_and_networks_are_named(algorithm: Any, arguments: Any, message: str, tmp_path: Path):
    env = make_vec_env("Point-3")
    net = {"net_arch": [4], **arguments.pop("policy_kwargs", {})}
    algorithm("MlpPolicy", env, buffer_size=30, policy_kwargs=net, **arguments).save(tmp_path / "other")
    with pytest.raises(ValueError, match=message):
        MTSAC.load(tmp_path / "other", env, trust=True)
