"""All candidates of one update: subsets of tasks, and what other combiners propose."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor

from mtrl_transfer.candidates import FAMILIES, full
from mtrl_transfer.choices import check_choice
from mtrl_transfer.combiners.base import Combiner
from mtrl_transfer.combiners.pcgrad import pcgrad_weights, random_orders
from mtrl_transfer.combiners.registry import COMBINERS, make_combiner
from mtrl_transfer.context import Context
from mtrl_transfer.steps import check_norm_factor, match_norms

Listed: TypeAlias = Any
"""A family's name, rows of weights `[K, T]`, or a list of families, combiners and subsets of task indices."""


class Proposed(NamedTuple):
    """Candidates `rows [K, T]` as they would be applied, the full set first, and their `members [K, T]` bool."""

    rows: Tensor
    members: Tensor


class Proposals:
    """Makes the candidates of every update.

    Args:
        listed: a family by name (see `candidates.FAMILIES`); rows of weights `[K, T]`; or a list that mixes names of
            families, combiners (by name or object) and subsets of task indices. The full set always comes first.
        inner: `pcgrad` runs PCGrad within each subset.
        max_norm_factor: largest factor by which a candidate is brought to the full set's gradient norm; None leaves all
            candidates as they are.
    """

    def __init__(self, listed: Listed, inner: str | None, max_norm_factor: float | None) -> None:
        if inner is not None:
            check_choice("inner", inner, ("pcgrad",))
        check_norm_factor(max_norm_factor)
        if not isinstance(listed, str | Tensor | Sequence):
            raise ValueError(f"candidates={listed!r} must be a family's name, rows of weights, or a list")
        parts: list[Any] = [listed] if isinstance(listed, str | Tensor) else list(listed)
        for part in parts:
            _check(part)
        self._subsets_listed = [part for part in parts if not _proposes(part)]
        proposing: list[Any] = [part for part in parts if _proposes(part)]
        self.combiners = [make_combiner(part) if isinstance(part, str) else part for part in proposing]
        if inner is not None and any(isinstance(part, Tensor) for part in parts):
            raise ValueError(f"inner={inner!r} works within subsets; it has no meaning for rows of given weights")
        self.inner, self.max_norm_factor = inner, max_norm_factor
        self._static: Tensor | None = None

    @property
    def depend_on_gradients(self) -> bool:
        """True if the rows of weights differ from update to update."""
        return self.inner is not None or bool(self.combiners)

    def __call__(self, gramian: Tensor, context: Context | None, generator: torch.Generator) -> Proposed:
        """Return the candidates for this Gramian `[T, T]`."""
        rows = self._rows(gramian)
        members = rows != 0
        if self.inner == "pcgrad":
            rows = pcgrad_weights(gramian, random_orders(len(gramian), generator), members)
        if self.combiners:
            proposed = torch.stack([combiner(gramian, context) for combiner in self.combiners])
            rows, members = torch.cat([rows, proposed]), torch.cat([members, proposed != 0])
        return Proposed(matched(rows, gramian, self.max_norm_factor), members)

    def check(self, n_tasks: int) -> None:
        """Raise `ValueError` if what is listed is not of that many tasks."""
        for part in self._subsets_listed:
            _rows_of(part, n_tasks)

    def _rows(self, gramian: Tensor) -> Tensor:
        """Listed rows `[S, T]`, the full set first; built once, since they cross to the device."""
        n_tasks, static = len(gramian), self._static
        if static is None or static.shape[1] != n_tasks or static.device != gramian.device:
            parts = [_rows_of(part, n_tasks) for part in self._subsets_listed]
            listed = torch.cat([torch.zeros(0, n_tasks), *parts])
            others = listed[~(listed == full(n_tasks)).all(1)]
            static = torch.cat([full(n_tasks), others]).to(gramian.device)
        self._static = static.to(gramian.dtype)
        return self._static


def matched(rows: Tensor, gramian: Tensor, max_norm_factor: float | None) -> Tensor:
    """Return `rows [K, T]` brought to the norm of the first, which stays as it is; None: all as they are."""
    return torch.cat([rows[:1], match_norms(rows[1:], gramian, rows[0], max_norm_factor)])


def _check(part: object) -> None:
    if isinstance(part, str):
        check_choice("candidates", part, {*FAMILIES, *COMBINERS} - {"transference"})
    elif not isinstance(part, Combiner | Tensor | Sequence):
        raise ValueError(
            f"candidates contains {part!r}, no family, combiner, rows of weights or subset; a subset is a list "
            "of task indices, such as [0, 2] in candidates=[[0, 2], [1]]"
        )


def _proposes(part: object) -> bool:
    return isinstance(part, Combiner) or (isinstance(part, str) and part not in FAMILIES)


def _rows_of(part: Any, n_tasks: int) -> Tensor:
    if isinstance(part, str):
        return FAMILIES[part](n_tasks)
    if isinstance(part, Tensor):
        if part.ndim != 2 or part.shape[1] != n_tasks:
            raise ValueError(f"candidates must be [K, {n_tasks}] (one a row), got {list(part.shape)}")
        if not part.any(1).all():
            raise ValueError("candidates contains a row of zeros; the step along no task is none")
        return part.detach().cpu().float()
    row = torch.zeros(1, n_tasks)
    if not part:
        raise ValueError("candidates contains an empty subset; the step along no task is none")
    for task in part:
        if not 0 <= task < n_tasks:
            raise ValueError(f"candidates names task {task}, but tasks are numbered 0 to {n_tasks - 1}")
        row[0, task] = 1 / n_tasks
    return row
