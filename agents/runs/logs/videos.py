"""Clips of a run's agent: drawn, and written as MP4 or GIF."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Sequence
from pathlib import Path

import gymnasium as gym
import imageio.v3 as imageio
import numpy as np
from PIL import Image

from mtrl_transfer.agents.evaluation import Predicts
from mtrl_transfer.agents.monitoring.clips import Clip, record_clips
from mtrl_transfer.agents.runs.build import evaluation_env, is_metaworld
from mtrl_transfer.agents.runs.config.schema import RunConfig
from mtrl_transfer.agents.runs.errors import InputError

FRAMES = 125
"""Frames of a clip, about; 500 steps of Meta-World's 12.5 ms take as long in the clip as they would in the world."""
FPS = 20


class Camera:
    """Environments that are played only to be drawn, at the first goal of a run's evaluation.

    Args:
        config: of the run.

    Raises:
        InputError: if nothing can be drawn here; it says what to install.
    """

    def __init__(self, config: RunConfig) -> None:
        env = config.env.model_copy(update={"n_goals": 1}) if is_metaworld(config.env) else config.env
        self._env = evaluation_env(env, config.evaluation.goals, config.evaluation.seed, "rgb_array")
        if self._env.render_mode != "rgb_array":
            raise InputError("videos need environments that are made with render_mode='rgb_array'")
        self._env.reset()
        try:
            self._env.get_images()
        except (RuntimeError, gym.error.Error) as error:
            self._env.close()
            raise InputError(f"videos cannot be made here: {error}") from error
        # Halving Meta-World's pictures smooths their edges.
        self._shrink = 2 if is_metaworld(env) else 1

    def clips(self, model: Predicts) -> list[Clip]:
        """One episode of each task by the deterministic policy."""
        every = -(-int(self._env.protocol["horizon"] or FRAMES) // FRAMES)
        return record_clips(model, self._env, every, self._shrink)

    def close(self) -> None:
        """Free the renderer."""
        self._env.close()


def write_clips(clips: Sequence[Clip], folder: Path) -> Path:
    """Write ``<task>.mp4`` for each clip, or ``<task>.gif`` without imageio-ffmpeg (the extra ``video``)."""
    folder.mkdir(parents=True, exist_ok=True)
    ending = "mp4" if can_write_mp4() else "gif"
    for clip in clips:
        write_clip(clip.frames, folder / f"{clip.task_name.replace(os.sep, '_')}.{ending}")
    return folder


def can_write_mp4() -> bool:
    """Return True if imageio-ffmpeg is installed (the extra ``video``)."""
    return importlib.util.find_spec("imageio_ffmpeg") is not None


def write_clip(frames: np.ndarray, path: Path) -> None:
    """Write ``frames [F, H, W, 3]`` uint8 as GIF or MP4, by the file's ending; an MP4 has even sizes."""
    if path.suffix == ".gif":
        path.write_bytes(gif(frames, FPS))
    else:
        imageio.imwrite(path, frames, fps=FPS, macro_block_size=2)


def gif(frames: np.ndarray, fps: float) -> bytes:
    """An animated GIF, repeated without end, of ``frames [F, H, W, 3]`` uint8.

    All frames share one palette without dithering, so parts that stand still take no space.
    """
    sample = Image.fromarray(np.concatenate(frames[:: -max(1, len(frames) // 10)]))
    palette = sample.quantize(256, Image.Quantize.MEDIANCUT)
    shown = [Image.fromarray(frame).quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames]
    exact = np.stack([np.asarray(frame.convert("RGB")) for frame in shown])
    return imageio.imwrite("<bytes>", exact, extension=".gif", duration=1000 / fps, loop=0)
