"""A user's own gymnasium environments as tasks."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces

from mtrl_transfer.envs import make_vec_env, protocol_card


class Line(gym.Env):
    """Walk along a line to +limit; terminates there."""

    observation_space = spaces.Box(-10, 10, (2, 1), np.float64)
    action_space = spaces.Box(-1, 1, (1,), np.float32)
    metadata = {"render_modes": []}  # noqa: RUF012

    def __init__(self, limit):
        self.limit = limit

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.x = float(self.np_random.uniform(-0.5, 0.5))
        return np.array([[self.x], [self.limit]]), {}

    def step(self, action):
        self.x += float(action[0])
        done = self.x >= self.limit
        return np.array([[self.x], [self.limit]]), -1, done, False, {"success": self.x > 1.5}


FACTORIES = {
    "near": lambda: gym.wrappers.TimeLimit(Line(2.0), 4),
    "far": lambda: gym.wrappers.TimeLimit(Line(9.0), 4),
    "middle": lambda: gym.wrappers.TimeLimit(Line(3.0), 4),
}


def test_three_tasks_of_one_shape():
    env = make_vec_env(FACTORIES, seed=0)
    observations = env.reset()
    assert env.get_attr("task_name") == ["near", "far", "middle"]
    assert observations.dtype == np.float32
    np.testing.assert_array_equal(observations[:, 1], [2.0, 9.0, 3.0])
    np.testing.assert_array_equal(observations[:, 2:], np.eye(3))
    assert len(set(observations[:, 0])) == 3
    env.seed(0)
    np.testing.assert_array_equal(env.reset(), observations)
    card = protocol_card(env)
    assert (card["suite"], card["task_names"], card["horizon"]) == ("custom", ["near", "far", "middle"], None)


def test_termination_is_told_from_truncation_and_success_is_latched():
    env = make_vec_env(FACTORIES, seed=0)
    env.reset()
    history = [env.step(np.ones((3, 1), np.float32)) for _ in range(4)]
    ends = {
        name: next((step, infos[task]) for step, (_, _, dones, infos) in enumerate(history) if dones[task])
        for task, name in enumerate(FACTORIES)
    }
    assert not ends["near"][1]["TimeLimit.truncated"]
    assert ends["far"][0] == 3
    assert ends["far"][1]["TimeLimit.truncated"]
    assert ends["far"][1]["is_success"]
    assert ends["near"][1]["terminal_observation"][0] >= 2.0
    assert ends["far"][1]["episode"] == {"r": -4.0, "l": 4, "t": ends["far"][1]["episode"]["t"]}


def test_bad_dicts_of_tasks():
    with pytest.raises(ValueError, match="at least one"):
        make_vec_env({})
    with pytest.raises(TypeError, match="'near' must be a function"):
        make_vec_env({"near": Line(2.0)})
    with pytest.raises(TypeError, match="'n_goals'"):
        make_vec_env(FACTORIES, n_goals=3)
    with pytest.raises(ValueError, match=r"'near' has .* and 'pendulum' has"):
        make_vec_env({"near": FACTORIES["near"], "pendulum": lambda: gym.make("Pendulum-v1")})
    with pytest.raises(ValueError, match="'discrete' must have a Box"):
        make_vec_env({"discrete": lambda: gym.make("FrozenLake-v1")})
