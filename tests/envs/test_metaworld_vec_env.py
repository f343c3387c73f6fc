"""Meta-World as a vector environment: SB3's contract, seeding, goals, success."""

from __future__ import annotations

import json

import metaworld
import numpy as np
import pytest
from metaworld.policies import ENV_POLICY_MAP
from stable_baselines3.common.env_checker import check_env

from mtrl_transfer.envs import make_vec_env, protocol_card
from mtrl_transfer.envs.metaworld.suites import SUITES, MetaWorldOptions, parse_metaworld_suite

# Meta-World's experts overshoot by design and warn about it.
pytestmark = pytest.mark.filterwarnings(r"ignore:Constant\(s\) may be too high:UserWarning")

TASKS = ["reach-v3", "drawer-close-v3"]
STILL = np.zeros((2, 4), np.float32)


def random_actions(steps, n_tasks=2, seed=0):
    return np.random.default_rng(seed).uniform(-1, 1, (steps, n_tasks, 4)).astype(np.float32)


def rollout(env, steps=25):
    """Everything an agent sees, over several episodes where the horizon is short."""
    seen = [env.reset()]
    goals = [env.get_attr("goal")]
    for actions in random_actions(steps, env.num_envs):
        observations, rewards, dones, infos = env.step(actions)
        seen += [observations, rewards, dones]
        seen += [info["terminal_observation"] for info in infos if "terminal_observation" in info]
        goals.append(env.get_attr("goal"))
    return np.concatenate([np.ravel(part) for part in seen]), np.array(goals)


@pytest.fixture(scope="module")
def env():
    return make_vec_env(TASKS, seed=0, horizon=5, n_goals=3)


def test_check_env_passes():
    suite, options = parse_metaworld_suite(TASKS), MetaWorldOptions(n_goals=1)
    for make in suite.env_fns(options, suite.draw_goals(options)):
        check_env(make())


def test_observations_are_float32_with_the_one_hot_last(env):
    env.seed(0)
    observations = env.reset()
    space = env.observation_space
    assert observations.shape == (2, 41)
    assert observations.dtype == space.dtype == np.float32
    assert np.all(space.low == -np.inf)
    assert np.all(space.high == np.inf)
    np.testing.assert_array_equal(observations[:, -2:], np.eye(2))
    np.testing.assert_array_equal(env.step(STILL)[0][:, -2:], np.eye(2))
    assert env.get_attr("task_name") == TASKS


def test_observation_is_metaworlds_own(env):
    """The same goal and actions in Meta-World's own environment, driven by hand."""
    env.seed(1)
    observations = env.reset()
    goal = env.get_attr("goal")[0]
    benchmark = metaworld.MT1("reach-v3", seed=0)
    own = benchmark.train_classes["reach-v3"]()
    own.set_task(benchmark.train_tasks[goal])
    own.reset()  # as often as ours: its second reset differs in the last bits from its first
    expected, _ = own.reset()
    np.testing.assert_allclose(observations[0, :39], expected, rtol=1e-5, atol=1e-6)
    for actions in random_actions(4):
        observations, rewards, _, infos = env.step(actions)
        expected, reward, _, _, info = own.step(actions[0])
        np.testing.assert_allclose(observations[0, :39], expected, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(rewards[0], reward, rtol=1e-5)
        assert infos[0]["obj_to_target"] == pytest.approx(info["obj_to_target"], rel=1e-5)


def test_episode_ends_by_truncation_at_the_horizon(env):
    env.seed(0)
    env.reset()
    returns = np.zeros(2)
    for step in range(5):
        observations, rewards, dones, infos = env.step(STILL)
        returns += rewards
        assert dones.tolist() == [step == 4] * 2
        assert [info["TimeLimit.truncated"] for info in infos] == [step == 4] * 2
        assert [("terminal_observation" in info) for info in infos] == [step == 4] * 2
    for task, info in enumerate(infos):
        assert info["episode"]["l"] == 5
        assert info["episode"]["r"] == pytest.approx(returns[task], rel=1e-5)
        assert not np.array_equal(info["terminal_observation"], observations[task])
        np.testing.assert_array_equal(info["terminal_observation"][-2:], np.eye(2)[task])


def test_returned_arrays_are_not_reused(env):
    env.seed(0)
    first = env.reset()
    kept = first.copy()
    second, rewards, *_ = env.step(np.ones((2, 4), np.float32))
    kept_rewards = rewards.copy()
    env.step(-np.ones((2, 4), np.float32))
    np.testing.assert_array_equal(first, kept)
    np.testing.assert_array_equal(rewards, kept_rewards)
    assert not np.array_equal(first, second)


def test_success_is_latched_over_the_episode_only():
    """The expert reaches the goal, then leaves it again; the next episode starts unsuccessful."""
    env = make_vec_env(["reach-v3"], horizon=80, n_goals=1)
    expert = ENV_POLICY_MAP["reach-v3"]()
    observation = env.reset()
    instant, latched = [], []
    for step in range(81):
        solved = bool(latched and latched[-1])
        action = [1.0, -1.0, -1.0, 0.0] if solved else expert.get_action(observation[0, :39])
        observation, _, dones, infos = env.step(np.array([action], np.float32))
        instant.append(bool(infos[0]["success"]))
        latched.append(infos[0]["is_success"])
        assert dones[0] == (step == 79)
    assert latched[:80] == np.logical_or.accumulate(instant[:80]).tolist()
    assert latched[79]
    assert not instant[79]
    assert not latched[80]


def test_only_the_same_seed_repeats_the_bits():
    options = {"horizon": 6, "n_goals": 10}
    first, goals = rollout(make_vec_env(TASKS, seed=0, **options))
    again, goals_again = rollout(make_vec_env(TASKS, seed=0, **options))
    other, _ = rollout(make_vec_env(TASKS, seed=1, **options))
    np.testing.assert_array_equal(first, again)
    np.testing.assert_array_equal(goals, goals_again)
    assert not np.array_equal(first, other)


def goal_sequences(env, episodes=30):
    """The goals that each task visits, `[T, episodes]`."""
    visited = []
    for _ in range(episodes):
        env.reset()
        visited.append(env.get_attr("goal"))
    return np.array(visited).T


def test_tasks_visit_different_random_goals():
    env = make_vec_env(["reach-v3", "reach-wall-v3", "push-v3"], seed=0, n_goals=10)
    goals = goal_sequences(env)
    assert len({tuple(sequence) for sequence in goals}) == 3
    assert all(len(set(sequence)) > 5 for sequence in goals)
    env.seed(0)
    np.testing.assert_array_equal(goal_sequences(env), goals)
    assert env.seed(0) != env.seed(1)[1:] + env.seed(0)[:1]
    assert not set(env.seed(0)) & set(env.seed(1))


def test_sequential_order_visits_every_goal_once():
    env = make_vec_env(TASKS, horizon=2, n_goals=4, goal_order="sequential")
    assert env.get_attr("takes_goal_option") == [True, True]
    env.set_options({"goal": 0})
    env.reset()
    visited = [env.get_attr("goal")]
    for _ in range(3 * 2):
        _, _, dones, _ = env.step(STILL)
        if dones.all():
            visited.append(env.get_attr("goal"))
    assert visited == [[0, 0], [1, 1], [2, 2], [3, 3]]
    env.set_options({"goal": 2})
    env.reset()
    assert env.get_attr("goal") == [2, 2]
    env.reset()
    assert env.get_attr("goal") == [3, 3]
    env.seed(5)
    env.reset()
    assert env.get_attr("goal") == [0, 0]


def test_goal_seed_and_not_seed_chooses_goals():
    def hashes(**options):
        return protocol_card(make_vec_env(["reach-v3"], n_goals=2, **options))["goal_hashes"]

    assert hashes(seed=0) == hashes(seed=1)
    assert hashes(goal_seed=0) != hashes(goal_seed=1)
    assert hashes() != hashes(goals="unseen")


def test_reward_versions_differ():
    """Version 2 stays within ten per step; version 1 pays in the thousands near the goal."""
    best = {}
    for version in ("v1", "v2"):
        env = make_vec_env(["reach-v3"], n_goals=1, reward_version=version)
        observation, expert, rewards = env.reset(), ENV_POLICY_MAP["reach-v3"](), []
        for _ in range(60):
            observation, reward, *_ = env.step(expert.get_action(observation[0, :39])[None])
            rewards.append(float(reward[0]))
        best[version] = max(rewards)
    assert 9 < best["v2"] <= 10
    assert best["v1"] > 1000


def test_protocol_card_is_json_and_complete():
    env = make_vec_env(TASKS, horizon=7, n_goals=2, goal_seed=4)
    card = json.loads(json.dumps(protocol_card(env)))
    assert card["task_names"] == TASKS
    assert (card["horizon"], card["n_goals"], card["goal_seed"], card["reward_version"]) == (7, 2, 4, "v2")
    assert (card["goals"], card["goal_order"], card["solvable_tasks"]) == ("train", "random", [0, 1])
    assert card["versions"]["metaworld"].startswith("3.1")
    assert set(card["goal_hashes"]) == set(TASKS)


def test_experts_solve_all_ten_tasks():
    """Two goals each, on observations and actions as an agent has them."""
    env = make_vec_env("MT10", horizon=250, n_goals=2, goal_order="sequential")
    assert tuple(env.get_attr("task_name")) == SUITES["MT10"]
    experts = [ENV_POLICY_MAP[name]() for name in env.get_attr("task_name")]
    env.set_options({"goal": 0})
    observations = env.reset()
    succeeded = []
    for _ in range(2 * 250):
        actions = [expert.get_action(row[:39]) for expert, row in zip(experts, observations, strict=True)]
        observations, _, dones, infos = env.step(np.clip(actions, -1, 1).astype(np.float32))
        if dones.all():
            succeeded.append([info["is_success"] for info in infos])
    assert succeeded == [[True] * 10] * 2


@pytest.mark.parametrize(
    ("spec", "options", "message"),
    [
        ("MT11", {}, "did you mean MT10"),
        ("mt10", {}, "did you mean MT10"),
        ("reach-v3", {}, "did you mean MT1:reach-v3"),
        ("Point3", {}, "did you mean Point-3\\?"),
        ("Pendulum-v1", {}, r"'Pendulum-v1' is neither .* make_vec_env\({'mine': lambda"),
        (["Pendulum-v1", "CartPole-v1"], {}, "'Pendulum-v1' is neither a suite nor a Meta-World task"),
        ([dict], {}, "<class 'dict'> is neither"),
        ("MT1:reach-v2", {}, "did you mean reach-v3"),
        ("MT10:sweep-v3", {}, "unknown task: 'sweep-v3'"),
        (["reach-v3", "drawer-closed-v3"], {}, "did you mean drawer-close-v3"),
        (["reach-v3", "reach-v3"], {}, "twice"),
        ([], {}, "at least one"),
        ("MT10", {"horizon": 501}, "500"),
        ("MT10", {"horizon": 0}, "horizon"),
        ("MT10", {"n_goals": 0}, "n_goals"),
        ("MT10", {"goal_seed": -1}, "goal_seed"),
        ("MT10", {"reward_version": "v3"}, "did you mean v[12]"),
        ("MT10", {"goals": "unsen"}, "did you mean unseen"),
        ("MT10", {"goal_order": "sequence"}, "did you mean sequential"),
        ("MT10", {"n_procs": 0}, "n_procs"),
    ],
)
def test_bad_input_names_the_nearest_choice(spec, options, message):
    with pytest.raises(ValueError, match=message):
        make_vec_env(spec, **options)


def test_an_unknown_option_names_the_nearest():
    with pytest.raises(TypeError, match=r"'n_goal'.*did you mean n_goals"):
        make_vec_env("MT10", n_goal=3)


def test_a_goal_that_does_not_exist(env):
    env.set_options({"goal": 3})
    with pytest.raises(ValueError, match=r"goal 3 .* goals 0 to 2"):
        env.reset()
