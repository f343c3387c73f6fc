"""Keeps what a run measured and decided in one file, for grouping and reports."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from stable_baselines3.common.callbacks import BaseCallback

from agents.timing import counted
from agents.trunk_update import TrunkUpdate
from mtrl_transfer import Record, Recorder
from mtrl_transfer.scales import divide


class RecordTransference(BaseCallback):
    """Appends a record of both networks to a file every so many updates; read it with ``mtrl_transfer.Recording``.

    A record's step is in transitions. Pairwise transference is the mean over all measurements since the record before
    (``affinity_every``, else ``measure_every``); the Gramian and the decision are the latest. On a continued run, what
    the file holds beyond the agent's own count is dropped, for it is going to be written again.

    Args:
        path: the file.
        every: updates between records, at least 1.
    """

    def __init__(self, path: str | Path, every: int) -> None:
        super().__init__()
        if every < 1:
            raise ValueError(f"every={every} must be at least 1 update")
        self.path, self.every = Path(path), every

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

    def _record_if_due(self) -> None:
        now = self.model._n_updates
        if now // self.every > self._last // self.every:
            with counted(self.model.timing, "logging"):
                records = {role: _record(update) for role, update in self.model.updates.items()}
                self._recorder.record(self.model.num_timesteps, records)
            self._last = now


def _record(update: TrunkUpdate[Any]) -> Record:
    history = update.measurement.history
    kind = "decrease" if history.count("decrease") else "pairwise"
    measurements, means = history.count(kind), history.flush()
    pairwise = divide(means[kind], means["scale"]) if kind == "decrease" else means.get(kind)
    return Record(
        weights=update.weights,
        gramian=update.gramian,
        decision=getattr(update.combiner, "last", None),
        pairwise=pairwise,
        measurements=measurements,
    )
