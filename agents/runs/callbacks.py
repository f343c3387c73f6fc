"""What happens during a run besides learning: logging, checkpoints, the progress bar, stopping."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from types import FrameType, TracebackType

import torch
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import Video
from tqdm import tqdm

from mtrl_transfer.agents import MultiTaskEvalCallback
from mtrl_transfer.agents.monitoring.tensorboard import TENSORBOARD_ONLY
from mtrl_transfer.agents.runs.logs.videos import FPS, Camera
from mtrl_transfer.agents.runs.streams import STDERR


class _EveryTransitions(BaseCallback):
    """Knows when the count of transitions has passed another multiple of ``every``."""

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
    """Writes what was recorded every so many transitions, and at the end what is left.

    At the end of a rollout, because only then do the agent's statistics know of the episodes that ended in it.
    """

    def _on_rollout_end(self) -> None:
        if self._passed():
            self.model.dump_logs()

    def _on_training_end(self) -> None:
        if self._last != self.model.num_timesteps:
            self.model.dump_logs()


class CheckpointEvery(_EveryTransitions):
    """Calls ``save`` every so many transitions, between updates: every counted step is stored and learned from."""

    def __init__(self, every: int, save: Callable[[], object]) -> None:
        super().__init__(every)
        self._save = save

    def _on_rollout_start(self) -> None:
        if self._passed():
            self._save()


class ClipsEvery(_EveryTransitions):
    """Shows a clip of each task in TensorBoard, under *Images*, every so many transitions.

    Args:
        every: transitions between clips.
        camera: draws them.
    """

    def __init__(self, every: int, camera: Camera) -> None:
        super().__init__(every)
        self._camera = camera

    def _on_rollout_end(self) -> None:
        if self._passed():
            for clip in self._camera.clips(self.model):
                video = Video(torch.from_numpy(clip.frames), FPS)
                self.logger.record(f"video/{clip.task_name}", video, exclude=TENSORBOARD_ONLY)
            self.logger.dump(self.num_timesteps)


class ProgressBar(BaseCallback):
    """Transitions done, with the mean success of training and of the last evaluation.

    Args:
        total: budget in transitions.
        evaluation: the callback that evaluates in training, or None.
        shown: False for no bar.
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


class StopRequested(Exception):
    """A signal asked to stop, and the run is between two updates: its state is whole.

    Args:
        signal_number: which signal.
    """

    def __init__(self, signal_number: int) -> None:
        super().__init__(signal.Signals(signal_number).name)
        self.signal_number = signal_number


class StopBetweenUpdates(BaseCallback):
    """Turns the first SIGINT (Ctrl-C) or SIGTERM into :class:`StopRequested` between two updates.

    A second one stops at once. Use it as a context manager around ``learn``. In a thread, where signals do not arrive,
    it does nothing.
    """

    SIGNALS = (signal.SIGINT, signal.SIGTERM)

    def __init__(self) -> None:
        super().__init__()
        self._asked: int | None = None

    def __enter__(self) -> StopBetweenUpdates:
        handles = threading.current_thread() is threading.main_thread()
        self._previous = {number: signal.signal(number, self._ask) for number in self.SIGNALS if handles}
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self._asked is not None:
            raise SystemExit(128 + number)
        self._asked = number
        print("\nStopping after this update; ask again to stop at once.", file=STDERR)

    def _on_rollout_start(self) -> None:
        if self._asked is not None:
            raise StopRequested(self._asked)

    def _on_step(self) -> bool:
        return True
