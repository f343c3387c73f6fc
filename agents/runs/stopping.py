"""Stop a run by a signal: the first one saves, the second one ends at once."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType

from stable_baselines3.common.callbacks import BaseCallback

from mtrl_transfer.agents.runs.streams import STDERR
from mtrl_transfer.envs.workers.process import kill_workers

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopRequested(BaseException):
    """A signal asked to stop. Like KeyboardInterrupt, it is no Exception: nothing handles it by accident.

    Args:
        signal_number: of the signal.
    """

    def __init__(self, signal_number: int) -> None:
        super().__init__(signal.Signals(signal_number).name)
        self.signal_number = signal_number


class Stopping:
    """Turn the first SIGINT (Ctrl-C) or SIGTERM into `StopRequested`, and end at once by the next one.

    The exception is raised by `check`, where the state of the run is whole, or immediately within
    `at_once`. A second signal kills the workers and raises SystemExit wherever it arrives.
    """

    def __init__(self) -> None:
        self._asked: int | None = None
        self._at_once = False

    def check(self) -> None:
        """Raise StopRequested if a signal has arrived."""
        if self._asked is not None:
            raise StopRequested(self._asked)

    @contextlib.contextmanager
    def at_once(self) -> Iterator[None]:
        """Let a signal raise StopRequested immediately: nothing in this block needs saving."""
        self.check()
        self._at_once = True
        try:
            yield
        finally:
            self._at_once = False

    def on_signal(self, number: int, frame: FrameType | None) -> None:
        """Handle a signal."""
        if self._asked is not None:
            kill_workers()
            raise SystemExit(128 + number)
        self._asked = number
        if self._at_once:
            raise StopRequested(number)
        print("\nStopping after this update or evaluation; ask again to stop at once.", file=STDERR)


class StopBetweenUpdates(BaseCallback):
    """Raise `StopRequested` between two updates if a signal has arrived.

    Args:
        stopping: handles the signals.
    """

    def __init__(self, stopping: Stopping) -> None:
        super().__init__()
        self._stopping = stopping

    def _on_rollout_start(self) -> None:
        self._stopping.check()

    def _on_step(self) -> bool:
        return True


@contextlib.contextmanager
def handled(signals: tuple[int, ...], handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Handle signals and put the previous handlers back. In a thread, where signals do not arrive, do nothing."""
    in_main = threading.current_thread() is threading.main_thread()
    previous = {number: signal.signal(number, handler) for number in signals if in_main}
    try:
        yield
    finally:
        for number, before in previous.items():
            signal.signal(number, before)
