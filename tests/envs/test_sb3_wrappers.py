"""SB3's wrappers and callbacks work on our vector environments."""

from __future__ import annotations

import numpy as np
import pytest
from stable_baselines3 import SAC
from stable_baselines3.common.callbacks import CheckpointCallback, EvalCallback
from stable_baselines3.common.vec_env import VecMonitor, VecNormalize, VecVideoRecorder

from mtrl_transfer.envs import make_vec_env, protocol_card

TASKS = ["reach-v3", "drawer-close-v3"]
STILL = np.zeros((2, 4), np.float32)


def short_env(**options):
    return make_vec_env(TASKS, horizon=5, n_goals=2, **options)


def agent(env):
    return SAC("MlpPolicy", env, learning_starts=10, buffer_size=100, batch_size=8, policy_kwargs={"net_arch": [8]})


# A user who wraps twice is told that the inner statistics are hidden; here they are wanted twice.
@pytest.mark.filterwarnings("ignore:The environment is already wrapped with a `Monitor`:UserWarning")
def test_vec_monitor_agrees_with_the_environments_own_statistics(tmp_path):
    plain, env = short_env(), VecMonitor(short_env(), str(tmp_path / "monitor.csv"))
    plain.reset()
    env.reset()
    for _ in range(5):
        own, monitored = plain.step(STILL)[3], env.step(STILL)[3]
    for expected, found in zip(own, monitored, strict=True):
        assert found["episode"]["l"] == expected["episode"]["l"] == 5
        assert found["episode"]["r"] == pytest.approx(expected["episode"]["r"], abs=1e-4)
    env.close()
    rows = (tmp_path / "monitor.csv").read_text().splitlines()[2:]
    assert [row.split(",")[1] for row in rows] == ["5", "5"]


def test_vec_normalize_keeps_the_raw_values_underneath():
    plain, env = short_env(), VecNormalize(short_env())
    np.testing.assert_array_equal(plain.reset(), env.reset() * 0 + env.get_original_obs())
    for _ in range(6):
        observations, rewards, *_ = plain.step(STILL)
        normalised, _, _, _ = env.step(STILL)
        np.testing.assert_array_equal(env.get_original_obs(), observations)
        np.testing.assert_array_equal(env.get_original_reward(), rewards)
    assert not np.allclose(normalised, observations)
    assert env.get_attr("task_name") == TASKS
    assert protocol_card(env)["task_names"] == TASKS


def test_evaluation_and_checkpoints_during_training(tmp_path):
    """EvalCallback reads our `is_success`; every task's episodes are there."""
    env = short_env()
    evaluation = EvalCallback(
        short_env(goal_order="sequential"), n_eval_episodes=4, eval_freq=10, log_path=str(tmp_path), verbose=0
    )
    checkpoints = CheckpointCallback(10, str(tmp_path / "checkpoints"))
    model = agent(env).learn(40, callback=[evaluation, checkpoints])
    saved = np.load(tmp_path / "evaluations.npz")
    assert saved["results"].shape == (2, 4)
    assert saved["successes"].shape == (2, 4)
    assert (saved["ep_lengths"] == 5).all()
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == [
        "rl_model_20_steps.zip",
        "rl_model_40_steps.zip",
    ]
    assert [info["l"] for info in model.ep_info_buffer] == [5] * 8
    assert len(model.ep_success_buffer) == 8
    restored = SAC.load(tmp_path / "checkpoints" / "rl_model_40_steps.zip", env=env)
    np.testing.assert_array_equal(restored.predict(env.reset(), deterministic=True)[0].shape, (2, 4))


def test_video(tmp_path):
    pytest.importorskip("moviepy")
    env = short_env(render_mode="rgb_array")
    env.reset()
    try:
        env.render()
    except RuntimeError as error:
        pytest.skip(f"this machine cannot draw: {error.__cause__}")
    env = VecVideoRecorder(env, str(tmp_path), record_video_trigger=lambda step: step == 0, video_length=4)
    env.reset()
    for _ in range(5):
        env.step(STILL)
    env.close()
    (video,) = tmp_path.glob("*.mp4")
    assert video.stat().st_size > 1000
