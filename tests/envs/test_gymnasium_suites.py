"""Suites of gymnasium's own environments."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from stable_baselines3.common.env_checker import check_env

from mtrl_transfer.envs import make_vec_env, protocol_card
from mtrl_transfer.envs.gymnasium_suites import ReachesReturn, StaysUpright


def test_pendulums_differ_in_length_alone():
    env = make_vec_env("pendulums", seed=0)
    assert env.get_attr("l") == [0.6, 0.8, 1.0, 1.2, 1.4]
    assert set(env.get_attr("m")) == {1.0}
    assert (env.observation_space.shape, env.action_space) == ((8,), spaces.Box(-2, 2, (1,)))
    assert protocol_card(env)["horizon"] == env.get_attr("spec")[0].max_episode_steps == 200


def test_locomotion_pads_five_bodies_and_really_terminates():
    env = make_vec_env("locomotion", seed=0)
    shapes = [(features, box.shape[0]) for features, box in env.get_attr("task_space")]
    assert shapes == [(11, 3), (17, 6), (17, 6), (27, 8), (8, 2)]
    assert (env.observation_space.shape, env.action_space.shape) == ((27 + 5,), (8,))
    env.reset()
    ends = {}
    for _ in range(100):
        *_, dones, infos = env.step(np.ones((5, 8), np.float32))
        ends |= {task: infos[task]["TimeLimit.truncated"] for task in np.flatnonzero(dones)}
    assert ends[0] is False  # the hopper falls
    assert not {2, 4} & ends.keys()


def test_some_tasks_of_a_suite():
    env = make_vec_env("locomotion:swimmer,hopper", seed=0)
    assert env.get_attr("task_name") == ["swimmer", "hopper"]
    assert env.observation_space.shape == (11 + 2,)
    with pytest.raises(ValueError, match=r"unknown task of pendulums.*'length-2'"):
        make_vec_env("pendulums:length-2")
    with pytest.raises(TypeError, match="pendulums has no options, but 'n_goals'"):
        make_vec_env("pendulums", n_goals=2)
    with pytest.raises(ValueError, match=r"did you mean .*pendulums"):
        make_vec_env("pendulum")


class Scripted(gym.Env):
    """Shows given first features and rewards, step by step."""

    metadata = {"render_modes": []}  # noqa: RUF012
    observation_space = action_space = spaces.Box(-1, 1, (1,))

    def __init__(self, features, rewards):
        self.script = list(zip(features, rewards, strict=True))

    def reset(self, **kwargs):
        self.left = iter(self.script)
        return [0.0], {}

    def step(self, action):
        feature, reward = next(self.left)
        return [feature], reward, False, False, {}


@pytest.mark.parametrize(
    ("wrapper", "limit", "expected"), [(StaysUpright, 2, [0, 0, 0, 1]), (ReachesReturn, 5, [0, 1, 0, 1])]
)
def test_success_as_it_is_defined(wrapper, limit, expected):
    env = wrapper(Scripted([0.96, 0.9, 0.99, 1.0], [3.0, 2.0, -1.0, 4.0]), limit)
    for _ in range(2):
        env.reset()
        assert [int(env.step(None)[-1]["success"]) for _ in range(4)] == expected


@pytest.mark.parametrize("suite", ["pendulums", "locomotion"])
def test_an_episode_goes_on_from_its_state(suite):
    env, again = make_vec_env(suite, seed=0), make_vec_env(suite, seed=1)
    env.reset()
    draw = np.random.default_rng(0)
    actions = draw.uniform(-1, 1, (30, env.num_envs, *env.action_space.shape)).astype(np.float32)
    for action in actions[:20]:
        observations, *_ = env.step(action)
    again.reset()
    np.testing.assert_array_equal(again.load_state_dict(env.state_dict()), observations)
    for action in actions[20:]:
        for one, other in zip(env.step(action)[:3], again.step(action)[:3], strict=True):
            np.testing.assert_array_equal(one, other)


def test_sub_environments_keep_the_contract_of_sb3():
    env = make_vec_env("locomotion:hopper,swimmer", seed=0)
    for task in env._shards[0].tasks.envs:
        check_env(task)
