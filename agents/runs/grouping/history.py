"""Affinities of tasks by name, from the records of joint runs, and how well they repeat."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import combinations
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from mtrl_transfer.agents.monitoring.features import rank_correlation
from mtrl_transfer.agents.mtsac.roles import ROLES
from mtrl_transfer.agents.runs.errors import InputError
from mtrl_transfer.agents.runs.run_folder import RECORD_FILE
from mtrl_transfer.grouping import standardized
from mtrl_transfer.recorder import Recording

AffinityName = Literal[
    "affinity", "affinity_critic", "affinity_actor", "one_step", "one_step_critic", "one_step_actor",
    "cosine", "cosine_critic", "cosine_actor", "covariance", "covariance_critic", "covariance_actor",
]  # fmt: skip
"""Names of affinities: what is measured, of one network or of both.

- `affinity`: effect of steps along one task, as `measure.affinity_every` and `measure.affinity_horizon` say; of critics
  the logarithm of the loss before over that after.
- `one_step`: the same of one step, as `measure.every` says.
- `cosine`: of task gradients.
- `covariance`: covariance similarity of trunk features on the replay at the end.

Of both networks it is the sum of the two, each standardized.
"""
SETTINGS = {"affinity": "measure.affinity_every", "one_step": "measure.every", "cosine": "measure.every"}
REPEATS = 0.5
"""Least repeatability of an affinity that is said to repeat: below, most of the differences are noise."""


class Series(NamedTuple):
    """One kind of affinity in a run: means of windows `[N, T giver, T receiver]`, of `[N]` measurements each."""

    tables: np.ndarray
    measurements: np.ndarray

    def of(self, windows: slice | np.ndarray) -> Series:
        """Return some of the windows."""
        return Series(self.tables[windows], self.measurements[windows])

    def part(self, name: str) -> Series:
        """Return a part of the run: `early`, `late` or `overall`."""
        half = (len(self.tables) + 1) // 2
        return self.of({"early": slice(0, half), "late": slice(-half, None), "overall": slice(None)}[name])

    def mean(self) -> np.ndarray:
        """Return the mean over measurements `[T, T]`."""
        return np.average(self.tables, axis=0, weights=self.measurements)


class Reliability(NamedTuple):
    """Expected correlation of an affinity with another measurement of it; None where that is unknown.

    - `halves`: with other windows of the same runs.
    - `runs`: with as many runs of other seeds.
    """

    halves: float | None
    runs: float | None

    def __str__(self) -> str:
        words = ["unknown" if self.halves is None else f"{self.halves:.2f}"]
        words += [] if self.runs is None else [f"between runs {self.runs:.2f}"]
        words += ["does not repeat"] if any(one is not None and one < REPEATS for one in self) else []
        return ", ".join(words)


class AffinityHistory(NamedTuple):
    """Affinities over joint runs.

    - `names`: names of the T tasks.
    - `runs`: for each run its series by name of one network, as `cosine_critic`.
    """

    names: tuple[str, ...]
    runs: Sequence[dict[str, Series]]

    def affinity(self, name: str, part: str = "overall") -> np.ndarray:
        """Return the mean over runs and measurements, `[T giver, T receiver]`.

        Args:
            name: one of `AffinityName`.
            part: `early`, `late` or `overall`.

        Raises:
            InputError: if it was not measured.
        """
        return self._combined(name, lambda series: series.part(part).mean())

    def reliability(self, name: str, part: str = "overall") -> Reliability:
        """Return how well `affinity` would repeat, within the runs and between them.

            2 halves, or n runs, of rank correlation r:        reliability = n r / (1 + (n - 1) r)  (Spearman-Brown)

        Halves are the odd and the even windows, so that drift over training does not count as noise. Tables are
        compared off the diagonal and standardized, because choices compare the givers of one receiver only.
        """
        odd = self._combined(name, lambda series: _half(series.part(part), 0))
        even = self._combined(name, lambda series: _half(series.part(part), 1))
        runs = [self._replace(runs=[run]).affinity(name, part) for run in self.runs]
        return Reliability(_stepped_up([odd, even]), _stepped_up(runs))

    def received(self, name: str, part: str = "overall") -> np.ndarray:
        """Return the mean affinity that each task receives from the others in one network, `[T]`."""
        table = self.affinity(name, part)
        return (table.sum(axis=0) - table.diagonal()) / (len(table) - 1)

    def _combined(self, name: str, take: Callable[[Series], np.ndarray]) -> np.ndarray:
        if not name.endswith(ROLES):
            return np.sum([standardized(self._combined(f"{name}_{role}", take)) for role in ROLES], axis=0)
        missing = [run for run in self.runs if name not in run]
        if missing:
            kind = name.rpartition("_")[0]
            raise InputError(f"{kind} was not measured in all joint runs: set {SETTINGS[kind]}, and train longer")
        return np.mean([take(run[name]) for run in self.runs], axis=0)


def _half(series: Series, first: int) -> np.ndarray:
    half = series.of(slice(first, None, 2))
    return half.mean() if len(half.tables) else np.full(series.tables.shape[1:], np.nan)


def _stepped_up(tables: Sequence[np.ndarray]) -> float | None:
    """Reliability of the mean of equally good tables from their mean correlation (below 0 as it is)."""
    pairs = [rank_correlation(standardized(one), standardized(other)) for one, other in combinations(tables, 2)]
    correlation, n = float(np.mean(pairs)) if pairs else np.nan, len(tables)
    if np.isnan(correlation):
        return None
    return n * correlation / (1 + (n - 1) * correlation) if correlation > 0 else correlation


def read_history(folders: Sequence[Path]) -> AffinityHistory:
    """Read the affinities that joint runs recorded.

    Raises:
        InputError: if nothing was recorded, or a file is damaged.
    """
    for folder in folders:
        if not (folder / RECORD_FILE).is_file():
            raise InputError(f"{folder} has no {RECORD_FILE}: nothing was recorded, see log.record_every")
    try:
        recordings = [Recording(folder / RECORD_FILE) for folder in folders]
        return AffinityHistory(tuple(recordings[0].tasks), [dict(_series(one)) for one in recordings])
    except ValueError as error:
        raise InputError(str(error)) from None


def _series(recording: Recording) -> Iterator[tuple[str, Series]]:
    for role in ROLES:
        rows = recording.of(role)
        norms = np.sqrt(rows["gramian"].diagonal(axis1=1, axis2=2).astype(float))
        sizes = norms[:, :, None] * norms[:, None]
        cosine = np.divide(rows["gramian"], sizes, out=np.zeros_like(sizes), where=~(sizes <= 0))
        ones, scaled = np.ones(len(rows)), _log_ratio if role == "critic" else np.asarray
        kinds = {
            "affinity": (scaled(rows["pairwise"]), rows["measurements"]),
            "one_step": (scaled(rows["one_step"]), ones),
            "cosine": (cosine, ones),
        }
        for kind, (tables, measurements) in kinds.items():
            whole = np.isfinite(tables).all(axis=(1, 2))
            if whole.any():
                yield f"{kind}_{role}", Series(tables[whole].astype(float), measurements[whole])


def _log_ratio(transference: np.ndarray) -> np.ndarray:
    """Logarithm of a loss before over that after, of a relative decrease: a loss that explodes once outweighs no other.

    ln(L / L') = -ln(1 - Z)        Z = 1 - L' / L
    """
    return -np.log(np.maximum(1 - transference, np.finfo(np.float32).eps))
