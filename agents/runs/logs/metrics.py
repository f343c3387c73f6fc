"""Writers of a run's scalars: TensorBoard events, and the same numbers in ``metrics.jsonl``."""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from stable_baselines3.common.logger import HParam, KVWriter, Logger, TensorBoardOutputFormat, Video
from tensorboard.compat.proto.summary_pb2 import Summary

from mtrl_transfer.agents.runs.build import combiner_kwargs
from mtrl_transfer.agents.runs.config.schema import RunConfig
from mtrl_transfer.agents.runs.logs.event_file import WAITS, EventFileWriter
from mtrl_transfer.agents.runs.logs.videos import gif
from mtrl_transfer.agents.storage.outage import Outage, Tell
from mtrl_transfer.appending import AppendingFile

METRICS_FILE = "metrics.jsonl"


class MetricsWriter(KVWriter):
    """One JSON object per logged step: ``step`` (transitions), then TensorBoard's tags and their values.

    It holds exactly the scalars that TensorBoard gets; what is not finite is written as ``null``. Lines that cannot be
    written wait in memory, so that none is missing or half there afterwards.

    Args:
        path: the file, appended to.
        tell: takes a line for the user where it cannot be written.
    """

    def __init__(self, path: Path, tell: Tell = warnings.warn) -> None:
        self._file, self._outage = AppendingFile(path), Outage(path, WAITS, tell)
        self._row: dict[str, Any] = {}
        self._line = b""

    def write(self, key_values: Mapping[str, Any], key_excluded: Mapping[str, tuple[str, ...]], step: int = 0) -> None:
        """Append the step's scalars; a step written in two parts stays one line."""
        scalars = {tag: _json_number(value) for tag, value in scalars_of(key_values, key_excluded).items()}
        if not scalars:
            return
        same = self._row.get("step") == step
        before = len(self._line) if same else 0
        self._row = {**(self._row if same else {"step": step}), **scalars}
        self._line = json.dumps(self._row, allow_nan=False).encode() + b"\n"
        with self._outage.bridged():
            self._file.append(self._line, instead_of=before)

    def flush(self) -> None:
        """Write what waits, if there is something."""
        with self._outage.bridged():
            self._file.append(b"")

    def close(self) -> None:
        """Write what waits, or say that it is lost."""
        self.flush()
        self._outage.give_up(self._file.waiting)


class EventsWriter(TensorBoardOutputFormat):
    """TensorBoard events directly in the run folder.

    Args:
        folder: the run folder.
        tell: takes a line for the user where they cannot be written.
    """

    def __init__(self, folder: Path, tell: Tell = warnings.warn) -> None:
        # Not SB3's constructor: its SummaryWriter writes by a thread, which a full disk ends for good.
        self.writer = EventFileWriter(folder, tell)
        self._is_closed = False

    def write(self, key_values: Mapping[str, Any], key_excluded: Mapping[str, tuple[str, ...]], step: int = 0) -> None:
        """Write as SB3, but videos ``[F, H, W, 3]`` as GIF: torch's ``add_video`` needs an old moviepy."""
        others = {tag: value for tag, value in key_values.items() if not isinstance(value, Video)}
        for tag in key_values.keys() - others.keys():
            _, height, width, _ = key_values[tag].frames.shape
            moving = gif(key_values[tag].frames.numpy(), key_values[tag].fps)
            image = Summary.Image(height=height, width=width, colorspace=3, encoded_image_string=moving)
            self.writer._get_file_writer().add_summary(Summary(value=[Summary.Value(tag=tag, image=image)]), step)
        super().write(others, {tag: key_excluded[tag] for tag in others}, step)

    def flush(self) -> None:
        """Write what waits, if there is something."""
        self.writer.flush()

    def write_text(self, tag: str, text: str, language: str, step: int) -> None:
        """Show a file's text under TensorBoard's *Text*, verbatim."""
        self.writer.add_text(tag, f"```{language}\n{text}\n```", step)
        self.writer.flush()


def make_logger(
    folder: Path,
    texts: Mapping[str, tuple[str, str]],
    step: int = 0,
    tell: Tell = warnings.warn,
    others: Sequence[KVWriter] = (),
) -> Logger:
    """The logger of a run.

    Args:
        folder: the run folder.
        texts: ``tag -> (text, language)``, shown in TensorBoard.
        step: at which the run begins or continues, in transitions.
        tell: takes a line for the user where a file cannot be written.
        others: further writers.
    """
    events = EventsWriter(folder, tell)
    for tag, (text, language) in texts.items():
        events.write_text(tag, text, language, step)
    return Logger(str(folder), [MetricsWriter(folder / METRICS_FILE, tell), events, *others])


def hyperparameters(config: RunConfig) -> HParam:
    """Hyperparameters and results for TensorBoard's *HParams*: method, seed and sizes; success and its cost."""
    settings = {
        "method": config.combiner.label,
        "method_settings": json.dumps(combiner_kwargs(config.combiner), sort_keys=True),
        "tasks": str(config.env.id),
        "seed": config.seed,
        "total_timesteps": config.total_timesteps,
        # TensorBoard sorts them by name and shows the first five unless asked for more.
        "with/learning_rate": config.agent.learning_rate,
        "with/batch_size": config.agent.batch_size or 0,
        "with/trunk": "x".join(map(str, _trunk(config.agent.policy_kwargs.net_arch))),
        "with/layer_norm": config.agent.policy_kwargs.layer_norm,
        "with/target_entropy": str(config.agent.target_entropy),
    }
    results = ("success/mean", "return/mean", "train_success/mean", "time/updates_per_second")
    return HParam(settings, dict.fromkeys(results, 0.0))


def _trunk(net_arch: Any) -> Sequence[int]:
    return net_arch["pi"] if isinstance(net_arch, dict) else net_arch


def scalars_of(key_values: Mapping[str, Any], key_excluded: Mapping[str, tuple[str, ...]]) -> dict[str, Any]:
    """The values that stable-baselines3's TensorBoard writer takes for scalars, by tag, sorted."""
    return {
        tag: value
        for tag, value in sorted(key_values.items())
        if "tensorboard" not in (key_excluded.get(tag) or ())
        and isinstance(value, np.ScalarType)
        and not isinstance(value, str | bytes)
    }


def _json_number(value: Any) -> float | int | None:
    number = value.item() if isinstance(value, np.generic) else value
    return number if math.isfinite(number) else None
