"""Clips of a run's agent, as files and in TensorBoard."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageSequence
from short_runs import Run, short_run
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from mtrl_transfer.agents.runs import cli, estimate
from mtrl_transfer.agents.runs.logs.videos import gif

TASKS = ["point-a0", "point-b0", "noise"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    quick = ("total_timesteps=450", "evaluation.every=null", "checkpoint.every=null", "log.videos_every=200")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(estimate, "ENOUGH_SECONDS", 0.02)
        return short_run(tmp_path_factory.mktemp("run") / "a", *quick)


def milliseconds(moving: Image.Image) -> int:
    """Seconds that it plays; equal frames in a row are stored as one that lasts longer."""
    return sum(frame.info["duration"] for frame in ImageSequence.Iterator(moving))


def test_a_gif_holds_its_frames():
    frames = np.zeros((3, 8, 10, 3), np.uint8)
    frames[1] = 255
    frames[2, :4] = (250, 0, 0)
    picture = Image.open(io.BytesIO(gif(frames, fps=20)))
    assert (picture.size, picture.n_frames, picture.info["duration"], picture.info["loop"]) == ((10, 8), 3, 50, 0)
    found = [np.asarray(frame.convert("RGB")) for frame in ImageSequence.Iterator(picture)]
    np.testing.assert_array_equal(found, frames)


def test_clips_go_to_tensorboard(run: Run):
    events = EventAccumulator(str(run.folder), {"images": 0})
    events.Reload()
    for task in TASKS:
        shown = events.Images(f"video/{task}")
        assert [one.step for one in shown] == [201, 402]
        moving = Image.open(io.BytesIO(shown[0].encoded_image_string))
        assert moving.size == (160, 160) == (shown[0].width, shown[0].height)
        assert milliseconds(moving) == 50 * 50


@pytest.mark.parametrize("encoder", [True, False])
def test_the_command_line_writes_a_clip_of_each_task(
    run: Run, encoder: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    if encoder:
        imageio_ffmpeg = pytest.importorskip("imageio_ffmpeg")
    else:
        monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert cli.evaluate([str(run.folder), "episodes=1", "video=true"]) == 0
    assert f"Clips in {run.folder / 'videos'}" in capsys.readouterr().out
    for task in TASKS:
        path = run.folder / "videos" / f"{task}.{'mp4' if encoder else 'gif'}"
        if encoder:
            about = imageio_ffmpeg.count_frames_and_secs(str(path))
            assert about == (50, pytest.approx(2.5, abs=0.05))
        else:
            assert milliseconds(Image.open(io.BytesIO(path.read_bytes()))) == 50 * 50


def test_what_cannot_be_drawn_is_told_before_any_work(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    def draw(self):
        raise AttributeError("no libEGL here")

    monkeypatch.setattr("metaworld.sawyer_xyz_env.SawyerXYZEnv.render", draw)
    monkeypatch.setenv("MUJOCO_GL", "egl")
    folder = tmp_path / "a"
    line = ["mt10_quick", "env.id=MT1:reach-v3", "agent.batch_size=16", "log.videos_every=100", f"run_dir={folder}"]
    assert cli.train(line) == 2
    told = capsys.readouterr().err
    assert "videos cannot be made here" in told
    assert "libegl1" in told
    assert "libosmesa6" in told
    assert not folder.exists()
    assert "Traceback" not in told
