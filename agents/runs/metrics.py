"""Where a run's scalars go: TensorBoard events and the same figures in ``metrics.jsonl``."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from stable_baselines3.common.logger import HParam, KVWriter, Logger, TensorBoardOutputFormat, Video
from tensorboard.compat.proto.summary_pb2 import Summary

from agents.runs.build import combiner_kwargs
from agents.runs.schema import RunConfig
from agents.runs.videos import gif

METRICS_FILE = "metrics.jsonl"


class MetricsWriter(KVWriter):
    """One JSON object per logged step: ``step`` (transitions), then TensorBoard's tags and their values.

    It holds exactly the scalars that TensorBoard gets; what is not finite is written as ``null``. Each line is flushed,
    so that a killed run leaves at most one half line.

    Args:
        path: the file, appended to.
    """

    def __init__(self, path: Path) -> None:
        self._file = path.open("ab")
        self._row: dict[str, Any] = {}
        self._begin = 0

    def write(self, key_values: Mapping[str, Any], key_excluded: Mapping[str, tuple[str, ...]], step: int = 0) -> None:
        """Append the step's scalars; a step written in two parts stays one line."""
        scalars = {
            tag: _json_number(value)
            for tag, value in sorted(key_values.items())
            if "tensorboard" not in (key_excluded.get(tag) or ()) and _is_scalar(value)
        }
        if not scalars:
            return
        if self._row.get("step") == step:
            self._file.truncate(self._begin)
            self._row |= scalars
        else:
            self._begin = self._file.tell()
            self._row = {"step": step, **scalars}
        self._file.write(json.dumps(self._row, allow_nan=False).encode() + b"\n")
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class EventsWriter(TensorBoardOutputFormat):
    """TensorBoard events directly in the run folder.

    Args:
        folder: the run folder.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(str(folder))

    def write(self, key_values: Mapping[str, Any], key_excluded: Mapping[str, tuple[str, ...]], step: int = 0) -> None:
        """As stable-baselines3 does, but for videos ``[F, H, W, 3]``: torch's ``add_video`` needs an old moviepy."""
        others = {tag: value for tag, value in key_values.items() if not isinstance(value, Video)}
        for tag in key_values.keys() - others.keys():
            _, height, width, _ = key_values[tag].frames.shape
            moving = gif(key_values[tag].frames.numpy(), key_values[tag].fps)
            image = Summary.Image(height=height, width=width, colorspace=3, encoded_image_string=moving)
            self.writer._get_file_writer().add_summary(Summary(value=[Summary.Value(tag=tag, image=image)]), step)
        super().write(others, {tag: key_excluded[tag] for tag in others}, step)

    def write_text(self, tag: str, text: str, language: str, step: int) -> None:
        """Show a file's text under TensorBoard's *Text*, verbatim."""
        self.writer.add_text(tag, f"```{language}\n{text}\n```", step)
        self.writer.flush()


def make_logger(folder: Path, texts: Mapping[str, tuple[str, str]], step: int = 0) -> Logger:
    """The logger of a run.

    Args:
        folder: the run folder.
        texts: ``tag -> (text, language)``, shown in TensorBoard.
        step: at which the run begins or continues, in transitions.
    """
    events = EventsWriter(folder)
    for tag, (text, language) in texts.items():
        events.write_text(tag, text, language, step)
    return Logger(str(folder), [MetricsWriter(folder / METRICS_FILE), events])


def hyperparameters(config: RunConfig) -> HParam:
    """What TensorBoard's *HParams* sorts runs by: method, seed and sizes, against success and its cost."""
    settings = {
        "method": config.combiner.name,
        "method_settings": json.dumps(combiner_kwargs(config.combiner), sort_keys=True),
        "tasks": str(config.env.id),
        "seed": config.seed,
        "total_timesteps": config.total_timesteps,
        # TensorBoard sorts them by name and shows the first five unless asked for more.
        "with/learning_rate": config.agent.learning_rate,
        "with/batch_size": config.agent.batch_size or 0,
        "with/trunk": "x".join(map(str, config.agent.net.hidden)),
        "with/layer_norm": config.agent.net.layer_norm,
        "with/target_entropy": str(config.agent.target_entropy),
    }
    results = ("success/mean", "return/mean", "train_success/mean", "time/updates_per_second")
    return HParam(settings, dict.fromkeys(results, 0.0))


def read_metrics(path: Path) -> list[dict[str, float | None]]:
    """All whole lines of a ``metrics.jsonl``; a half-written last line is left out."""
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.is_file() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]


def _is_scalar(value: Any) -> bool:
    """What TensorBoard's writer of stable-baselines3 takes for a scalar."""
    return isinstance(value, np.ScalarType) and not isinstance(value, str | bytes)


def _json_number(value: Any) -> float | int | None:
    number = value.item() if isinstance(value, np.generic) else value
    return number if math.isfinite(number) else None
