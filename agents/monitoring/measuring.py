"""Measurement of transference in training, whatever the combiner."""

from __future__ import annotations

from stable_baselines3.common.callbacks import BaseCallback

from mtrl_transfer.agents.declarations import Count
from mtrl_transfer.choices import check_whole

AFFINITY_SHARE = 16
"""By default affinity is measured on one sixteenth of an update's rows, at least 2 of each task."""

HORIZON_ROWS = 200
"""By default affinity over a horizon compares losses on this many rows of each task."""


def affinity_problem(wanted: int | None, horizon: int, rows: int) -> str | None:
    """Return what is wrong with the rows of affinity, for updates of ``rows`` rows of each task; None: nothing."""
    if wanted is None or 2 <= wanted <= rows or (horizon > 1 and wanted > rows):
        return None
    return f"affinity_rows={wanted} should be 2 to {rows}, an update's rows of each task"


class MeasureTransference(BaseCallback):
    """Measure transference around updates of an [mtrl_transfer.agents.MTSAC][], without changing the training.

    The agent logs the results as ``transference/...``; ``TransferenceFigures`` draws them, ``RecordTransference`` keeps
    them in a file.

    Args:
        every: updates between measurements of predicted and realised improvement; None: never.
        affinity_every: updates between measurements of pairwise transference alone, for choosing groups of tasks; None:
            never.
        affinity_rows: rows of each task for the latter, from 2 to the update's; None: a sixteenth of the update's.
            Over a horizon they are those on which losses are compared, any number from 2; None: 200.
        affinity_horizon: optimizer steps along each task alone whose effect is the affinity. One step is mostly noise;
            ten cost ten forward and backward passes for each task, so a few times a run.

    Raises:
        ValueError: at the start of training, if ``affinity_rows`` is out of range.
    """

    def __init__(
        self,
        every: Count | None = None,
        affinity_every: Count | None = None,
        affinity_rows: Count | None = None,
        affinity_horizon: Count = 1,
    ) -> None:
        super().__init__()
        counts = {"every": every, "affinity_every": affinity_every, "affinity_rows": affinity_rows}
        for name, value in counts.items():
            if value is not None:
                check_whole(name, value)
        check_whole("affinity_horizon", affinity_horizon)
        self.every, self.affinity_every, self.affinity_rows = every, affinity_every, affinity_rows
        self.affinity_horizon = affinity_horizon

    def _on_training_start(self) -> None:
        rows = self.model.batch_size // self.model.n_tasks
        if problem := affinity_problem(self.affinity_rows, self.affinity_horizon, rows):
            raise ValueError(problem)
        self.model.measuring = self

    def _on_step(self) -> bool:
        return True

    def measures(self, update: int) -> bool:
        """Return whether update ``n`` is measured."""
        return self.every is not None and update % self.every == 0

    def rows_for_affinity(self, update: int, rows: int) -> int | None:
        """Rows of each task on which update ``n``, which takes ``rows`` of each, measures affinity; None: not."""
        if self.affinity_every is None or update % self.affinity_every:
            return None
        if self.affinity_horizon > 1:
            return self.affinity_rows or HORIZON_ROWS
        return self.affinity_rows or min(max(rows // AFFINITY_SHARE, 2), rows)

    def needs_step_before(self, update: int) -> bool:
        """Return whether the update after ``n`` measures anything, and so needs the length of its step."""
        return self.measures(update + 1) or self.rows_for_affinity(update + 1, 2) is not None


NOTHING = MeasureTransference()
"""Measures nothing."""
