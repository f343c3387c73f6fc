"""Arguments of `Transference` that do not go together, and those of earlier versions."""

from __future__ import annotations

from typing import Any

from mtrl_transfer.choosing.measure import Measure
from mtrl_transfer.choosing.measures import ModelMeasure
from mtrl_transfer.choosing.selection import BestCandidate

WEIGHTS = "weights"
"""The name of the candidates that are all weights."""
RENAMED = {
    "lookahead_rows": "measure={'rows': ...}",
    "lookahead_batch": "measure={'held_out': ...}",
    "step_size": "measure={'step_size': ...}",
    "norm_matching": "max_norm_factor=None for False",
    "max_absence": "selector={'max_absence': ...}",
    "smoothing": "selector={'smoothing': ...}",
    "confidence": "selector={'name': 'significant', 'z': ...}",
}
"""Arguments of version 0.1, with what to write instead."""


def is_named(candidates: Any, name: str) -> bool:
    """Return True if the candidates are the one family of that name; they may also be a list or a tensor."""
    return isinstance(candidates, str) and candidates == name


def check_together(candidates: Any, measure: Measure, selector: BestCandidate, inner: str | None, every: int) -> None:
    """Raise `ValueError` for arguments that do not go together."""
    if measure.needs_last_gradients and every > 1:
        name = type(measure).__name__.lower()
        raise ValueError(f"every={every} does not go with measure={name!r}, which looks at every update; leave every=1")
    if getattr(selector, "needs_errors", False) and measure.rows == 1:
        raise ValueError("rows=1 a task gives no standard error; selector='significant' needs at least 2")
    absence = getattr(selector, "max_absence", None)
    if absence is not None and absence < every:
        raise ValueError(f"max_absence={absence} cannot be kept: a choice stands for every={every} calls")
    if is_named(candidates, "continuous"):
        raise ValueError(f"candidates='continuous' is now {WEIGHTS!r}")
    if is_named(candidates, WEIGHTS):
        if not isinstance(measure, ModelMeasure):
            raise ValueError(
                "candidates='weights' needs measure='lookahead_gradient', 'hindsight', 'basis' or 'first_order'"
            )
        check_searchable("candidates='weights'", inner, selector)


def check_searchable(candidates: str, inner: str | None, selector: BestCandidate) -> None:
    """Raise `ValueError` if the choice relies on candidates that stay the same."""
    if inner or getattr(selector, "smoothing", None):
        raise ValueError(f"{candidates} is searched anew at each call; that needs inner=None and smoothing=0")
