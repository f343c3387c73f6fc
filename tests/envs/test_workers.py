"""Several processes give what one gives, fail loudly, and leave nothing behind."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import time

import gymnasium as gym
import numpy as np
import psutil
import pytest
from gymnasium import spaces
from stable_baselines3.common.monitor import Monitor

from mtrl_transfer.envs import make_vec_env
from mtrl_transfer.envs.workers.worker_shard import WorkerTraceback

TASKS = ["reach-v3", "drawer-close-v3", "window-open-v3"]


class Fragile(gym.Env):
    """Counts its steps; action 1 raises, action 2 raises what cannot be pickled."""

    observation_space = spaces.Box(-1, 100, (1,), np.float32)
    action_space = spaces.Box(0, 2, (1,), np.float32)
    metadata = {"render_modes": []}  # noqa: RUF012

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.count = 0
        return np.zeros(1, np.float32), {"options": options}

    def step(self, action):
        if action == 1:
            raise KeyError("broken on purpose")
        if action == 2:
            error = RuntimeError("cannot travel")
            error.frame = sys._getframe()
            raise error
        self.count += 1
        return np.full(1, self.count, np.float32), 0.0, False, False, {}

    @property
    def reset_later(self):
        return lambda: self.reset()

    def add(self, number, *, times=1):
        return self.count + number * times


def fragile(n_procs=2):
    env = make_vec_env({"first": Fragile, "second": Fragile, "third": Fragile}, n_procs=n_procs)
    env.reset()
    return env


def actions_for(task, action):
    actions = np.zeros((3, 1), np.float32)
    actions[task] = action
    return actions


def test_results_are_independent_of_n_procs():
    """Bit for bit: observations, rewards, dones, infos but for the time of day, goals; over auto-resets and seeding."""
    options = {"seed": 3, "horizon": 7, "n_goals": 4}
    one, two = (make_vec_env(TASKS, n_procs=n_procs, **options) for n_procs in (1, 2))
    generator = np.random.default_rng(0)
    for seed in (None, 11):
        if seed is not None:
            assert one.seed(seed) == two.seed(seed)
            one.set_options({"goal": 2})
            two.set_options({"goal": 2})
        np.testing.assert_array_equal(one.reset(), two.reset())
        assert one.reset_infos == two.reset_infos
        for _ in range(16):
            actions = generator.uniform(-1, 1, (3, 4)).astype(np.float32)
            for expected, found in zip(one.step(actions)[:3], two.step(actions)[:3], strict=True):
                np.testing.assert_array_equal(expected, found)
                assert expected.dtype == found.dtype
            assert one.get_attr("goal") == two.get_attr("goal")
            assert one.reset_infos == two.reset_infos
    for step in range(7):
        infos = [env.step(np.zeros((3, 4), np.float32))[3] for env in (one, two)]
        for expected, found in zip(*infos, strict=True):
            terminal = [info.pop("terminal_observation", None) for info in (expected, found)]
            np.testing.assert_array_equal(*terminal)
            for info in (expected, found):
                info.get("episode", {}).pop("t", None)
            assert expected == found, step
    two.close()


def test_attributes_and_methods_reach_every_task_in_order():
    env = fragile()
    env.step(actions_for(0, 0))
    assert env.get_attr("task_name") == ["first", "second", "third"]
    assert env.get_attr("task_name", [2, 0]) == ["third", "first"]
    assert env.get_attr("task_name", 1) == ["second"]
    assert env.env_method("add", 2, times=3) == [7, 7, 7]
    assert env.env_method("add", 1, indices=[1]) == [2]
    env.set_attr("colour", "red", indices=[1])
    assert env.get_attr("colour", [1]) == ["red"]
    assert env.env_is_wrapped(Monitor) == [True] * 3
    assert env.env_is_wrapped(gym.wrappers.TimeLimit) == [False] * 3
    assert env.has_attr("task_name")
    assert not env.has_attr("no_such_thing")
    env.set_options([{}, {"level": 2}, {}])
    env.reset()
    assert [info["options"] for info in env.reset_infos] == [None, {"level": 2}, None]
    env.close()
    env.close()


def test_an_exception_has_its_task_and_traceback():
    env = fragile()
    with pytest.raises(KeyError, match="broken on purpose") as raised:
        env.step(actions_for(1, 1))
    assert isinstance(raised.value.__cause__, WorkerTraceback)
    assert "in task 'second'" in str(raised.value.__cause__)
    assert 'raise KeyError("broken on purpose")' in str(raised.value.__cause__)
    with pytest.raises(RuntimeError, match="cannot travel"):
        env.step(actions_for(1, 2))
    with pytest.raises(KeyError, match="broken on purpose"):
        env.step(actions_for(0, 1))
    np.testing.assert_array_equal(env.reset()[:, 0], np.zeros(3))
    np.testing.assert_array_equal(env.step(np.zeros((3, 1), np.float32))[0][:, 0], np.ones(3))
    env.close()


def test_results_that_cannot_be_pickled_are_refused():
    env = fragile()
    with pytest.raises(RuntimeError, match="cannot be pickled"):
        env.get_attr("reset_later")
    assert env.get_attr("count") == [0, 0, 0]
    env.close()


def test_a_factory_that_fails_in_a_worker():
    def broken():
        raise OSError("no such model")

    with pytest.raises(OSError, match="no such model") as raised:
        make_vec_env({"first": Fragile, "second": broken}, n_procs=2)
    assert "in task 'second'" in str(raised.value.__cause__)


SCRIPT = """
import os, signal, sys
sys.path.insert(0, {folder!r})
from test_workers import Fragile
from mtrl_transfer.envs import make_vec_env

if __name__ == "__main__":
    env = make_vec_env({{"first": Fragile, "second": Fragile, "third": Fragile}}, n_procs=3)
    print("ready", flush=True)
    sys.stdin.readline()
    os.kill(env._shards[1].process.pid, signal.SIGSTOP)
"""


@pytest.mark.parametrize("end", ["kill", pytest.param("exit", marks=pytest.mark.slow)])
def test_workers_die_with_their_parent(end, tmp_path):
    """Killed without a chance to clean up, and ending without having closed a worker that is stopped."""
    script = tmp_path / "parent.py"
    script.write_text(textwrap.dedent(SCRIPT.format(folder=os.path.dirname(__file__))))
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    parent = subprocess.Popen([sys.executable, str(script)], **pipes, text=True)
    try:
        assert parent.stdout is not None
        assert parent.stdout.readline() == "ready\n"
        children = psutil.Process(parent.pid).children(recursive=True)
        assert len(children) >= 2
        if end == "exit":
            parent.communicate("\n", timeout=30)
    finally:
        parent.kill()
        parent.communicate()
    _, alive = psutil.wait_procs(children, timeout=10)
    assert not [child for child in alive if child.status() != psutil.STATUS_ZOMBIE]


def test_closing_ends_the_workers():
    before = set(psutil.Process().children(recursive=True))
    env = fragile(n_procs=3)
    started = [child for child in psutil.Process().children(recursive=True) if child not in before]
    env.close()
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and sum(child.is_running() for child in started) > 2:
        time.sleep(0.05)
    # multiprocessing keeps its fork server and resource tracker for the next environment
    assert sum(child.is_running() for child in started) <= 2
