"""Pictures are upright, and a machine that cannot draw says what is missing."""

from __future__ import annotations

import os
from types import SimpleNamespace

import numpy as np
import pytest

from mtrl_transfer.envs import make_vec_env
from mtrl_transfer.envs.metaworld.rendering import choose_backend, upright

STILL = np.zeros((1, 4), np.float32)
UP = np.array([[0.0, 0.0, 1.0, 0.0]], np.float32)


@pytest.fixture
def env():
    env = make_vec_env(["reach-v3"], n_goals=1, render_mode="rgb_array")
    env.reset()
    yield env
    env.close()


def picture(env):
    try:
        return env.render()
    except RuntimeError as error:
        pytest.skip(f"this machine cannot draw: {error.__cause__}")


def row_of_change(before, after):
    """Mean row of the pixels that became different."""
    return np.nonzero(np.abs(after.astype(int) - before).sum(axis=2) > 60)[0].mean()


def test_up_is_up(env):
    """Raise the hand a little from low and from high: the pixels that change are higher up in the second case."""
    rows = []
    for _ in range(2):
        before = picture(env)
        for _ in range(8):
            env.step(UP)
        rows.append(row_of_change(before, picture(env)))
        for _ in range(10):
            env.step(UP)
    assert before.shape == (480, 480, 3)
    assert before.dtype == np.uint8
    assert rows[1] < rows[0] - 10


def test_drawing_changes_nothing_that_an_agent_sees(env):
    drawn = [env.step(UP)[0] for _ in range(5) if picture(env) is not None]
    plain = make_vec_env(["reach-v3"], n_goals=1)
    plain.reset()
    np.testing.assert_array_equal(drawn, [plain.step(UP)[0] for _ in range(5)])


def test_tasks_draw_their_own_meshes(env):
    alone = picture(env)
    both = make_vec_env(["reach-v3", "window-open-v3"], n_goals=1, render_mode="rgb_array")
    both.reset()
    for _ in range(2):
        pictures = both.get_images()
    both.close()
    np.testing.assert_array_equal(pictures[0], alone)
    assert np.abs(pictures[1].astype(int) - alone).max() > 60


def test_a_missing_renderer_is_named_for_installation(monkeypatch):
    class Env:
        mujoco_renderer = SimpleNamespace(viewer=None)

        def render(self):
            raise AttributeError("no libEGL")

    monkeypatch.setenv("MUJOCO_GL", "egl")
    with pytest.raises(RuntimeError, match=r"MUJOCO_GL='egl'.*libegl1") as raised:
        upright(Env())
    assert isinstance(raised.value.__cause__, AttributeError)


@pytest.mark.parametrize(
    ("variables", "expected"),
    [({}, "egl"), ({"MUJOCO_GL": ""}, "egl"), ({"MUJOCO_GL": "osmesa"}, "osmesa"), ({"DISPLAY": ":0"}, None)],
)
def test_egl_is_only_the_default_without_screen(monkeypatch, variables, expected):
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "MUJOCO_GL"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("sys.platform", "linux")
    choose_backend()
    assert os.environ.get("MUJOCO_GL") == expected


def test_without_a_render_mode_there_is_no_picture():
    env = make_vec_env(["reach-v3"], n_goals=1)
    with pytest.warns(UserWarning, match="rgb_array"):
        assert list(env.get_images()) == [None]
