"""Seconds by part of training, with the time of callbacks apart from that of environments."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from stable_baselines3.common.callbacks import BaseCallback

Result = TypeVar("Result")


@contextmanager
def counted(timing: dict[str, float], part: str) -> Iterator[None]:
    """Add the seconds spent inside to ``timing[part]``."""
    start = time.perf_counter()
    yield
    timing[part] += time.perf_counter() - start


class TimedCallback:
    """Stand-in for a callback during one rollout, which counts its seconds."""

    def __init__(self, callback: BaseCallback) -> None:
        self._callback = callback
        self.seconds = 0.0

    def on_rollout_start(self) -> None:
        """Call the callback."""
        self._timed(self._callback.on_rollout_start)

    def on_step(self) -> bool:
        """Call the callback."""
        return self._timed(self._callback.on_step)

    def on_rollout_end(self) -> None:
        """Call the callback."""
        self._timed(self._callback.on_rollout_end)

    def _timed(self, function: Callable[[], Result]) -> Result:
        start = time.perf_counter()
        result = function()
        self.seconds += time.perf_counter() - start
        return result

    def __getattr__(self, name: str) -> Any:
        return getattr(self._callback, name)
