"""Estimates with intervals, and a report's numbers as JSON and CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy.stats import t as student

from mtrl_transfer.agents.runs.run_folder import to_json, write_text


class Estimate(NamedTuple):
    """A value with the bounds of its 95% interval; written as ``0.62 [0.41, 0.80]``."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return format(self, ".2f")

    def __format__(self, spec: str) -> str:
        spec = spec or ".2f"
        value, low, high = (format(float(format(bound, spec)) + 0.0, spec) for bound in self)  # no minus before a zero
        return f"{value} [{low}, {high}]"


def mean_with_interval(values: Sequence[float] | np.ndarray) -> Estimate:
    """Mean of at least two values with its 95% confidence interval by Student's t."""
    values = np.asarray(values, float)
    half = student.ppf(0.975, len(values) - 1) * values.std(ddof=1) / len(values) ** 0.5
    return Estimate(float(values.mean()), float(values.mean() - half), float(values.mean() + half))


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write numbers of numpy's types and ours; what is not finite becomes null."""
    write_text(path, to_json(_plain(content)))


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write a table with its header."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerows([header, *rows])
    write_text(path, buffer.getvalue())


def _plain(value: Any) -> Any:
    if hasattr(value, "_asdict"):
        return _plain(value._asdict())
    if isinstance(value, Mapping):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return _plain(value.tolist())
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value
