"""The Point suite has the properties that make its answer known."""

from __future__ import annotations

import json
import warnings

import numpy as np
import pytest
from stable_baselines3 import SAC
from stable_baselines3.common.evaluation import evaluate_policy

from mtrl_transfer.envs import make_vec_env, protocol_card
from mtrl_transfer.envs.point import HORIZON, NOISE_STD, STEP_LENGTH, SUCCESS_RADIUS


def random_rollout(env, steps=120, seed=0):
    generator = np.random.default_rng(seed)
    seen = [env.reset()]
    for _ in range(steps):
        observations, rewards, dones, infos = env.step(generator.uniform(-1, 1, (env.num_envs, 2)))
        seen += [observations, rewards, dones]
        seen += [info["terminal_observation"] for info in infos if "terminal_observation" in info]
    return np.concatenate([np.ravel(part) for part in seen])


def scramble_of(env, task, resets=12):
    """The linear map from a task's true state to its observation, by least squares over random states."""
    states, shown = [], []
    for _ in range(resets):
        shown.append(env.reset()[task, :4])
        states.append(np.concatenate([part[task] for part in env.hidden_state()]))
    solution, *_ = np.linalg.lstsq(np.array(states), np.array(shown), rcond=None)
    np.testing.assert_allclose(np.array(states) @ solution, shown, atol=1e-5)
    return solution.T


def test_each_family_has_an_orthogonal_scramble():
    env = make_vec_env("Point-6")
    assert env.families == ((0, 2, 4), (1, 3))
    assert env.harmful_tasks == (5,)
    assert env.solvable_tasks == (0, 1, 2, 3, 4)
    assert env.get_attr("family") == [0, 1, 0, 1, 0, None]
    scrambles = [scramble_of(env, task) for task in range(6)]
    for matrix in scrambles:
        np.testing.assert_allclose(matrix @ matrix.T, np.eye(4), atol=1e-4)
    for family in env.families:
        for task in family:
            np.testing.assert_allclose(scrambles[task], scrambles[family[0]], atol=1e-4)
    assert np.abs(scrambles[0] - scrambles[1]).max() > 0.5
    np.testing.assert_allclose(scrambles[5], scrambles[0], atol=1e-4)


def test_rotated_each_task_has_an_orthogonal_scramble():
    env, plain = make_vec_env("Point-6-rotated"), make_vec_env("Point-6")
    assert env.families == ((0,), (1,), (2,), (3,), (4,))
    assert env.get_attr("family") == [0, 1, 2, 3, 4, None]
    assert protocol_card(env)["suite"] == "Point-6-rotated"
    scrambles = [scramble_of(env, task) for task in range(6)]
    for task, matrix in enumerate(scrambles):
        np.testing.assert_allclose(matrix @ matrix.T, np.eye(4), atol=1e-4)
        assert all(np.abs(matrix - other).max() > 0.4 for other in scrambles[:task])
    # Only what is seen differs: the same points, goals and rewards.
    for one in (env, plain):
        one.seed(3)
        one.reset()
    for _ in range(60):
        actions = np.full((6, 2), 0.3)
        np.testing.assert_array_equal(env.step(actions)[1], plain.step(actions)[1])
        np.testing.assert_array_equal(env.hidden_state(), plain.hidden_state())


def test_the_world_is_independent_of_the_seed():
    np.testing.assert_allclose(
        scramble_of(make_vec_env("Point-4", seed=1), 1), scramble_of(make_vec_env("Point-9", seed=2), 3), atol=1e-4
    )


def test_spread_multiplies_rewards_and_nothing_else():
    env, plain = make_vec_env("Point-6-spread"), make_vec_env("Point-6")
    assert protocol_card(env)["suite"] == "Point-6-spread"
    for one in (env, plain):
        one.seed(3)
        one.reset()
    rewards = [(env.step(actions)[1], plain.step(actions)[1]) for actions in [np.full((6, 2), 0.3)] * 5]
    sizes = np.array([spread / equal for spread, equal in rewards]).mean(0)
    np.testing.assert_allclose(sizes, [0.1, 10**-0.5, 1, 10**0.5, 10, 1], rtol=1e-4)
    np.testing.assert_array_equal(env.hidden_state(), plain.hidden_state())


def test_rewards_are_progress_and_large_noise():
    env = make_vec_env("Point-4", seed=3)
    env.reset()
    generator = np.random.default_rng(0)
    rewards = []
    for step in range(1, 40 * HORIZON + 1):
        before, goals = env.hidden_state()
        rewards.append(env.step(generator.uniform(-1, 1, (4, 2)))[1])
        if step % HORIZON:
            after, _ = env.hidden_state()
            progress = np.linalg.norm(goals - before, axis=1) - np.linalg.norm(goals - after, axis=1)
            np.testing.assert_allclose(rewards[-1][:3], progress[:3] / STEP_LENGTH, rtol=1e-5, atol=1e-6)
    rewards = np.array(rewards)
    assert rewards[:, 3].std() == pytest.approx(NOISE_STD, rel=0.05)
    assert rewards[:, 3].std() == pytest.approx(10 * rewards[:, :3].std(), rel=0.06)
    assert abs(rewards[:, 3].mean()) < 0.5
    assert abs(np.corrcoef(rewards[1:, 3], rewards[:-1, 3])[0, 1]) < 0.1


def test_actions_move_the_point_and_walls_hold_it():
    env = make_vec_env("Point-3", seed=0)
    env.reset()
    before, goals = env.hidden_state()
    actions = np.array([[1.0, -0.5], [5.0, 0.0], [0.0, 0.0]])
    env.step(actions)
    after, goals_after = env.hidden_state()
    expected = np.clip(before + STEP_LENGTH * np.clip(actions, -1, 1), -1, 1)
    np.testing.assert_allclose(after, expected, atol=1e-12)
    np.testing.assert_array_equal(goals, goals_after)
    for _ in range(30):
        env.step(np.ones((3, 2)))
    np.testing.assert_array_equal(env.hidden_state()[0], np.ones((3, 2)))


def test_the_observation_suffices_for_a_scripted_policy():
    """Unscramble the observation with the family's matrix; walking straight to the goal succeeds in every episode."""
    env = make_vec_env("Point-5", seed=0)
    inverses = np.stack([scramble_of(env, task).T for task in range(5)])
    observations = env.reset()
    for _ in range(20):
        for _ in range(HORIZON):
            states = np.einsum("tij,tj->ti", inverses, observations[:, :4])
            observations, _, dones, infos = env.step((states[:, 2:] - states[:, :2]) / STEP_LENGTH)
        assert dones.all()
        assert [info["is_success"] for info in infos] == [True] * 4 + [False]


def test_scripted_actions_are_the_best_known_answer():
    env = make_vec_env("Point-3", seed=0)
    env.reset()
    for _ in range(25):
        env.step(env.scripted_actions())
    positions, goals = env.hidden_state()
    np.testing.assert_allclose(positions, goals, atol=1e-6)


def test_random_actions_do_not_solve_it():
    env = make_vec_env("Point-5", seed=0)
    env.reset()
    generator = np.random.default_rng(0)
    succeeded = []
    for _ in range(40 * HORIZON):
        *_, dones, infos = env.step(generator.uniform(-1, 1, (5, 2)))
        if dones.all():
            succeeded.append([info["is_success"] for info in infos])
    assert 0.0 < np.mean(succeeded) < 0.5


def test_success_means_near_at_any_step():
    env = make_vec_env("Point-3", seed=0)
    env.reset()
    near = np.zeros(3, bool)
    for step in range(HORIZON - 1):
        actions = env.scripted_actions() if step < 25 else -np.ones((3, 2))
        infos = env.step(actions)[3]
        positions, goals = env.hidden_state()
        now = np.linalg.norm(goals - positions, axis=1) <= SUCCESS_RADIUS
        now[-1] = False
        near |= now
        assert [info["success"] for info in infos] == now.tolist()
        assert [info["is_success"] for info in infos] == near.tolist()
    assert near.tolist() == [True, True, False]
    assert not now.any()


def test_same_seed_repeats_bit_for_bit():
    first = random_rollout(make_vec_env("Point-5", seed=0))
    env = make_vec_env("Point-5", seed=0)
    np.testing.assert_array_equal(random_rollout(env), first)
    env.seed(0)
    np.testing.assert_array_equal(random_rollout(env), first)
    assert not np.array_equal(random_rollout(make_vec_env("Point-5", seed=1)), first)


def test_contract_of_an_sb3_vector_environment():
    env = make_vec_env("Point-4", seed=0)
    observations = env.reset()
    assert observations.shape == (4, 8)
    assert observations.dtype == np.float32
    np.testing.assert_array_equal(observations[:, 4:], np.eye(4))
    kept, returns = observations.copy(), np.zeros(4)
    for step in range(1, HORIZON + 1):
        later, rewards, dones, infos = env.step(np.full((4, 2), 0.3, np.float32))
        returns += rewards
        assert dones.tolist() == [step == HORIZON] * 4
        assert [info["TimeLimit.truncated"] for info in infos] == [step == HORIZON] * 4
    np.testing.assert_array_equal(observations, kept)
    assert not np.array_equal(infos[0]["terminal_observation"], later[0])
    np.testing.assert_array_equal(infos[1]["terminal_observation"][4:], np.eye(4)[1])
    assert [info["episode"]["l"] for info in infos] == [HORIZON] * 4
    np.testing.assert_allclose([info["episode"]["r"] for info in infos], returns, rtol=1e-5)
    assert env.get_attr("task_name") == ["point-a0", "point-b0", "point-a1", "noise"]
    with pytest.raises(AttributeError, match=r"'goal'.*task_name"):
        env.get_attr("goal")


def test_sb3_trains_and_evaluates_without_warnings():
    env = make_vec_env("Point-3")
    model = SAC("MlpPolicy", env, learning_starts=90, buffer_size=300, batch_size=8, policy_kwargs={"net_arch": [8]})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.learn(180)
        returns, lengths = evaluate_policy(model, make_vec_env("Point-3"), 3, return_episode_rewards=True)
    assert len(model.ep_info_buffer) == 3
    assert lengths == [HORIZON] * 3
    assert np.isfinite(returns).all()


def test_protocol_card_and_bad_input():
    card = json.loads(json.dumps(protocol_card(make_vec_env("Point-4"))))
    assert (card["suite"], card["horizon"], card["solvable_tasks"]) == ("Point-4", HORIZON, [0, 1, 2])
    with pytest.raises(ValueError, match="at least 3"):
        make_vec_env("Point-2")
    with pytest.raises(TypeError, match="'goals'"):
        make_vec_env("Point-4", goals="train")
    with pytest.raises(ValueError, match="n_procs must be 1"):
        make_vec_env("Point-4", n_procs=2)


def test_a_goal_option_repeats_the_episodes():
    env = make_vec_env("Point-3", seed=4)
    first = env.reset()
    for _ in range(50):
        second, *_ = env.step(np.zeros((3, 2)))
    env.step(np.zeros((3, 2)))
    for goal, expected in ((0, first), (1, second), (0, first)):
        env.set_options({"goal": goal})
        np.testing.assert_array_equal(env.reset(), expected)


def test_some_tasks_play_the_same_episodes():
    every, some = make_vec_env("Point-6", seed=2), make_vec_env("Point-6:noise,point-b1,point-a0", seed=2)
    chosen = [5, 3, 0]
    assert some.get_attr("task_name") == ["noise", "point-b1", "point-a0"]
    assert some.get_attr("family") == [None, 1, 0]
    assert (some.families, some.harmful_tasks, some.solvable_tasks) == (((2,), (1,)), (0,), (1, 2))
    assert protocol_card(some)["suite"] == "Point-6:noise,point-b1,point-a0"
    seen, own = every.reset(), some.reset()
    draw = np.random.default_rng(0)
    for step in range(HORIZON + 3):
        np.testing.assert_array_equal(own[:, :4], seen[chosen, :4])
        np.testing.assert_array_equal(own[:, 4:], np.eye(3))
        actions = draw.uniform(-1, 1, (6, 2))
        seen, rewards, dones, infos = every.step(actions)
        own, own_rewards, own_dones, own_infos = some.step(actions[chosen])
        np.testing.assert_array_equal(own_rewards, rewards[chosen])
        np.testing.assert_array_equal(own_dones, dones[chosen])
        assert [info["is_success"] for info in own_infos] == [infos[task]["is_success"] for task in chosen], step


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("Point-4:point-a0,point-a9", r"unknown task of Point-4: 'point-a9'; did you mean"),
        ("Point-4:noise,noise", "'noise' is listed twice"),
        ("Point-4:", "unknown task of Point-4: ''"),
    ],
)
def test_tasks_that_a_suite_has_not(spec, message):
    with pytest.raises(ValueError, match=message):
        make_vec_env(spec)
