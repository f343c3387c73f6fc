"""Clips of a run's agent: drawn, and written as MP4 or GIF."""

from __future__ import annotations

import importlib.util
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from mtrl_transfer.agents.evaluation import Predicts
from mtrl_transfer.agents.monitoring.clips import Clip, record_clips
from mtrl_transfer.agents.runs.build import evaluation_env, is_point
from mtrl_transfer.agents.runs.config.schema import RunConfig
from mtrl_transfer.agents.runs.errors import InputError

FRAMES = 125
"""Of a clip, about; 500 steps of Meta-World's 12.5 ms take as long in the clip as they would in the world."""
FPS = 20


class Camera:
    """Environments that are played only to be drawn, at the first goal of a run's evaluation.

    Args:
        config: of the run.

    Raises:
        InputError: if nothing can be drawn here; it says what to install.
    """

    def __init__(self, config: RunConfig) -> None:
        env = config.env if is_point(config.env) else config.env.model_copy(update={"n_goals": 1})
        self._env = evaluation_env(env, config.evaluation.goals, config.evaluation.seed, "rgb_array")
        self._env.reset()
        try:
            self._env.get_images()
        except RuntimeError as error:
            self._env.close()
            raise InputError(f"videos cannot be made here: {error}") from error
        # Halving Meta-World's pictures smooths their edges.
        self._shrink = 1 if is_point(env) else 2

    def clips(self, model: Predicts) -> list[Clip]:
        """One episode of each task by the deterministic policy."""
        every = -(-int(self._env.protocol["horizon"]) // FRAMES)
        return record_clips(model, self._env, every, self._shrink)

    def close(self) -> None:
        """Free the renderer."""
        self._env.close()


def write_clips(clips: Sequence[Clip], folder: Path) -> Path:
    """Write ``<task>.mp4``, or ``<task>.gif`` where imageio-ffmpeg is not installed (the extra ``video``)."""
    folder.mkdir(parents=True, exist_ok=True)
    mp4 = importlib.util.find_spec("imageio_ffmpeg") is not None
    for clip in clips:
        if mp4:
            _write_mp4(clip.frames, folder / f"{clip.task_name}.mp4")
        else:
            (folder / f"{clip.task_name}.gif").write_bytes(gif(clip.frames, FPS))
    return folder


def gif(frames: np.ndarray, fps: float) -> bytes:
    """An animated GIF, repeated without end, of ``frames [F, H, W, 3]`` uint8."""
    first, *others = [Image.fromarray(frame) for frame in frames]
    file = io.BytesIO()
    first.save(file, "GIF", save_all=True, append_images=others, duration=1000 / fps, loop=0)
    return file.getvalue()


def _write_mp4(frames: np.ndarray, path: Path) -> None:
    import imageio_ffmpeg

    size = (frames.shape[2], frames.shape[1])
    writer = imageio_ffmpeg.write_frames(str(path), size, fps=FPS, ffmpeg_log_level="error")
    writer.send(None)
    for frame in frames:
        writer.send(np.ascontiguousarray(frame))
    writer.close()
