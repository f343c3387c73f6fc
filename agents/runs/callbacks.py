"""Callbacks of a run: logging, checkpoints, clips, the progress bar."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import torch
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import Video
from tqdm import tqdm

from mtrl_transfer.agents import Evaluation, MultiTaskEvalCallback
from mtrl_transfer.agents.monitoring.callbacks import logged_alone
from mtrl_transfer.agents.monitoring.layout import TENSORBOARD_ONLY
from mtrl_transfer.agents.runs.config.schema import RunConfig
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
    """Call ``save`` every ``every`` transitions, between updates: every counted step is stored and learned from.

    Args:
        every: transitions between calls.
        save: saves.
        check: called before the first step, once the environments are reset.
    """

    def __init__(self, every: int, save: Callable[[], object], check: Callable[[], object]) -> None:
        super().__init__(every)
        self._save, self._check = save, check

    def _on_training_start(self) -> None:
        super()._on_training_start()
        self._check()

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


class TimeLeft:
    """Estimate of a run's time left, from its pace since learning began and that of its evaluations.

    Args:
        config: of the run.
    """

    def __init__(self, config: RunConfig) -> None:
        self._total, self._random = config.total_timesteps, config.agent.learning_starts
        self._evaluations = config.evaluation.final_n_goals / config.evaluation.n_goals
        self._began: tuple[int, float] | None = None

    def seconds(self, done: int, now: float, evaluation: float) -> float | None:
        """Return the seconds left; None before learning.

        Args:
            done: transitions.
            now: time in seconds.
            evaluation: seconds of an evaluation in training; the final one has other numbers of goals.
        """
        if done <= self._random or self._began is None:
            self._began = (done, now)
            return None
        began, start = self._began
        return (now - start) / max(done - began, 1) * (self._total - done) + self._evaluations * evaluation


class ProgressBar(BaseCallback):
    """Progress bar of transitions: time left, success in training, and the tasks that the last evaluation solved.

    Args:
        config: of the run.
        evaluation: the callback that evaluates in training.
    """

    def __init__(self, config: RunConfig, evaluation: MultiTaskEvalCallback) -> None:
        super().__init__()
        self._total, self._shown, self._evaluation = config.total_timesteps, config.log.progress, evaluation
        self._left = TimeLeft(config)
        self._last: Evaluation | None = None
        self._evaluation_seconds = 0.0

    def _on_training_start(self) -> None:
        # A log file gets a line twice a minute, a terminal one that moves.
        interval = 0.5 if STDERR.isatty() else 30.0
        self._evaluated_before = self._evaluation.seconds
        self.bar = tqdm(
            total=self._total,
            initial=self.model.num_timesteps,
            file=STDERR,
            unit_scale=True,
            disable=not self._shown,
            mininterval=interval,
            dynamic_ncols=True,
            bar_format="{percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} [{elapsed}{postfix}]",
        )

    def _on_step(self) -> bool:
        if self._evaluation.last is not self._last:
            self._last = self._evaluation.last
            self._evaluation_seconds = self._evaluation.seconds - self._evaluated_before
        self._evaluated_before = self._evaluation.seconds
        left = self._left.seconds(self.model.num_timesteps, time.perf_counter(), self._evaluation_seconds)
        if self.bar.update(self.training_env.num_envs):
            shown = [] if left is None else [f"{tqdm.format_interval(left)} left"]
            self.bar.set_postfix_str(", ".join([*shown, *self._success()]), refresh=False)
        return True

    def _on_training_end(self) -> None:
        self.bar.set_postfix_str(", ".join(self._success()))
        self.close()

    def close(self) -> None:
        """Leave the terminal clean, however training ended."""
        if hasattr(self, "bar"):
            self.bar.close()

    def _success(self) -> list[str]:
        finished = self.model.ep_success_buffer
        shown = [f"success={sum(finished) / len(finished):.2f}"] if finished else []
        if self._last is not None:
            shown.append(f"evaluated={self._last.mean_success:.2f} {solved(self._last.success)}".rstrip())
        return shown


def solved(success: np.ndarray) -> str:
    """Return one glyph per task: all of its episodes are solved, some, or none. Empty for more than 20 tasks."""
    return "".join("●" if one == 1 else "◐" if one > 0 else "○" for one in success) if len(success) <= 20 else ""
