"""Callbacks of a run: logging, checkpoints, clips, the progress bar."""

from __future__ import annotations

from collections.abc import Callable

import torch
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import Video
from tqdm import tqdm

from mtrl_transfer.agents import MultiTaskEvalCallback
from mtrl_transfer.agents.monitoring.callbacks import logged_alone
from mtrl_transfer.agents.monitoring.layout import TENSORBOARD_ONLY
from mtrl_transfer.agents.runs.logs.videos import FPS, Camera
from mtrl_transfer.agents.runs.streams import STDERR


class _EveryTransitions(BaseCallback):
    """Base of callbacks that act when the count of transitions has passed another multiple of ``every``."""

    def __init__(self, every: int) -> None:
        super().__init__()
        self.every = every
        self._last = 0

    def _on_training_start(self) -> None:
        self._last = self.model.num_timesteps

    def _passed(self) -> bool:
        now = self.model.num_timesteps
        passed = now // self.every > self._last // self.every
        if passed:
            self._last = now
        return passed

    def _on_step(self) -> bool:
        return True


class LogEvery(_EveryTransitions):
    """Write the recorded scalars every ``every`` transitions, and the rest at the end.

    At the end of a rollout, because only then the agent's statistics contain the episodes that ended in it.
    """

    def _on_rollout_end(self) -> None:
        if self._passed():
            self.model.dump_logs()

    def _on_training_end(self) -> None:
        if self._last != self.model.num_timesteps:
            self.model.dump_logs()


class CheckpointEvery(_EveryTransitions):
    """Call ``save`` every ``every`` transitions, between updates: every counted step is stored and learned from."""

    def __init__(self, every: int, save: Callable[[], object]) -> None:
        super().__init__(every)
        self._save = save

    def _on_rollout_start(self) -> None:
        if self._passed():
            self._save()


class ClipsEvery(_EveryTransitions):
    """Show a clip of each task in TensorBoard, under *Images*, every ``every`` transitions.

    Args:
        every: transitions between clips.
        camera: draws them.
    """

    def __init__(self, every: int, camera: Camera) -> None:
        super().__init__(every)
        self._camera = camera

    def _on_rollout_end(self) -> None:
        if self._passed():
            with logged_alone(self.logger, self.num_timesteps):
                for clip in self._camera.clips(self.model):
                    video = Video(torch.from_numpy(clip.frames), FPS)
                    self.logger.record(f"video/{clip.task_name}", video, exclude=TENSORBOARD_ONLY)


class ProgressBar(BaseCallback):
    """Progress bar of transitions, with the mean success of training and of the last evaluation.

    Args:
        total: budget in transitions.
        evaluation: the callback that evaluates in training, or None.
        shown: False shows no bar.
    """

    def __init__(self, total: int, evaluation: MultiTaskEvalCallback | None, shown: bool) -> None:
        super().__init__()
        self._total, self._evaluation, self._shown = total, evaluation, shown

    def _on_training_start(self) -> None:
        done = self.model.num_timesteps
        # A log file gets a line twice a minute, a terminal one that moves.
        interval = 0.5 if STDERR.isatty() else 30.0
        self.bar = tqdm(
            total=self._total,
            initial=done,
            file=STDERR,
            unit=" transitions",
            unit_scale=True,
            disable=not self._shown,
            mininterval=interval,
            dynamic_ncols=True,
        )

    def _on_step(self) -> bool:
        if self.bar.update(self.training_env.num_envs):
            self.bar.set_postfix(self._success(), refresh=False)
        return True

    def _on_training_end(self) -> None:
        self.bar.set_postfix(self._success())
        self.close()

    def close(self) -> None:
        """Leave the terminal clean, however training ended."""
        if hasattr(self, "bar"):
            self.bar.close()

    def _success(self) -> dict[str, str]:
        finished = self.model.ep_success_buffer
        shown = {"success": f"{sum(finished) / len(finished):.2f}"} if finished else {}
        if self._evaluation is not None and self._evaluation.last is not None:
            shown["evaluated"] = f"{self._evaluation.last.mean_success:.2f}"
        return shown
