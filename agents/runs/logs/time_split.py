"""Seconds of a run, by part."""

from __future__ import annotations

import time

from mtrl_transfer.agents import MTSAC, MultiTaskEvalCallback


class TimeSplit:
    """Seconds per part of a run, over all the sessions that it took.

    Args:
        model: counts seconds of environments, updates and transference.
        evaluation: counts seconds of evaluations in training.
        before: `total` of the sessions that this one continues.
    """

    def __init__(self, model: MTSAC, evaluation: MultiTaskEvalCallback, before: float = 0.0) -> None:
        self._model, self._evaluation = model, evaluation
        self._started = time.perf_counter() - before
        self.final_evaluation = 0.0

    def total(self) -> float:
        """Seconds since the run's start, without the breaks between sessions."""
        return time.perf_counter() - self._started

    def seconds(self) -> dict[str, float]:
        """Seconds by part; ``other`` is what no part accounts for: checkpoints, clips, building."""
        parts = dict(self._model.timing)
        parts["evaluation"] = self._evaluation.seconds + self.final_evaluation
        return {**parts, "other": max(self.total() - sum(parts.values()), 0.0)}
