"""SB3's contract for off-policy algorithms, adapted from its own test-suite: a new release is checked in a minute."""

from __future__ import annotations

import copy
import io
import multiprocessing
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from gymnasium import spaces
from safetensors.torch import load_file
from stable_baselines3 import SAC
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.buffers import NStepReplayBuffer
from stable_baselines3.common.callbacks import (
    BaseCallback,
    CallbackList,
    CheckpointCallback,
    EvalCallback,
    EveryNTimesteps,
    StopTrainingOnMaxEpisodes,
    StopTrainingOnNoModelImprovement,
    StopTrainingOnRewardThreshold,
)
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.logger import configure
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.type_aliases import ReplayBufferSamples
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecEnv, VecFrameStack, VecNormalize
from torch import Tensor

from mtrl_transfer.agents import MTSAC, MultiTaskPolicy, MultiTaskReplayBuffer, RoutedAgent, evaluate
from mtrl_transfer.agents.mtsac.buffers import TaskBatch
from mtrl_transfer.agents.mtsac.losses import ActorBatch, ActorLoss, CriticBatch, CriticLoss, td_targets
from mtrl_transfer.agents.mtsac.networks import MultiTaskMLP
from mtrl_transfer.envs import make_vec_env

Make = Callable[..., MTSAC]
T, WIDTH = 3, 7
ROWS, GAMMA = 64, 0.97
PATHS = ["agent", "agent.zip", "new/folders/agent", "agent.other"]


@pytest.fixture
def make(make_agent: Make) -> Make:
    """The smallest agent, on three Point tasks; updates begin after 30 transitions."""
    small = {"net_arch": [8]}
    return lambda **kwargs: make_agent(**{"policy_kwargs": small, "batch_size": 12, "learning_starts": 30, **kwargs})


@pytest.fixture(scope="module")
def trained() -> MTSAC:
    """An agent that has learned a little, which tests must not change."""
    env = make_vec_env("Point-3", seed=0)
    small: dict[str, Any] = {"net_arch": [8]}
    agent = MTSAC("MultiTaskPolicy", env, combiner="mean", batch_size=12, buffer_size=600, policy_kwargs=small, seed=0)
    return agent.learn(150)


@pytest.fixture(scope="module")
def rows() -> np.ndarray:
    """Observations of all tasks ``[6, D + T]``."""
    features = np.random.default_rng(0).uniform(-1, 1, (2 * T, WIDTH - T))
    return np.concatenate([features, np.eye(T)[[0, 1, 2, 2, 1, 0]]], axis=1).astype(np.float32)


def actions(model: Any, rows: np.ndarray) -> np.ndarray:
    return model.predict(rows, deterministic=True)[0]


def assert_same(one: MTSAC, other: MTSAC) -> None:
    """Networks, optimizers and temperatures to the last bit."""
    torch.testing.assert_close(one.get_parameters(), other.get_parameters(), rtol=0, atol=0)
    assert torch.equal(one.temperatures.log_alpha, other.temperatures.log_alpha)


class OwnTask(gym.Env[np.ndarray, np.ndarray]):
    """A task as users write it: float64 observations with the one-hot, no attributes of ours but its name."""

    observation_space = spaces.Box(-np.inf, np.inf, (2 + T,), np.float64)
    action_space = spaces.Box(np.array([-2, 0], np.float32), np.array([3, 1], np.float32))

    def __init__(self, index: int) -> None:
        self.code, self.task_name = np.eye(T)[index], f"own-{index}"

    def reset(self, *, seed: int | None = None) -> tuple[np.ndarray, dict]:  # type: ignore[override]
        super().reset(seed=seed)
        self.t = 0
        return self._see(), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict]:
        assert self.action_space.contains(np.asarray(action, np.float32))
        self.t += 1
        return self._see(), 1.0, False, self.t >= 10, {}

    def _see(self) -> np.ndarray:
        return np.concatenate([self.np_random.uniform(-1, 1, 2), self.code])


def own_env(cls: Any = DummyVecEnv, **kwargs: Any) -> VecEnv:
    return cls([lambda index=index: Monitor(OwnTask(index)) for index in range(T)], **kwargs)


def own_agent(env: VecEnv, **kwargs: Any) -> MTSAC:
    settings: dict[str, Any] = {"combiner": "mean", "batch_size": 12, "learning_starts": 30, "buffer_size": 300}
    return MTSAC("MultiTaskPolicy", env, **{**settings, "policy_kwargs": {"net_arch": [8]}, "seed": 0, **kwargs})


# --- predict ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float64, np.float16, np.int64, np.uint8, bool, list, tuple])
@pytest.mark.parametrize("deterministic", [True, False])
def test_predict_takes_any_number_type(trained: MTSAC, dtype: Any, deterministic: bool):
    rows = np.concatenate([np.ones((T, WIDTH - T)), np.eye(T)], axis=1)
    given = dtype(rows.tolist()) if dtype in (list, tuple) else rows.astype(dtype)
    found, state = trained.predict(given, deterministic=deterministic)
    assert state is None
    assert found.dtype == np.float32
    if deterministic:
        np.testing.assert_array_equal(found, actions(trained, rows.astype(np.float32)))


def test_predict_keeps_the_batch_axis(trained: MTSAC, rows: np.ndarray):
    assert actions(trained, rows).shape == (6, 2)
    assert actions(trained, rows[:1]).shape == (1, 2)
    assert actions(trained, rows[0]).shape == (2,)
    np.testing.assert_allclose(actions(trained, rows[4]), actions(trained, rows)[4], rtol=1e-5)


@pytest.mark.parametrize("shape", [(WIDTH + 1,), (2, WIDTH - 1), (2, 2, WIDTH)])
def test_observations_of_another_shape_are_refused(trained: MTSAC, shape: tuple[int, ...]):
    with pytest.raises(ValueError, match="Unexpected observation shape"):
        trained.predict(np.ones(shape, np.float32))
    with pytest.raises(ValueError, match="should be an array of numbers, not dict"):
        trained.predict({"observation": np.ones(WIDTH)})


def test_gymnasiums_reset_is_told_from_sb3s(trained: MTSAC, rows: np.ndarray):
    with pytest.raises(ValueError, match="mixing Gym API with SB3 VecEnv API"):
        trained.predict((rows[0], {}))


@pytest.mark.parametrize("code", [[0, 0, 0], [1, 1, 0], [np.nan, 0, 0]])
def test_ambiguous_one_hots_are_refused(trained: MTSAC, rows: np.ndarray, code: list[float]):
    odd = rows.copy()
    odd[4, -T:] = code
    routed = RoutedAgent(trained.task_names, [trained], [0] * T)
    for model in (trained, routed):
        with pytest.raises(
            ValueError, match=r"observation 4 ends with .*, which names no task; expected a one-hot of 3"
        ):
            model.predict(odd)
    with pytest.raises(ValueError, match="names no task"):
        trained.policy.explore(odd, np.zeros((6, 2), np.float32))


def test_training_refuses_one_hots_of_zeros():
    class NoCode(OwnTask):
        def __init__(self, index: int) -> None:
            super().__init__(index)
            self.code = np.zeros(T)

    env = DummyVecEnv([lambda index=index: Monitor(NoCode(index)) for index in range(T)])
    with pytest.raises(ValueError, match=r"must end with the one-hot of 3 tasks; found \[0\.0, 0\.0, 0\.0\]"):
        own_agent(env).learn(30)


def test_actions_stay_within_their_bounds():
    """``OwnTask`` checks each of them."""
    agent = own_agent(own_env()).learn(60)
    assert agent.replay_buffer.storage.actions.abs().max() <= 1


@pytest.mark.parametrize(("low", "high"), [(0, 0), (1, -1), (np.nan, 1)])
def test_an_action_without_a_choice_is_refused(low: float, high: float):
    env = own_env()
    env.action_space = spaces.Box(-1, 1, (2,))
    env.action_space.low[1], env.action_space.high[1] = low, high
    with pytest.raises((ValueError, AssertionError), match=r"action dimension 1 has low=|finite lower and upper bound"):
        own_agent(env)


# --- save and load ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("kind", [str, Path])
def test_load_finds_what_save_wrote(trained: MTSAC, rows: np.ndarray, tmp_path: Path, path: str, kind: Any):
    for _ in range(2):  # the second save replaces the first
        trained.save(kind(tmp_path / path))
    loaded = MTSAC.load(kind(tmp_path / path))
    assert_same(trained, loaded)
    np.testing.assert_array_equal(actions(loaded, rows), actions(trained, rows))
    written = path if "." in path else f"{path}.zip"
    assert [one for one in tmp_path.rglob("*") if one.is_file()] == [tmp_path / written]


def test_save_and_load_by_streams(trained: MTSAC, tmp_path: Path):
    memory = io.BytesIO()
    trained.save(memory)
    memory.seek(0)
    with (tmp_path / "file").open("wb") as file:
        trained.save(file)
    with (tmp_path / "file").open("rb") as file:
        for loaded in (MTSAC.load(memory), MTSAC.load(file)):
            assert_same(trained, loaded)


def test_a_loaded_agent_learns_on(trained: MTSAC, tmp_path: Path):
    trained.save(tmp_path / "agent")
    loaded = MTSAC.load(tmp_path / "agent", env=make_vec_env("Point-3", seed=3))
    loaded.learn(60, reset_num_timesteps=False)
    assert loaded.num_timesteps == 210
    assert loaded._n_updates > trained._n_updates


def test_replaced_arguments_reach_the_replay(trained: MTSAC, tmp_path: Path):
    trained.save(tmp_path / "agent")
    loaded = MTSAC.load(tmp_path / "agent", gamma=0.5, n_steps=4, buffer_size=300, custom_objects={"tau": 0.5})
    buffer = loaded.replay_buffer
    assert (buffer.gamma, buffer.n_steps, buffer.buffer_size, loaded.tau) == (0.5, 4, 100, 0.5)


def test_unknown_custom_objects_are_ignored(trained: MTSAC, tmp_path: Path):
    """RL Zoo passes these for every algorithm."""
    trained.save(tmp_path / "agent")
    zoo = {"learning_rate": 0.0, "lr_schedule": lambda _: 0.0, "clip_range": lambda _: 0.0}
    assert MTSAC.load(tmp_path / "agent", custom_objects=zoo, buffer_size=1).learning_rate == 0.0
    with pytest.raises(TypeError, match="MTSAC has no argument gama; did you mean gamma"):
        MTSAC.load(tmp_path / "agent", gama=0.5)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (
            {"policy_kwargs": {"net_arch": [4]}},
            ValueError,
            r"cannot be loaded with policy_kwargs=.*\[4\].*size mismatch",
        ),
        ({"buffer_size": 10**13}, MemoryError, "buffer_size=10000000000000 transitions take .* GiB"),
        ({"device": "mps"}, ValueError, "device='mps' cannot be used here"),
        ({"batch_size": 13}, ValueError, "batch_size=13 should be a multiple of the 3 tasks"),
        ({"policy": "CnnPolicy"}, ValueError, "CnnPolicy"),
        ({"env": 3}, ValueError, "the environment 3 should be a vector environment"),
    ],
)
def test_a_wrong_argument_of_load_is_named(
    trained: MTSAC, tmp_path: Path, change: dict[str, Any], error: type[Exception], message: str
):
    trained.save(tmp_path / "agent")
    with pytest.raises(error, match=message) as raised:
        MTSAC.load(tmp_path / "agent", **change)
    assert "damaged" not in str(raised.value)


def test_another_device_is_refused_for_policies(trained: MTSAC, tmp_path: Path):
    trained.policy.save(tmp_path / "policy")
    for make in (partial(MultiTaskPolicy.load, tmp_path / "policy"), partial(own_agent, own_env())):
        with pytest.raises(ValueError, match="device='mps' cannot be used here"):
            make(device="mps")


def test_a_folder_is_no_agent(trained: MTSAC, tmp_path: Path):
    with pytest.raises(FileNotFoundError, match=r"is a folder, not an agent; that of a run is .*agent\.zip"):
        MTSAC.load(tmp_path)


@pytest.mark.parametrize("part", ["policy", "actor"])
def test_a_compiled_policy_can_be_saved(make: Make, rows: np.ndarray, tmp_path: Path, part: str):
    agent, plain = make(), make()
    if part == "policy":
        agent.policy = torch.compile(agent.policy, backend="eager")
    else:
        agent.policy.actor = torch.compile(agent.policy.actor, backend="eager")
    agent.save(tmp_path / "agent")
    np.testing.assert_array_equal(actions(MTSAC.load(tmp_path / "agent"), rows), actions(plain, rows))


# --- parameters -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", PATHS)
def test_parameters_are_set_from_a_file(make: Make, trained: MTSAC, tmp_path: Path, path: str):
    trained.save(tmp_path / path)
    for source in (str(tmp_path / path), tmp_path / path):
        agent = make(seed=1)
        agent.set_parameters(source)
        torch.testing.assert_close(agent.get_parameters(), trained.get_parameters(), rtol=0, atol=0)
    agent.learn(60)


def test_parameters_are_set_from_a_dict(make: Make, trained: MTSAC, rows: np.ndarray):
    agent = make(seed=1)
    agent.set_parameters(trained.get_parameters())
    np.testing.assert_array_equal(actions(agent, rows), actions(trained, rows))
    agent = make(seed=1)
    agent.set_parameters({"policy": trained.policy.state_dict()}, exact_match=False)
    np.testing.assert_array_equal(actions(agent, rows), actions(trained, rows))


def test_parameters_that_do_not_match_are_refused(make: Make, trained: MTSAC, tmp_path: Path):
    with pytest.raises(ValueError, match="Names of parameters do not match"):
        make().set_parameters({"policy": trained.policy.state_dict()})
    with pytest.raises(ValueError, match="nothing is an invalid object name"):
        make().set_parameters({"nothing": {}})
    with pytest.raises(RuntimeError, match="size mismatch"):
        make(policy_kwargs={"net_arch": [4]}).set_parameters(trained.get_parameters())
    with pytest.raises(FileNotFoundError, match="no agent at"):
        make().set_parameters(tmp_path / "nothing")


def test_assigned_parameters_are_trained(make: Make, trained: MTSAC):
    before = trained.get_parameters()["policy"]["actor.trunk.weight0"].clone()
    agents = []
    for assign in (True, False):
        agents.append(make())
        agents[-1].policy.load_state_dict(trained.policy.state_dict(), assign=assign)
        agents[-1].learn(60)
    assert_same(*agents)
    assert torch.equal(trained.policy.actor.trunk["weight0"], before)
    assert not torch.equal(agents[0].policy.actor.trunk["weight0"], before)


@pytest.mark.parametrize("settings", [{}, {"alignment": "joint"}, {"one_hot_in_trunk": True, "layer_norm": True}])
def test_networks_read_their_own_parameters(make: Make, rows: np.ndarray, settings: dict[str, Any]):
    one, other = (make(seed=seed, policy_kwargs={"net_arch": [8], **settings}) for seed in (0, 1))
    inputs = torch.as_tensor(rows[:T, None, : WIDTH - T])
    with torch.no_grad():
        zeros = {name: torch.zeros_like(value) for name, value in one.policy.actor.named_parameters()}
        assert torch.func.functional_call(one.policy.actor, zeros, (inputs,)).abs().max() == 0
        expected = other.policy.actor(inputs)
        actor = copy.deepcopy(one.policy.actor)
        actor.load_state_dict(other.policy.actor.state_dict(), assign=True)
        assert torch.equal(actor(inputs), expected)
        one.policy.load_state_dict(other.policy.state_dict(), assign=True)
        assert torch.equal(one.policy.actor(inputs), expected)
        torch.testing.assert_close(one.policy.double().actor(inputs.double()).float(), expected)
        copied = copy.deepcopy(one.policy.float())
        for value in copied.parameters():
            value.zero_()
    np.testing.assert_array_equal(actions(copied, rows), 0)
    np.testing.assert_array_equal(actions(one, rows), actions(other, rows))


# --- policies alone ---------------------------------------------------------------------------------------------------


class OwnPolicy(MultiTaskPolicy):
    """As users extend it."""


@pytest.mark.parametrize("path", ["policy", "policy.pkl", "new/folder/policy"])
@pytest.mark.parametrize("cls", [MultiTaskPolicy, OwnPolicy])
def test_a_policy_is_saved_alone(rows: np.ndarray, tmp_path: Path, path: str, cls: Any):
    settings = {"net_arch": {"pi": [6], "qf": [4, 4]}, "actor_tau": 0.1, "standardize_inputs": True, "n_critics": 3}
    agent = own_agent(make_vec_env("Point-3"), policy_kwargs=settings, buffer_size=100)
    agent.policy.save(tmp_path / path)
    loaded = cls.load(tmp_path / path)
    assert type(loaded) is cls
    torch.testing.assert_close(loaded.state_dict(), agent.policy.state_dict(), rtol=0, atol=0)
    np.testing.assert_array_equal(actions(loaded, rows), actions(agent, rows))
    again = io.BytesIO()
    loaded.save(again)
    again.seek(0)
    np.testing.assert_array_equal(actions(cls.load(again), rows), actions(agent, rows))


def test_an_own_policy_is_given_to_load(rows: np.ndarray, tmp_path: Path):
    env = make_vec_env("Point-3")
    agent = MTSAC(OwnPolicy, env, combiner="mean", batch_size=12, buffer_size=90, policy_kwargs={"net_arch": [8]})
    agent.save(tmp_path / "agent")
    for given in ({"policy": OwnPolicy}, {"custom_objects": {"policy_class": OwnPolicy}}):
        loaded = MTSAC.load(tmp_path / "agent", **given)
        assert type(loaded.policy) is OwnPolicy
        np.testing.assert_array_equal(actions(loaded, rows), actions(agent, rows))
    with pytest.raises(ValueError, match="policy is a OwnPolicy, whose code is not stored: pass policy=OwnPolicy"):
        MTSAC.load(tmp_path / "agent")


def test_agents_and_policies_are_told_apart(trained: MTSAC, tmp_path: Path):
    trained.save(tmp_path / "agent")
    trained.policy.save(tmp_path / "policy")
    with pytest.raises(ValueError, match="holds an agent and not a policy alone"):
        MultiTaskPolicy.load(tmp_path / "agent")
    for use in (MTSAC.load, trained.set_parameters):
        with pytest.raises(ValueError, match="holds a policy alone"):
            use(tmp_path / "policy")


def test_a_policy_is_a_vector(trained: MTSAC, rows: np.ndarray, make: Make):
    other = make(seed=1)
    other.policy.load_from_vector(trained.policy.parameters_to_vector())
    np.testing.assert_array_equal(actions(other, rows), actions(trained, rows))


# --- replay -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["replay", "replay.pkl", "new/folders/replay"])
@pytest.mark.parametrize("kind", [str, Path])
def test_replay_is_saved_by_path(make: Make, trained: MTSAC, tmp_path: Path, path: str, kind: Any):
    trained.save_replay_buffer(kind(tmp_path / path))
    agent = make(buffer_size=600)
    agent.load_replay_buffer(kind(tmp_path / path))
    assert_same_replay(agent.replay_buffer, trained.replay_buffer)
    assert [one.name for one in tmp_path.rglob("replay*") if one.is_file()] == [Path(path).name]


def test_replay_is_saved_by_stream(make: Make, trained: MTSAC, tmp_path: Path):
    memory = io.BytesIO()
    trained.save_replay_buffer(memory)
    memory.seek(0)
    with (tmp_path / "replay").open("wb") as file:
        trained.save_replay_buffer(file)
    with (tmp_path / "replay").open("rb") as file:
        for source in (memory, file):
            agent = make(buffer_size=600)
            agent.load_replay_buffer(source)
            assert_same_replay(agent.replay_buffer, trained.replay_buffer)
    with pytest.raises(ValueError, match="no replay saved by MTSAC"):
        make().load_replay_buffer(io.BytesIO(b"something"))
    assert "added" in load_file(tmp_path / "replay")


def assert_same_replay(one: MultiTaskReplayBuffer, other: MultiTaskReplayBuffer) -> None:
    assert (one.pos, one.full, one.added) == (other.pos, other.full, other.added)
    for column, expected in zip(one.storage, other.storage, strict=True):
        assert torch.equal(column, expected)
    assert torch.equal(one.generator.get_state(), other.generator.get_state())


@pytest.mark.parametrize("size", [3, 7, 10, 14])
@pytest.mark.parametrize("n_steps", [2, 3, 6])
def test_returns_equal_nstep_replay_in_every_slot(size: int, n_steps: int):
    """Before and after the ring is full, across terminations and truncations."""
    observations, box = spaces.Box(-np.inf, np.inf, (3,), np.float32), spaces.Box(-1, 1, (1,))
    ours = MultiTaskReplayBuffer(10, observations, box, "cpu", n_steps=n_steps, gamma=0.9)
    theirs = NStepReplayBuffer(10, observations, box, "cpu", n_steps=n_steps, gamma=0.9)
    chance = np.random.default_rng(size)
    for _ in range(size):
        rows = np.concatenate([chance.normal(size=(2, 2)), np.ones((2, 1))], axis=1).astype(np.float32)
        done, truncated = chance.random() < 0.4, chance.random() < 0.5
        infos = [{"TimeLimit.truncated": bool(truncated)}] if done else [{}]
        action, reward = chance.uniform(-1, 1, (1, 1)), chance.normal(size=1)
        for buffer in (ours, theirs):
            buffer.add(rows[:1], rows[1:], action, reward, np.array([done]), infos)
    slots = np.arange(min(size, 10))
    expected = theirs._get_samples(slots)
    rewards, discounts, last = ours._returns(torch.as_tensor(slots)[None])
    torch.testing.assert_close(rewards[0], expected.rewards[:, 0])
    torch.testing.assert_close(discounts[0], (expected.discounts * (1 - expected.dones))[:, 0])
    assert torch.equal(ours._at(ours.storage.next_observations, last)[0], expected.next_observations[:, :2])


# --- environments -----------------------------------------------------------------------------------------------------


class WorkersThatDie(DummyVecEnv):
    """As ``SubprocVecEnv``: asking for an attribute that is not there ends the worker."""

    def has_attr(self, name: str) -> bool:
        return super(DummyVecEnv, self).has_attr(name) if name == "render_mode" else self.envs[0].has_wrapper_attr(name)

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        try:
            return super().get_attr(attr_name, indices)
        except AttributeError:
            raise EOFError("the worker has died") from None


@pytest.mark.parametrize("cls", [DummyVecEnv, WorkersThatDie])
def test_own_vector_environments_train(cls: Any):
    agent = own_agent(own_env(cls)).learn(60)
    assert agent.task_names == ["own-0", "own-1", "own-2"]
    assert agent.num_timesteps == 60
    mean, _ = evaluate_policy(agent, own_env(cls), 3)
    assert mean == 10.0


def single() -> gym.Env:
    return gym.make("Pendulum-v1")


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (single, "should be a vector environment"),
        (lambda: "Pendulum-v1", "'Pendulum-v1' should be a vector environment"),
        (lambda: {"mine": single}, "should be a vector environment"),
        (lambda: WorkersThatDie([single, single]), "2 sub-environments have no attribute task_name"),
    ],
    ids=["gymnasium's", "name", "dict", "no names"],
)
def test_what_holds_no_tasks_is_refused(make: Callable[[], Any], problem: str, trained: MTSAC, tmp_path: Path):
    trained.save(tmp_path / "agent")
    evaluated = partial(evaluate, trained, n_eval_episodes=1)
    for use in (own_agent, trained.set_env, partial(MTSAC.load, tmp_path / "agent"), evaluated):
        with pytest.raises(ValueError, match=rf"{problem}.*make_vec_env\({{'mine': lambda:"):
            use(make())


def test_tasks_of_one_name_are_refused():
    with pytest.raises(ValueError, match="two of the environment's tasks are called 'own-1'"):
        own_agent(DummyVecEnv([lambda index=index: OwnTask(index) for index in (0, 1, 1)]))


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="other ways to start take seconds")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_subproc_equals_dummy():
    agents = [own_agent(env).learn(45) for env in (own_env(), own_env(SubprocVecEnv, start_method="fork"))]
    assert_same(*agents)
    agents[1].env.close()


@pytest.mark.parametrize("argument", [{"reward_scaling": "max_return"}, {"clip_targets": True}])
def test_raw_rewards_are_not_normalized(argument: dict[str, Any], tmp_path: Path):
    message = f"{next(iter(argument))} needs raw rewards.*norm_reward=False"
    with pytest.raises(ValueError, match=message):
        own_agent(VecNormalize(own_env()), **argument)
    agent = own_agent(VecNormalize(own_env(), norm_reward=False), **argument).learn(45)
    with pytest.raises(ValueError, match=message):
        agent.set_env(VecNormalize(own_env()))
    agent.save(tmp_path / "agent")
    with pytest.raises(ValueError, match=message):
        MTSAC.load(tmp_path / "agent", env=VecNormalize(own_env()))


def test_replay_is_normalized_when_sampled(make: Make):
    env = VecNormalize(make_vec_env("Point-3", seed=0))
    agent = own_agent(env).learn(150)
    raw, normalized = (agent.replay_buffer.sample(6, one, torch.Generator().manual_seed(0)) for one in (None, env))
    one_hot = np.eye(T, dtype=np.float32)[:, None].repeat(2, axis=1)
    expected = env.normalize_obs(np.concatenate([raw.observations.numpy(), one_hot], axis=-1))[..., :-T]
    np.testing.assert_allclose(normalized.observations.numpy(), expected, rtol=1e-6)
    np.testing.assert_allclose(normalized.rewards.numpy(), env.normalize_reward(raw.rewards.numpy()), rtol=1e-6)


def test_frames_are_stacked_before_they_are_normalized():
    agent = own_agent(VecNormalize(VecFrameStack(own_env(), 2))).learn(45)
    assert agent.policy.obs_dim == 2 * (2 + T) - T
    with pytest.raises(ValueError, match=r"VecNormalize must come last, as in VecNormalize\(VecFrameStack"):
        own_agent(VecFrameStack(VecNormalize(own_env()), 2))


def test_checkpoints_hold_the_normalization(tmp_path: Path):
    env = VecNormalize(own_env())
    kept = CheckpointCallback(10, str(tmp_path), save_replay_buffer=True, save_vecnormalize=True)
    agent = own_agent(env).learn(60, kept)
    names = ["rl_model_30_steps.zip", "rl_model_replay_buffer_30_steps.pkl", "rl_model_vecnormalize_30_steps.pkl"]
    assert all((tmp_path / name).is_file() for name in names)
    statistics = VecNormalize.load(str(tmp_path / "rl_model_vecnormalize_60_steps.pkl"), own_env())
    np.testing.assert_array_equal(statistics.obs_rms.mean, env.obs_rms.mean)
    loaded = MTSAC.load(tmp_path / "rl_model_60_steps", env=statistics)
    loaded.load_replay_buffer(tmp_path / "rl_model_replay_buffer_60_steps.pkl")
    assert loaded.num_timesteps == agent.num_timesteps == 60
    assert loaded.replay_buffer.size() == 19  # SB3 calls callbacks before it stores the step


# --- callbacks and logs -----------------------------------------------------------------------------------------------


class Events(BaseCallback):
    """Notes calls of its hooks, and what it finds in the logger and among the local variables."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[str, int]] = []
        self.tags: dict[str, set[str]] = {}
        self.locals_seen: set[str] = set()

    def _note(self, hook: str) -> None:
        self.calls.append((hook, self.num_timesteps))
        self.tags.setdefault(hook, set()).update(self.logger.name_to_value)

    def _on_training_start(self) -> None:
        self._note("training start")

    def _on_rollout_start(self) -> None:
        self._note("rollout start")

    def _on_step(self) -> bool:
        self._note("step")
        self.locals_seen |= set(self.locals)
        return True

    def _on_rollout_end(self) -> None:
        self._note("rollout end")

    def _on_training_end(self) -> None:
        self._note("training end")


class Everything:
    """Logger output that notes all tags written."""

    def __init__(self) -> None:
        self.tags: set[str] = set()

    def write(self, key_values: dict[str, Any], key_excluded: dict[str, Any], step: int = 0) -> None:
        self.tags |= set(key_values)

    def close(self) -> None:
        pass


def logged(agent: BaseAlgorithm, steps: int) -> tuple[Events, set[str]]:
    events, written = Events(), Everything()
    agent.set_logger(configure(None, []))
    agent.logger.output_formats.append(written)  # type: ignore[arg-type]
    agent.learn(steps, events, log_interval=T)
    return events, written.tags


def test_callbacks_are_called_as_by_sac():
    settings: dict[str, Any] = {"learning_starts": 30, "train_freq": 2, "buffer_size": 300, "batch_size": 12}
    sac = SAC("MlpPolicy", own_env(), policy_kwargs={"net_arch": [8]}, seed=0, **settings)
    expected, expected_tags = logged(sac, 90)
    found, tags = logged(own_agent(own_env(), train_freq=2), 90)
    assert found.calls == expected.calls
    assert expected.locals_seen <= found.locals_seen
    assert expected_tags - {"train/ent_coef_loss"} <= tags
    for hook in ("step", "rollout start", "rollout end"):
        train = {tag for tag in expected.tags[hook] if tag.startswith("train/")}
        assert {"train/actor_loss", "train/critic_loss", "train/ent_coef", "train/n_updates"} <= train
        assert train - {"train/ent_coef_loss"} <= found.tags[hook]


def test_train_tags_are_means_over_tasks(make: Make):
    agent = make()
    agent.learn(39, log_interval=1_000)
    found, statistics = dict(agent.logger.name_to_value), agent.learner.means
    assert found["train/n_updates"] == agent._n_updates == 3
    for tag, name in {"actor_loss": "actor_loss", "critic_loss": "critic_loss", "ent_coef": "alpha"}.items():
        assert found[f"train/{tag}"] == pytest.approx(float(statistics.mean(name).mean()))


@pytest.mark.parametrize(
    ("callback", "steps"),
    [
        (lambda: StopTrainingOnMaxEpisodes(1), 30),
        (lambda: lambda variables, _: variables["self"].num_timesteps < 12, 12),
        (lambda: EvalCallback(own_env(), StopTrainingOnRewardThreshold(-100), n_eval_episodes=1, eval_freq=4), 12),
        (
            lambda: EvalCallback(
                own_env(), None, StopTrainingOnNoModelImprovement(0, 1), n_eval_episodes=1, eval_freq=4
            ),
            24,
        ),
        (lambda: CallbackList([EveryNTimesteps(15, StopTrainingOnMaxEpisodes(1)), Events()]), 30),
        (lambda: None, 60),
    ],
)
def test_callbacks_stop_training(callback: Callable[[], Any], steps: int):
    assert own_agent(own_env()).learn(60, callback()).num_timesteps == steps


def test_evaluation_callback_keeps_the_best(tmp_path: Path):
    watch = EvalCallback(
        own_env(), n_eval_episodes=3, eval_freq=5, log_path=str(tmp_path), best_model_save_path=tmp_path
    )
    own_agent(own_env()).learn(45, watch)
    assert MTSAC.load(tmp_path / "best_model").num_timesteps == 15
    assert np.load(tmp_path / "evaluations.npz")["timesteps"].tolist() == [15, 30, 45]


def test_tensorboard_runs_are_numbered(make: Make, tmp_path: Path):
    agent = make(tensorboard_log=str(tmp_path))
    agent.learn(6)
    agent.learn(6, reset_num_timesteps=False)
    assert [one.name for one in tmp_path.iterdir()] == ["MTSAC_1"]
    agent.learn(6, tb_log_name="other")
    assert sorted(one.name for one in tmp_path.iterdir()) == ["MTSAC_1", "other_1"]


# --- learn ------------------------------------------------------------------------------------------------------------


def test_learning_goes_on_or_starts_over(make: Make):
    agent = make()
    assert agent.learn(60).num_timesteps == 60
    assert agent.learn(30, reset_num_timesteps=False).num_timesteps == 90
    updates = agent._n_updates
    assert agent.learn(45).num_timesteps == 45
    assert agent._n_updates == updates + 5  # after 30 transitions again
    assert agent.learn(31, reset_num_timesteps=False).num_timesteps == 78  # whole vector steps


@pytest.mark.parametrize(
    ("arguments", "updates"),
    [
        ({}, 10),
        ({"train_freq": 4}, 3),
        ({"train_freq": (4, "step"), "gradient_steps": 2}, 6),
        ({"gradient_steps": -1}, 30),
        ({"gradient_steps": 0}, 0),
        ({"learning_starts": 60}, 0),
    ],
)
def test_updates_follow_train_freq_and_gradient_steps(make: Make, arguments: dict[str, Any], updates: int):
    assert make(**arguments).learn(60)._n_updates == updates


def test_episodes_as_train_freq_need_one_task():
    agent = MTSAC("MultiTaskPolicy", pendulum(), train_freq=(1, "episode"), buffer_size=500, learning_starts=10)
    assert agent.learn(200).num_timesteps == 200
    with pytest.raises(ValueError, match=r"train_freq=\[1, 'episode'\] should count steps"):
        own_agent(own_env(), train_freq=(1, "episode"))


def test_seeds_decide_the_run(make: Make):
    one, same, other = (make(seed=seed).learn(60) for seed in (3, 3, 4))
    assert_same(one, same)
    assert torch.equal(one.replay_buffer.storage.actions, same.replay_buffer.storage.actions)
    assert not torch.equal(one.replay_buffer.storage.actions, other.replay_buffer.storage.actions)


# --- the update -------------------------------------------------------------------------------------------------------


def pendulum() -> VecEnv:
    return make_vec_env({"pendulum": lambda: gym.make("Pendulum-v1")})


@torch.no_grad()
def copy_linears(own: MultiTaskMLP, trunks: list[list[torch.nn.Linear]], heads: list[list[Tensor]]) -> None:
    for net, (layers, (weight, bias)) in enumerate(zip(trunks, heads, strict=True)):
        for layer, linear in enumerate(layers):
            own.trunk[f"weight{layer}"][net] = linear.weight.T
            own.trunk[f"bias{layer}"][net, 0] = linear.bias
        own.heads["weight"][0, net], own.heads["bias"][0, net, 0] = weight.T, bias


def copy_sac(theirs: SAC, policy: MultiTaskPolicy) -> None:
    actor = theirs.actor
    heads = [torch.cat([actor.mu.weight, actor.log_std.weight]), torch.cat([actor.mu.bias, actor.log_std.bias])]
    copy_linears(policy.actor, [[actor.latent_pi[0], actor.latent_pi[2]]], [heads])
    for own, critic in ((policy.critic, theirs.critic), (policy.critic_target, theirs.critic_target)):
        nets = [critic.qf0, critic.qf1]
        copy_linears(own, [[net[0], net[2]] for net in nets], [[net[4].weight, net[4].bias] for net in nets])


def sac_and_mtsac(**kwargs: Any) -> tuple[SAC, MTSAC]:
    """Both on one task, with the same parameters."""
    settings: dict[str, Any] = {"gamma": GAMMA, "buffer_size": 10, "device": "cpu"}
    theirs = SAC("MlpPolicy", gym.make("Pendulum-v1"), policy_kwargs={"net_arch": [16, 12]}, seed=0, **settings)
    settings |= {"policy_kwargs": {"net_arch": [16, 12], "one_hot_in_trunk": False}, "combiner": "mean", **kwargs}
    ours = MTSAC("MultiTaskPolicy", pendulum(), **settings)
    copy_sac(theirs, ours.policy)
    return theirs, ours


def sb3_sample(theirs: SAC, observations: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """SB3's action and log-probability, and the noise behind them."""
    mean, log_std, _ = theirs.actor.get_action_dist_params(observations)
    action, log_prob = theirs.actor.action_log_prob(observations)
    unsquashed = theirs.actor.action_dist.gaussian_actions
    return action, log_prob, ((unsquashed - mean) / log_std.exp()).detach()


def test_losses_and_gradients_equal_sacs():
    """At one task, from the same parameters, rows and noise."""
    theirs, ours = sac_and_mtsac()
    generator = torch.Generator().manual_seed(0)
    observations, following = torch.randn(2, ROWS, 3, generator=generator)
    actions, rewards = torch.rand(ROWS, 1, generator=generator) * 2 - 1, torch.randn(ROWS, generator=generator)
    ended = (torch.rand(ROWS, generator=generator) < 0.3).float()
    alphas = torch.full((1, 1), 0.3)

    with torch.no_grad():
        next_actions, next_log_probs, noise = sb3_sample(theirs, following)
        values = torch.cat(theirs.critic_target(following, next_actions), dim=1).min(dim=1).values
        targets = rewards + (1 - ended) * GAMMA * (values - 0.3 * next_log_probs)
    policy = ours.policy
    own = td_targets(
        policy.actor,
        policy.critic_target,
        following[None],
        rewards[None],
        GAMMA * (1 - ended[None]),
        noise[None],
        alphas,
    )
    torch.testing.assert_close(own[0], targets, rtol=1e-4, atol=1e-4)

    loss = 0.5 * sum(F.mse_loss(value[:, 0], targets) for value in theirs.critic(observations, actions))
    rows = CriticLoss(policy.critic)(CriticBatch(observations[None], actions[None], targets[None]))
    assert_equal_gradients(rows.losses.mean(), policy.critic, loss, theirs.critic.qf0[0].weight)

    action, log_probs, noise = sb3_sample(theirs, observations)
    values = torch.cat(theirs.critic(observations, action), dim=1).min(dim=1).values
    loss = (0.3 * log_probs - values).mean()
    own_rows = ActorLoss(policy.actor, policy.critic)(ActorBatch(observations[None], noise[None], alphas))
    assert_equal_gradients(own_rows.losses.mean(), policy.actor, loss, theirs.actor.latent_pi[0].weight)


def assert_equal_gradients(own: Tensor, network: MultiTaskMLP, loss: Tensor, weight: Tensor) -> None:
    torch.testing.assert_close(own, loss, rtol=1e-4, atol=1e-5)
    (expected,), (found,) = torch.autograd.grad(loss, [weight]), torch.autograd.grad(own, [network.trunk["weight0"]])
    torch.testing.assert_close(found[0].T, expected, rtol=1e-3, atol=1e-5)


def test_whole_updates_equal_sacs(monkeypatch: pytest.MonkeyPatch):
    """200 of them at one task, from the same parameters, rows and noise: actor, critics, targets and temperature."""
    rows, n_updates = 32, 200
    theirs, ours = sac_and_mtsac(max_grad_norm=None, batch_size=rows)
    chance = torch.Generator().manual_seed(0)
    batches = [
        ReplayBufferSamples(
            torch.randn(rows, 3, generator=chance),
            torch.rand(rows, 1, generator=chance) * 2 - 1,
            torch.randn(rows, 3, generator=chance),
            (torch.rand(rows, 1, generator=chance) < 0.2).float(),
            torch.randn(rows, 1, generator=chance),
        )
        for _ in range(n_updates)
    ]
    noises = [[torch.randn(rows, 1, generator=chance) for _ in ("actor", "target")] for _ in range(n_updates)]

    drawn = iter([noise for pair in noises for noise in pair])  # SAC draws for the actor first
    monkeypatch.setattr("torch.distributions.normal._standard_normal", lambda shape, **kwargs: next(drawn))
    sampled = iter(batches)
    theirs.replay_buffer.sample = lambda *args, **kwargs: next(sampled)
    theirs.set_logger(configure(None, []))
    theirs.train(n_updates, rows)

    drawn = iter([noise[None] for actor, target in noises for noise in (target, actor)])
    monkeypatch.setattr("mtrl_transfer.agents.mtsac.minibatches._noise", lambda batch, generator: next(drawn))
    ours.replay_buffer.sample = lambda *args, **kwargs: task_batch(next(sampled))  # type: ignore[method-assign]
    ours.replay_buffer.size = lambda: rows  # type: ignore[method-assign]
    sampled = iter(batches)
    ours.set_logger(configure(None, []))
    ours.train(n_updates, rows)

    expected = MultiTaskPolicy(**ours.policy._get_constructor_parameters())
    copy_sac(theirs, expected)
    assert ours._n_updates == n_updates
    torch.testing.assert_close(ours.policy.state_dict(), expected.state_dict(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(ours.temperatures.log_alpha.detach(), theirs.log_ent_coef.detach(), rtol=1e-4, atol=1e-6)


def task_batch(samples: ReplayBufferSamples) -> TaskBatch:
    return TaskBatch(
        observations=samples.observations[None],
        actions=samples.actions[None],
        next_observations=samples.next_observations[None],
        rewards=samples.rewards[None, :, 0],
        discounts=GAMMA * (1 - samples.dones[None, :, 0]),
    )
