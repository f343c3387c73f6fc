"""Time that callbacks take, kept apart from time that environments take."""

from __future__ import annotations

import time
from typing import Any

from stable_baselines3.common.callbacks import BaseCallback


class TimedCallback:
    """Stands in for a callback during one rollout and counts the seconds it takes."""

    def __init__(self, callback: BaseCallback) -> None:
        self._callback = callback
        self.seconds = 0.0

    def on_step(self) -> bool:
        """Call the callback."""
        start = time.perf_counter()
        proceed = self._callback.on_step()
        self.seconds += time.perf_counter() - start
        return proceed

    def __getattr__(self, name: str) -> Any:
        return getattr(self._callback, name)
