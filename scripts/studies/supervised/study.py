"""A study of one suite: every group trained, groups chosen from affinity, combiners compared."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from mtrl_transfer.grouping import select_groups
from studies.supervised import groupings
from studies.supervised.combiners import Compared
from studies.supervised.groupings import Predictions, Row, Truth
from studies.supervised.settings import Settings
from studies.supervised.statistics import Interval
from studies.supervised.suites import Suite


class Study(NamedTuple):
    """All that is reported.

    - `found`: every group's outcome; `rows`: one for each number of groups; `controls`: by name.
    - `affinities`: `[seeds, T, T]`; `overhead`: the share of a joint run's time that measuring them took.
    - `predictions`: of affinity for every group.
    - `combiners`: loss over that of `mean`.
    """

    suite: Suite
    settings: Settings
    found: Truth
    rows: list[Row]
    controls: dict[str, float]
    affinities: np.ndarray
    overhead: float
    predictions: Predictions
    combiners: Mapping[str, Interval]

    @property
    def affinity(self) -> np.ndarray:
        """Mean over seeds `[T, T]`."""
        return self.affinities.mean(axis=0)

    def named_groups(self, n_groups: int) -> list[list[str]]:
        """What the mean affinity of all seeds chooses."""
        groups = select_groups(self.affinity, n_groups).groups
        return [[self.suite.names[task] for task in group] for group in groups]

    def as_json(self) -> dict[str, Any]:
        """Every figure; null where there is none, such as of a task that is not in a group."""
        figures = {
            "settings": self.settings.model_dump(),
            "tasks": list(self.suite.names),
            "relative_losses_of_groups": self.found.relative.tolist(),
            "affinity": self.affinities.tolist(),
            "combiners": {name: list(found) for name, found in self.combiners.items()},
            "groupings": [row._asdict() for row in self.rows],
            "controls": self.controls,
            "measurement_overhead": self.overhead,
            "rank_correlation": self.predictions.correlation.tolist(),
        }
        told: dict[str, Any] = _null_for_nan(figures)
        return told


def _null_for_nan(value: Any) -> Any:
    """JSON has no NaN."""
    if isinstance(value, dict):
        return {key: _null_for_nan(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_null_for_nan(one) for one in value]
    return None if isinstance(value, float) and np.isnan(value) else value


def make_study(suite: Suite, settings: Settings, losses: np.ndarray, compared: Compared) -> Study:
    """Put together what was trained.

    Args:
        suite: the tasks.
        settings: of the study.
        losses: of every group, `[seeds, S, T]`.
        compared: the joint runs.
    """
    found = groupings.truth(losses)
    return Study(
        suite=suite,
        settings=settings,
        found=found,
        rows=groupings.study(found, compared.affinities),
        controls=groupings.controls(found),
        affinities=compared.affinities,
        overhead=compared.overhead,
        predictions=groupings.predictions(found, compared.affinities),
        combiners=compared.relative,
    )
