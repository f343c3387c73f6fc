"""Updates while the environments step: the same as updating before each step, by the policy that chose its actions."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces

from mtrl_transfer.agents import MTSAC
from mtrl_transfer.agents.mtsac.overlap import WorkMeanwhile
from mtrl_transfer.agents.runs.build import make_agent as make_agent_of
from mtrl_transfer.agents.runs.build import training_env
from mtrl_transfer.agents.runs.config.loading import load_config
from mtrl_transfer.envs import make_vec_env
from mtrl_transfer.envs.workers.worker_shard import WorkerShard

Make = Callable[..., MTSAC]
ONE_GOAL = ["evaluation.n_goals=1", "evaluation.final_n_goals=1", "agent.batch_size=320"]
SETTINGS: dict[str, Any] = {
    "combiner": "transference",
    "combiner_kwargs": {"every": 2},
    "reward_scaling": "max_return",
    "exploration_correlation": 0.5,
}


def literally(agent: MTSAC, n_steps: int) -> MTSAC:
    """Choose actions, then update by what is stored, then step with these actions, one after the other."""
    _, callback = agent._setup_learn(n_steps * agent.n_tasks)
    callback.on_training_start({}, {})
    assert agent.env is not None
    due = 0
    for step in range(1, n_steps + 1):
        actions, stored = agent._sample_action(agent.learning_starts, None, agent.n_tasks)
        if due:
            agent.train(due, agent.batch_size or 0)
        observations, rewards, dones, infos = agent.env.step(actions)
        agent.num_timesteps += agent.n_tasks
        agent._store_transition(agent.replay_buffer, stored, observations, rewards, dones, infos)
        agent._update_current_progress_remaining(agent.num_timesteps, agent._total_timesteps)
        trains = agent.num_timesteps > agent.learning_starts and step % agent.train_freq.frequency == 0
        due = agent.gradient_steps if trains else 0
    agent.train(due, agent.batch_size or 0)
    return agent


def assert_identical(one: MTSAC, other: MTSAC) -> None:
    assert one._n_updates == other._n_updates > 0
    for mine, its in ((one.policy.state_dict(), other.policy.state_dict()), vars_of_replay(one, other)):
        for name, value in mine.items():
            assert torch.equal(value, its[name]), name


def vars_of_replay(*agents: MTSAC) -> tuple[dict[str, torch.Tensor], ...]:
    return tuple(agent.replay_buffer.storage._asdict() for agent in agents)


@pytest.mark.parametrize(("train_freq", "gradient_steps"), [(1, 1), (2, 3)])
def test_equals_updating_between_choosing_actions_and_stepping(
    make_agent: Make, train_freq: int, gradient_steps: int
) -> None:
    settings = {**SETTINGS, "train_freq": train_freq, "gradient_steps": gradient_steps}
    overlapped = make_agent(overlap=True, **settings).learn(120)
    assert_identical(overlapped, literally(make_agent(**settings), 40))
    with pytest.raises(AssertionError):  # the lag is real
        assert_identical(overlapped, make_agent(**settings).learn(120))


def test_a_saved_agent_takes_its_due_update(make_agent: Make, tmp_path: Path) -> None:
    agent = make_agent(overlap=True, **SETTINGS)
    agent._catch_up = lambda: None  # type: ignore[method-assign]
    agent.learn(63)
    del agent._catch_up
    assert agent.updates_due == 1
    agent.save(tmp_path / "agent")
    agent.save_replay_buffer(tmp_path / "replay")
    loaded = MTSAC.load(tmp_path / "agent", env=agent.get_env())
    loaded._catch_up()  # nothing is stored yet
    assert (loaded._n_updates, loaded.updates_due) == (0, 0)
    loaded = MTSAC.load(tmp_path / "agent", env=agent.get_env())
    loaded.load_replay_buffer(tmp_path / "replay")
    for one in (agent, loaded):
        one._catch_up()
    assert_identical(agent, loaded)


class Walk(gym.Env):
    """A random walk that says which process it is in."""

    observation_space = spaces.Box(-np.inf, np.inf, (2,), np.float32)
    action_space = spaces.Box(-1, 1, (2,), np.float32)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self.place, self.steps = self.np_random.normal(size=2), 0
        return self.place.astype(np.float32), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self.place, self.steps = self.place + action + self.np_random.normal(size=2), self.steps + 1
        return self.place.astype(np.float32), -float(np.abs(self.place).sum()), False, self.steps == 20, {}

    def process(self) -> int:
        return os.getpid()


def walking(n_procs: int, **kwargs: Any) -> MTSAC:
    env = make_vec_env({"a": Walk, "b": Walk, "c": Walk}, seed=3, n_procs=n_procs, own_process=False)
    policy = {"net_arch": [8]}
    return MTSAC("MultiTaskPolicy", env, batch_size=12, learning_starts=30, seed=0, policy_kwargs=policy, **kwargs)


@pytest.mark.parametrize("n_procs", [1, 2])
def test_no_task_is_stepped_by_this_process(n_procs: int) -> None:
    env = walking(n_procs).env
    assert env is not None
    processes = set(env.env_method("process"))
    env.close()
    assert len(processes) == n_procs
    assert os.getpid() not in processes


def test_a_run_makes_both_ends_of_it() -> None:
    config = load_config("mt10_quick", ["env.id=[reach-v3]", "env.n_goals=1", "agent.overlap=true", *ONE_GOAL])
    env = training_env(config)
    assert [type(shard) for shard in env._shards] == [WorkerShard]
    assert make_agent_of(config, env).overlap
    env.close()


def test_a_worker_killed_during_updates_changes_nothing() -> None:
    calm = walking(1, combiner="mean", overlap=True).learn(60)
    agent = walking(1, combiner="mean", overlap=True)
    take, env = agent._take_updates, agent.env
    assert env is not None

    def take_and_kill(gradient_steps: int, batch_size: int) -> None:
        if agent._n_updates == 5:
            os.kill(pid, signal.SIGKILL)
        take(gradient_steps, batch_size)

    pid = env.env_method("process")[0]
    agent._take_updates = take_and_kill  # type: ignore[method-assign]
    with pytest.warns(UserWarning, match="another one is started"):
        agent.learn(60)
    assert_identical(agent, calm)
    for one in (agent, calm):
        one.get_env().close()


def test_work_leaves_no_step_under_way() -> None:
    env, happened = make_vec_env("Point-3", seed=0), list[str]()
    for name in ("step_async", "step_wait"):
        own = getattr(env, name)
        setattr(env, name, lambda *actions, name=name, own=own: (happened.append(name), own(*actions))[1])

    def work() -> None:
        happened.append("work")
        if len(happened) > 3:
            raise ArithmeticError

    wrapped = WorkMeanwhile(env, work)
    wrapped.reset()
    actions = np.zeros((3, *env.action_space.shape), np.float32)
    wrapped.step(actions)
    assert happened == ["step_async", "work", "step_wait"]
    with pytest.raises(ArithmeticError):
        wrapped.step(actions)
    assert happened[3:] == ["step_async", "work", "step_wait"]
