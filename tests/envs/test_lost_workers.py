"""A worker that is killed, stopped or hangs at any moment is replaced, without a difference in the results."""

from __future__ import annotations

import os
import signal
import time
import warnings

import gymnasium as gym
import numpy as np
import psutil
import pytest
from gymnasium import spaces

from mtrl_transfer.envs import make_vec_env
from mtrl_transfer.envs.workers import process, worker_shard

TASKS = ["reach-v3", "drawer-close-v3", "window-open-v3"]
HORIZON = 60


class Drifting(gym.Env):
    """A random walk from gymnasium's generator; it cannot tell its state."""

    observation_space = spaces.Box(-np.inf, np.inf, (1,), np.float32)
    action_space = spaces.Box(-1, 1, (4,), np.float32)
    metadata = {"render_modes": []}  # noqa: RUF012

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps, self.place = 0, self.np_random.normal()
        return np.full(1, self.place, np.float32), {"place": self.place}

    def step(self, action):
        if action[0] > 1:
            raise KeyError("broken on purpose")
        self.steps += 1
        self.place += self.np_random.normal() + action.sum()
        return np.full(1, self.place, np.float32), self.place, self.steps == HORIZON, False, {}


class Unseeded(Drifting):
    """Depends on more than its generator."""

    def step(self, action):
        self.place = np.random.default_rng().normal()
        return np.full(1, self.place, np.float32), 0.0, False, False, {}


class Deadly(Drifting):
    """Kills its process at one action."""

    def step(self, action):
        if action[0] > 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().step(action)


class Slow(Drifting):
    """Takes a while for each step."""

    def step(self, action):
        time.sleep(0.11)
        return super().step(action)


class Wide(Drifting):
    """Observations and actions larger than the buffer of a pipe."""

    observation_space = spaces.Box(-np.inf, np.inf, (200_000,), np.float32)
    action_space = spaces.Box(-1, 1, (200_000,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.full(200_000, self.place, np.float32), {}

    def step(self, action):
        observation, *rest = super().step(action)
        return np.full(200_000, observation[0], np.float32), *rest


def own(cls, n_procs, **options):
    return make_vec_env({"first": cls, "second": cls, "third": cls}, seed=5, n_procs=n_procs, **options)


def metaworld(n_procs, **options):
    return make_vec_env(TASKS, seed=5, n_procs=n_procs, horizon=HORIZON, n_goals=3, **options)


def drifting(n_procs, **options):
    return own(Drifting, n_procs, **options)


def strike(env, number):
    """Send a signal to the worker, which has the second task."""
    os.kill(env._shards[1].process.pid, number)


def steps(env, n, seed):
    """Everything that steps under random actions give, but for the clock."""
    generator, seen = np.random.default_rng(seed), []
    for _ in range(n):
        observations, rewards, dones, infos = env.step(generator.uniform(-1, 1, (3, 4)).astype(np.float32))
        for info in infos:
            info.get("episode", {}).pop("t", None)
        seen.append((observations.tobytes(), rewards.tobytes(), dones.tobytes(), repr(infos), repr(env.reset_infos)))
    return seen


@pytest.mark.parametrize("make", [metaworld, drifting])
@pytest.mark.parametrize("before", [HORIZON // 3, HORIZON + 40], ids=["first episode", "after snapshots"])
def test_a_killed_worker_changes_nothing(make, before, monkeypatch):
    """The next hundred steps are those of a run in one process in which nothing was killed."""
    monkeypatch.setattr(worker_shard, "SNAPSHOT_EVERY", 30)
    killed, spared = make(2), make(1)
    np.testing.assert_array_equal(killed.reset(), spared.reset())
    for env in (killed, spared):
        env.set_attr("scale", 0.5, indices=[1])
    assert steps(killed, before, 1) == steps(spared, before, 1)
    assert len(killed._shards[1]._since) < 30  # few to make again
    strike(killed, signal.SIGKILL)
    with pytest.warns(UserWarning, match=r"worker process of (second|drawer-close-v3) has died \(exit code -9\)"):
        found = steps(killed, 100, 2)
    assert found == steps(spared, 100, 2)
    assert killed.get_attr("scale", 1) == [0.5]
    killed.close()


def test_a_stopped_worker_changes_nothing():
    stopped, spared = metaworld(2, worker_timeout=2.0), metaworld(1)
    stopped.reset(), spared.reset()
    assert steps(stopped, 20, 1) == steps(spared, 20, 1)
    strike(stopped, signal.SIGSTOP)
    with pytest.warns(UserWarning, match=r"drawer-close-v3 has not answered for 2 s"):
        found = steps(stopped, 100, 2)
    assert found == steps(spared, 100, 2)
    stopped.close()


@pytest.mark.parametrize(
    "call",
    [
        lambda env, state: env.state_dict()["tasks"][1]["task"]["actions"].tobytes(),
        lambda env, state: env.load_state_dict(state).tobytes(),
        lambda env, state: env.get_attr("place"),
        lambda env, state: env.env_method("has_wrapper_attr", "place"),
        lambda env, state: env.set_attr("colour", "red"),
        lambda env, state: env.reset().tobytes(),
    ],
    ids=["state_dict", "load_state_dict", "get_attr", "env_method", "set_attr", "reset"],
)
def test_a_worker_stopped_before_any_call_is_replaced(call):
    stopped, spared = drifting(2, worker_timeout=0.7), drifting(1)
    for env in (stopped, spared):
        env.reset()
        steps(env, 5, 1)
    state = spared.state_dict()
    strike(stopped, signal.SIGSTOP)
    with pytest.warns(UserWarning, match=r"second has not answered for 0\.7 s"):
        found = call(stopped, state)
    assert found == call(spared, state)
    assert steps(stopped, 5, 2) == steps(spared, 5, 2)
    stopped.close()


def test_a_worker_stopped_within_a_message_is_replaced():
    """Before it has read large actions, and before it has written large observations."""
    stopped, spared = own(Wide, 2, worker_timeout=1.0), own(Wide, 1)
    actions = np.zeros((3, 200_000), np.float32)
    np.testing.assert_array_equal(stopped.reset(), spared.reset())
    strike(stopped, signal.SIGSTOP)
    with pytest.warns(UserWarning, match="second has not answered"):
        found = stopped.step(actions)[0]
    np.testing.assert_array_equal(found, spared.step(actions)[0])
    stopped.step_async(actions)
    pipe = stopped._shards[1].process._pipe
    assert pipe.poll(30)  # it has begun to write and waits for its reader
    strike(stopped, signal.SIGSTOP)
    with pytest.warns(UserWarning, match="second has not answered"):
        found = stopped.step_wait()[0]
    np.testing.assert_array_equal(found, spared.step(actions)[0])
    stopped.close()


@pytest.mark.parametrize("stopped_at", ["make", "restore"])
def test_a_replacement_that_is_stopped_is_replaced(stopped_at, monkeypatch):
    """Before its environments are made, and before it brings them back to where they were."""
    monkeypatch.setattr(process, "START", 2)
    monkeypatch.setattr(worker_shard, "SNAPSHOT_EVERY", 3)
    env, spared = drifting(2, worker_timeout=1.0), drifting(1)
    for one in (env, spared):
        one.reset()
        steps(one, 5, 1)
    send, start, waiting = process.WorkerProcess.send, process.WorkerProcess.__init__, [stopped_at]

    def stop_at(method, worker):
        if waiting == [method]:
            waiting.clear()
            os.kill(worker.pid, signal.SIGSTOP)

    def stopping_start(worker, *arguments):
        start(worker, *arguments)
        stop_at("make", worker)

    def stopping_send(worker, method, *arguments):
        stop_at(method, worker)
        send(worker, method, *arguments)

    monkeypatch.setattr(process.WorkerProcess, "__init__", stopping_start)
    monkeypatch.setattr(process.WorkerProcess, "send", stopping_send)
    strike(env, signal.SIGKILL)
    with pytest.warns(UserWarning, match="has died"), pytest.warns(UserWarning, match="second has not answered"):
        found = steps(env, 5, 2)
    assert not waiting
    assert found == steps(spared, 5, 2)
    env.close()


def test_a_long_replay_is_no_hang():
    """The timeout holds for each step of an episode that is played again, not for all."""
    env = make_vec_env({"quick": Drifting, "slow": Slow}, n_procs=2, worker_timeout=1.0)
    env.reset()
    for _ in range(10):
        env.step(np.zeros((2, 4), np.float32))
    strike(env, signal.SIGKILL)
    with pytest.warns(UserWarning, match="has died") as told:
        env.step(np.zeros((2, 4), np.float32))
    assert len(told) == 1
    env.close()


def test_a_stopped_worker_is_closed():
    env = drifting(2, worker_timeout=0.5)
    pid = env._shards[1].process.pid
    strike(env, signal.SIGSTOP)
    env.close()
    assert not psutil.pid_exists(pid)


def test_all_workers_are_killed_at_once():
    env = drifting(3, worker_timeout=None)
    pids = [shard.process.pid for shard in env._shards[1:]]
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    process.kill_workers()
    env.close()
    assert not any(map(psutil.pid_exists, pids))


def test_killed_between_other_calls():
    """Dead before a reset, before a question, after an exception of a task, and after `load_state_dict`."""
    killed, spared = drifting(2), drifting(2)
    broken = np.zeros((3, 4), np.float32)
    broken[1] = 2
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*has died")
        strike(killed, signal.SIGKILL)
        np.testing.assert_array_equal(killed.reset(), spared.reset())
        strike(killed, signal.SIGKILL)
        assert killed.get_attr("place") == spared.get_attr("place")
        steps(killed, 5, 1), steps(spared, 5, 1)
        for env in (killed, spared):
            with pytest.raises(KeyError, match="broken on purpose"):
                env.step(broken)
        strike(killed, signal.SIGKILL)
        assert steps(killed, 10, 2) == steps(spared, 10, 2)
        np.testing.assert_array_equal(killed.reset(), spared.reset())
        steps(killed, 8, 5), steps(spared, 8, 5)
        state = spared.state_dict()
        steps(spared, 7, 3)
        for env in (killed, spared):
            env.load_state_dict(state)
        strike(killed, signal.SIGKILL)
        assert steps(killed, HORIZON, 4) == steps(spared, HORIZON, 4)
    killed.close()
    spared.close()


def test_a_task_killing_every_worker_is_given_up():
    env = own(Deadly, 2)
    env.reset()
    deadly = np.zeros((3, 4), np.float32)
    deadly[1] = 2
    with (
        pytest.warns(UserWarning, match="another one is started") as told,
        pytest.raises(RuntimeError, match=r"second has died \(exit code -9\); given up after 3 restarts in a row"),
    ):
        env.step(deadly)
    assert len(told) == 3
    env.close()


def test_a_task_that_cannot_come_back_is_named():
    env = own(Unseeded, 2)
    env.reset()
    steps(env, 3, 1)
    strike(env, signal.SIGKILL)
    with pytest.warns(UserWarning, match="second") as told:
        steps(env, 1, 1)
    restarted, jumped = (str(one.message) for one in told)
    assert restarted.endswith("another one is started and goes on from there (restart 1)")
    assert jumped.startswith("the tasks second did not come back to where they were")
    env.close()


def test_a_timeout_of_nothing_is_refused():
    with pytest.raises(ValueError, match="worker_timeout=0 must be a positive number"):
        drifting(2, worker_timeout=0)
