"""Keeps what a run measured and decided in one file, for grouping and reports."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

from stable_baselines3.common.callbacks import BaseCallback

from mtrl_transfer import Record, Recorder
from mtrl_transfer.agents.monitoring.timing import counted
from mtrl_transfer.agents.storage.outage import Outage, Tell
from mtrl_transfer.scales import divide
from mtrl_transfer.update import Update


class RecordTransference(BaseCallback):
    """Appends a record of both networks to a file every so many updates; read it with ``mtrl_transfer.Recording``.

    A record's step is in transitions. Pairwise transference is the mean over all measurements since the record before
    (``affinity_every``, else ``measure_every``); the Gramian and the decision are the latest. On a continued run, what
    the file holds beyond the agent's own count is dropped, for it is going to be written again.

    Args:
        path: the file.
        every: updates between records, at least 1.
        tell: takes a line for the user where the file cannot be written; training goes on, and records wait.
    """

    def __init__(self, path: str | Path, every: int, tell: Tell = warnings.warn) -> None:
        super().__init__()
        if every < 1:
            raise ValueError(f"every={every} must be at least 1 update")
        self.path, self.every = Path(path), every
        self._recorder: Recorder | None = None
        self._outage = Outage(path, "records wait in memory", tell)

    def _on_training_start(self) -> None:
        self._recorder = Recorder(self.path, self.model.task_names)
        self._recorder.drop_after(self.num_timesteps)
        self._last = self.model._n_updates

    def _on_rollout_start(self) -> None:
        self._record_if_due()

    def _on_step(self) -> bool:
        return True

    def _on_training_end(self) -> None:
        self._record_if_due()
        self.flush()

    def flush(self) -> None:
        """Write records that wait because they could not be written, if there are some."""
        if self._recorder is not None:
            with self._outage.bridged():
                self._recorder.flush()

    def _record_if_due(self) -> None:
        now, recorder = self.model._n_updates, self._recorder
        if recorder is not None and now // self.every > self._last // self.every:
            with counted(self.model.timing, "logging"):
                records = {role: _record(update) for role, update in self.model.updates.items()}
                with self._outage.bridged():
                    recorder.record(self.model.num_timesteps, records)
            self._last = now


def _record(update: Update[Any]) -> Record:
    history = update.measurement.history
    kind = "decrease" if history.count("decrease") else "pairwise"
    measurements, means = history.count(kind), history.flush()
    pairwise = divide(means[kind], means["scale"]) if kind == "decrease" else means.get(kind)
    return Record(
        weights=update.weights,
        gramian=update.gramian,
        decision=update.combiner.last,
        pairwise=pairwise,
        measurements=measurements,
    )
