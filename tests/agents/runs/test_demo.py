"""``mtrl-demo`` plays an actor's file: a table always, and a clip where pictures can be drawn."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import imageio.v3 as imageio
import numpy as np
import pytest

from mtrl_transfer.agents import MTSAC, load_actor, save_actor
from mtrl_transfer.agents.runs import cli
from mtrl_transfer.agents.runs.cli import demo
from mtrl_transfer.agents.runs.demo import Film, shipped_agent
from mtrl_transfer.envs import make_vec_env


@pytest.fixture
def file(tmp_path: Path) -> Path:
    model = MTSAC("MultiTaskPolicy", make_vec_env("Point-3"), buffer_size=30, policy_kwargs={"net_arch": [4]}, seed=0)
    save_actor(model, tmp_path / "actor.safetensors", env={"id": "Point-3"})
    return tmp_path / "actor.safetensors"


def test_prints_a_table_and_writes_a_clip(file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    imageio_ffmpeg = pytest.importorskip("imageio_ffmpeg")
    assert demo([f"agent={file}", f"out={tmp_path / 'clips' / 'all'}"]) == 0
    assert "point-a0" in capsys.readouterr().out
    assert imageio.imread(tmp_path / "clips" / "all.gif").shape[1:] == (176, 480, 3)
    n_frames, _ = imageio_ffmpeg.count_frames_and_secs(str(tmp_path / "clips" / "all.mp4"))
    assert n_frames == 1 + 48 // 4 + 20  # the first picture, every fourth step but the last, the last one held


def test_without_video_only_the_table(file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert demo([f"agent={file}", "video=false", f"out={tmp_path / 'all'}"]) == 0
    printed = capsys.readouterr().out
    assert "Evaluation, 1 episode a task" in printed
    assert "Mean success" in printed
    assert list(tmp_path.glob("all*")) == []


def test_without_opengl_one_line_and_the_table(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    def draw(*_: Any, **__: Any) -> None:
        raise RuntimeError("MuJoCo cannot draw")

    monkeypatch.setattr("mtrl_transfer.envs.point.PointVecEnv.get_images", draw)
    assert demo([f"agent={file}", f"out={tmp_path / 'all'}"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if "draw" in line] == ["No clip: MuJoCo cannot draw"]
    assert any("Mean success" in line for line in lines)
    assert list(tmp_path.glob("all*")) == []


@pytest.mark.parametrize(("option", "told"), [("video=maybe", "video"), ("agent=nowhere", "nowhere"), ("a=1", "a")])
def test_bad_options_are_told(option: str, told: str, capsys: pytest.CaptureFixture[str]):
    assert demo([option]) == 2
    assert told in capsys.readouterr().err


def test_a_solved_task_stands_still_in_green():
    env = make_vec_env("Point-3", seed=0)
    film = Film(env)
    film.reset()
    for _ in range(40):
        film.step(env.scripted_actions())
    frames = film.frames()
    np.testing.assert_array_equal(frames[-1], frames[-20])
    np.testing.assert_array_equal(frames[-1, 20, [1, 161]], [(40, 200, 60)] * 2)
    assert not np.array_equal(frames[0], frames[-1])


def test_evaluate_plays_an_actor_file(file: Path, capsys: pytest.CaptureFixture[str]):
    assert cli.evaluate([str(file), "episodes=2"]) == 0
    written = json.loads((file.parent / "evaluation_train.json").read_text())
    assert (written["agent"], written["tasks"]["point-a0"]["episodes"]) == ("actor.safetensors", 2)


def test_an_actor_file_that_names_no_tasks_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    model = MTSAC("MultiTaskPolicy", make_vec_env("Point-3"), buffer_size=30, policy_kwargs={"net_arch": [4]})
    save_actor(model, tmp_path / "actor.safetensors")
    assert cli.evaluate([str(tmp_path / "actor.safetensors")]) == 2
    assert "does not say what it plays" in capsys.readouterr().err


def test_the_shipped_agent_plays_mt10_and_is_small():
    actor = load_actor(shipped_agent())
    assert actor.env == {"id": "MT10"}
    assert len(actor.task_names) == 10
    assert shipped_agent().stat().st_size < 1_000_000
