"""A worker that is killed or hangs is replaced, and nobody sees a difference."""

from __future__ import annotations

import os
import signal
import warnings

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces

from mtrl_transfer.envs import make_vec_env
from mtrl_transfer.envs.workers import worker_shard

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


def test_a_task_that_kills_every_worker_is_given_up():
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
    assert [str(one.message).split(":")[0] for one in told] == [
        "the worker process of second has died (exit code -9); another one is started and goes on from there",
        "the tasks second did not come back to where they were",
    ]
    env.close()


def test_a_timeout_of_nothing_is_refused():
    with pytest.raises(ValueError, match="worker_timeout must be above 0 seconds, or None; got 0"):
        drifting(2, worker_timeout=0)
