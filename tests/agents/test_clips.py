from __future__ import annotations

import numpy as np

from mtrl_transfer.agents.monitoring.clips import SUCCESS, record_clips
from mtrl_transfer.envs import make_vec_env


class Scripted:
    """The best actions, of the environment that is played."""

    def __init__(self, env) -> None:
        self.env = env

    def predict(self, observation, *, deterministic=False):
        return self.env.scripted_actions(), None


def rows_and_columns(frame, colour):
    """Mean row and column of the pixels of a colour."""
    return np.argwhere((frame == colour).all(axis=-1)).mean(axis=0)


def test_a_clip_shows_the_way_to_the_goal():
    env = make_vec_env("Point-3", seed=0)
    env.set_options({"goal": 0})
    env.reset()
    positions, goals = env.hidden_state()
    clips = record_clips(Scripted(env), env, every=2)
    assert [clip.task_name for clip in clips] == ["point-a0", "point-b0", "noise"]
    assert all(clip.frames.shape == (25, 160, 160, 3) for clip in clips)
    for task, clip in enumerate(clips[:2]):
        # Up in the world is up in the picture: rows fall as the second axis rises.
        row, column = rows_and_columns(clip.frames[0], (0, 0, 0))
        np.testing.assert_allclose([column, -row], 79.5 + positions[task] * [72.3, 72.3] - [0, 159], atol=2)
        goal = 79.5 + goals[task] * 72.3 - [0, 159]
        row, column = rows_and_columns(clip.frames[-1], (0, 0, 0))
        np.testing.assert_allclose([column, -row], goal, atol=2)
        framed = (clip.frames[:, 0] == SUCCESS).all(axis=(1, 2))
        assert not framed[0]
        assert framed[-1]
        assert np.all(np.diff(framed.astype(int)) >= 0)
    # The noise task cannot be solved: its goal is grey and no frame appears.
    assert not (clips[2].frames[:, 0] == SUCCESS).all(axis=(1, 2)).any()


def test_shrinking_averages():
    env = make_vec_env("Point-3", seed=0)
    whole, half = (record_clips(Scripted(env), env, every=50, shrink=shrink)[0].frames[0] for shrink in (1, 2))
    expected = whole.astype(float).reshape(80, 2, 80, 2, 3).mean(axis=(1, 3))
    np.testing.assert_allclose(half, expected, atol=0.5)


def test_drawing_changes_nothing():
    drawn, plain = make_vec_env("Point-3", seed=0), make_vec_env("Point-3", seed=0)
    drawn.reset(), plain.reset()
    for _ in range(5):
        drawn.get_images()
        actions = plain.scripted_actions()
        np.testing.assert_array_equal(drawn.step(actions)[0], plain.step(actions)[0])
