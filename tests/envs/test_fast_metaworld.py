"""The faster classes give Meta-World's own results, bit for bit."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from metaworld.env_dict import ALL_V3_ENVIRONMENTS
from metaworld.policies import ENV_POLICY_MAP
from metaworld.utils import reward_utils
from scipy.spatial.transform import Rotation

from mtrl_transfer.envs.metaworld import fast_math
from mtrl_transfer.envs.metaworld.fast import fast_class
from mtrl_transfer.envs.metaworld.goals import draw_goals
from mtrl_transfer.envs.metaworld.suites import SUITES
from mtrl_transfer.envs.metaworld.task import _encode

# Meta-World's experts overshoot by design and warn about it.
pytestmark = pytest.mark.filterwarnings(r"ignore:Constant\(s\) may be too high:UserWarning")


def test_copies_of_a_compiled_model_are_independent():
    one, other, fresh = (fast_class(ALL_V3_ENVIRONMENTS["push-v3"])() for _ in range(3))
    one.model.body_pos[:] = 9.0
    assert np.array_equal(other.model.body_pos, fresh.model.body_pos)
    assert not (other.model.body_pos == 9.0).any()


def assert_equal_episode(original, fast, actions, context):
    """One episode in both; `actions` gives an action for each step from the observation."""
    expected, found = original.reset()[0], fast.reset()[0]
    assert expected.tobytes() == found.tobytes(), f"{context}: reset"
    for step, act in enumerate(actions):
        action = act(expected)
        expected, reward, *_, info = original.step(action)
        found, fast_reward, *_, fast_info = fast.step(action)
        assert expected.tobytes() == found.tobytes(), f"{context}, step {step}: observation"
        assert reward == fast_reward, f"{context}, step {step}: reward"
        assert info == fast_info, f"{context}, step {step}: info"


def episodes(name, steps):
    """Expert actions with noise, random actions, and the expert again: (goal, actions) of each episode."""
    generator, expert = np.random.default_rng(0), ENV_POLICY_MAP[name]()

    def expert_action(observation):
        noisy = expert.get_action(observation) + generator.normal(0, 0.1, 4)
        return np.clip(noisy, -1, 1).astype(np.float32)

    def random_action(_observation):
        return generator.uniform(-1.2, 1.2, 4).astype(np.float32)

    return [(0, [expert_action] * steps), (1, [random_action] * steps), (0, [expert_action] * steps)]


def compare(name, reward_version, steps):
    env_cls = ALL_V3_ENVIRONMENTS[name]
    original = env_cls(reward_function_version=reward_version)
    fast = fast_class(env_cls)(reward_function_version=reward_version)
    goals = draw_goals([name], 2, 0)[name]
    for episode, (goal, actions) in enumerate(episodes(name, steps)):
        for env in (original, fast):
            env.set_task(_encode(name, env_cls, goals[goal]))
        assert_equal_episode(original, fast, actions, f"{name} {reward_version}, episode {episode}")


@pytest.mark.parametrize("name", SUITES["MT10"])
def test_mt10_tasks_are_equal(name):
    compare(name, "v2", steps=100)


@pytest.mark.slow
@pytest.mark.parametrize("name", ALL_V3_ENVIRONMENTS)
@pytest.mark.parametrize("reward_version", ["v1", "v2"])
def test_all_tasks_are_equal_over_whole_episodes(name, reward_version):
    compare(name, reward_version, steps=499)


def test_meta_world_itself_is_not_changed():
    env_cls = ALL_V3_ENVIRONMENTS["push-v3"]
    before = dict(vars(env_cls))
    fast_class.__wrapped__(env_cls)
    assert dict(vars(env_cls)) == before
    assert env_cls.compute_reward.__globals__["reward_utils"] is reward_utils
    assert env_cls.compute_reward.__globals__["np"] is np
    assert env_cls._get_quat_objects.__globals__["Rotation"] is Rotation


floats = st.floats(-10, 10, allow_nan=False)


@given(
    x=floats,
    lower=st.floats(-1, 1),
    width=st.floats(0, 1),
    margin=st.one_of(st.just(0.0), st.floats(1e-6, 5)),
    sigmoid=st.sampled_from(["long_tail", "gaussian"]),
    wrap=st.sampled_from([float, np.float64]),
)
def test_tolerance_is_meta_worlds(x, lower, width, margin, sigmoid, wrap):
    arguments = (wrap(x), (lower, lower + width), wrap(margin), sigmoid)
    expected, found = reward_utils.tolerance(*arguments), fast_math.tolerance(*arguments)
    assert expected == found
    assert type(expected) is type(found)


def test_tolerance_refuses_what_meta_worlds_refuses():
    for bad in ({"bounds": (1.0, 0.0)}, {"margin": -1.0}):
        with pytest.raises(ValueError, match=r"[Bb]ound|margin"):
            fast_math.tolerance(0.5, sigmoid="long_tail", **bad)


@given(st.lists(floats, min_size=1, max_size=6))
def test_norm_is_numpys(values):
    x = np.array(values)
    assert fast_math.norm(x) == np.linalg.norm(x)
    assert fast_math.norm(x, 1) == np.linalg.norm(x, 1)
    assert fast_math.norm(x.astype(np.float32)) == np.linalg.norm(x.astype(np.float32))
    np.testing.assert_array_equal(fast_math.norm(np.outer(x, x), axis=0), np.linalg.norm(np.outer(x, x), axis=0))


@given(st.lists(floats, min_size=4, max_size=4).filter(lambda q: math.hypot(*q) > 0.1))
def test_quaternion_is_scipys(values):
    matrix = Rotation.from_quat(values).as_matrix()
    assert isinstance(fast_math.QuickRotation.from_matrix(matrix), fast_math.QuickRotation)
    np.testing.assert_array_equal(
        fast_math.QuickRotation.from_matrix(matrix).as_quat(), Rotation.from_matrix(matrix).as_quat()
    )


def test_scipy_gets_a_matrix_that_is_no_rotation():
    def outcome(rotation, matrix):
        try:
            return rotation.from_matrix(matrix).as_quat().tolist()
        except ValueError as error:  # of a determinant below 0, in newer versions
            return str(error)

    for matrix in (np.diag([1.0, 1.0, 1.1]), -np.eye(3)):
        assert outcome(fast_math.QuickRotation, matrix) == outcome(Rotation, matrix)
