"""Groupings chosen by affinity, and controls, for every number of networks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
from pydantic import BaseModel, Field, ValidationError, model_validator

from mtrl_transfer.agents.runs.errors import InputError, first_problem
from mtrl_transfer.agents.runs.grouping.history import AffinityHistory, Reliability
from mtrl_transfer.agents.runs.grouping.options import PREFIX, GroupOptions
from mtrl_transfer.agents.runs.run_folder import to_json, write_text
from mtrl_transfer.grouping import (
    Grouping,
    all_together,
    best_selection,
    cluster,
    one_per_task,
    random_groups,
    standardized,
    task_scores,
)

GROUPINGS_FILE = "groupings.json"
TOGETHER, ALONE = "together", "one_per_task"
DECIDE = ("n_groups", "by", "part", "max_size", "max_total_size", "singleton_score", "random")
"""Options on which the choice depends."""


class Candidate(NamedTuple):
    """A grouping to train with its name; `predicted [T]` by affinity, nan for a task alone."""

    label: str
    grouping: Grouping
    predicted: np.ndarray


class Choices(NamedTuple):
    """Groupings found by `choose`.

    - `names`: names of the tasks.
    - `affinities`: by name those that decide, `[T, T]`; the first predicts.
    - `reliabilities`: of the same.
    - `selections`: for each affinity and 1 to T networks the chosen groups, with total score and bound.
    - `candidates`: the groupings to train.
    """

    names: tuple[str, ...]
    affinities: dict[str, np.ndarray]
    reliabilities: dict[str, Reliability]
    selections: dict[str, list[dict[str, Any]]]
    candidates: list[Candidate]

    def only(self, wanted: Sequence[str] | None) -> Choices:
        """Return the same with few candidates: all together, and those wanted by label, or label without number.

        Raises:
            InputError: for one that is none of them.
        """
        if wanted is None:
            return self
        of = {one.label: {one.label, one.label.rpartition("_")[0]} for one in self.candidates}
        if unknown := set(wanted).difference(*of.values()):
            raise InputError(f"{PREFIX}only: {min(unknown)} is no grouping; there are {', '.join(of)}")
        kept = [one for one in self.candidates if one.label == TOGETHER or of[one.label] & set(wanted)]
        return self._replace(candidates=kept)


def choose(history: AffinityHistory, options: GroupOptions) -> Choices:
    """Choose groups by each affinity, and add the controls.

    Raises:
        InputError: for limits that no grouping meets, or an affinity that was not measured.
    """
    n_tasks = len(history.names)
    affinities: dict[str, np.ndarray] = {name: history.affinity(name, options.part) for name in options.by}
    reliabilities = {name: history.reliability(name, options.part) for name in affinities}
    selections = {name: _selections(affinity, options) for name, affinity in affinities.items()}
    leading = affinities[options.by[0]]
    raw = history.affinity("affinity_critic")
    groupings = {TOGETHER: all_together(n_tasks), ALONE: one_per_task(n_tasks)}
    for number in sorted(set(options.n_groups)):
        for name, rows in selections.items():
            row = next(row for row in rows if row["n_groups"] == number)
            groupings[f"{name}_{number}"] = Grouping(row["groups"], row["assignment"])
        groupings[f"tag_{number}"] = best_selection(raw, number).grouping
        groupings[f"cluster_{number}"] = cluster(leading, number)
        draws = dict.fromkeys(random_groups(n_tasks, number, seed) for seed in range(100 * options.random))
        for draw, grouping in enumerate([*draws][: options.random]):  # of few tasks there may be fewer
            groupings[f"random{draw}_{number}"] = grouping
    candidates = [_candidate(leading, *one) for one in groupings.items()]
    return Choices(history.names, affinities, reliabilities, selections, candidates)


def _selections(affinity: np.ndarray, options: GroupOptions) -> list[dict[str, Any]]:
    """The chosen groups for 1 to T networks; those without a solution are left out where they were not asked for."""
    n_tasks, selections = len(affinity), []
    if (most := max(options.n_groups)) > n_tasks:
        raise InputError(f"{PREFIX}n_groups={most} should be at most {n_tasks}, the number of tasks")
    limits = options.model_dump(include={"max_size", "max_total_size", "singleton_score"})
    for number in range(1, n_tasks + 1):
        try:
            found = best_selection(standardized(affinity), number, **limits)
        except ValueError as error:
            if number in options.n_groups:
                raise InputError(f"{PREFIX}n_groups={number}: {error}") from None
            continue
        selections.append({"n_groups": number, **found.grouping._asdict(), "score": found.score, "bound": found.bound})
    return selections


def _candidate(affinity: np.ndarray, label: str, grouping: Grouping) -> Candidate:
    scores = task_scores(standardized(affinity), grouping)
    return Candidate(label, grouping, np.where(np.isfinite(scores), scores, np.nan))


def write_choices(choices: Choices, options: GroupOptions, folder: Path) -> Path:
    """Write ``groupings.json`` for people and for the next stage; groups may be edited there."""
    content = {
        "options": _deciding(options),
        "tasks": list(choices.names),
        "affinities": {name: affinity.tolist() for name, affinity in choices.affinities.items()},
        "reliabilities": {name: one._asdict() for name, one in choices.reliabilities.items()},
        "selections": choices.selections,
        "groupings": {one.label: one.grouping._asdict() for one in choices.candidates},
    }
    write_text(folder / GROUPINGS_FILE, to_json(content))
    return folder / GROUPINGS_FILE


def _deciding(options: GroupOptions) -> dict[str, Any]:
    decided = options.model_dump(mode="json", include=set(DECIDE))
    return {**decided, "n_groups": sorted(set(options.n_groups))}


class _Selection(BaseModel):
    n_groups: int
    groups: tuple[tuple[int, ...], ...]
    assignment: tuple[int, ...]
    score: float
    bound: float


class _Stored(BaseModel):
    """Content of ``groupings.json``."""

    options: dict[str, Any]
    tasks: tuple[str, ...]
    affinities: Annotated[dict[str, tuple[tuple[float, ...], ...]], Field(min_length=1)]
    reliabilities: dict[str, Reliability]
    selections: dict[str, list[_Selection]]
    groupings: dict[str, Grouping]

    @model_validator(mode="after")
    def _is_of_these_tasks(self) -> _Stored:
        n_tasks = len(self.tasks)
        if not self.affinities.keys() == self.reliabilities.keys() == self.selections.keys():
            raise ValueError("affinities, reliabilities and selections should have the same names")
        for name, affinity in self.affinities.items():
            if [len(row) for row in affinity] != [n_tasks] * n_tasks:
                raise ValueError(f"the affinity {name} should be [{n_tasks}, {n_tasks}]")
        for one in (one for rows in self.selections.values() for one in rows):
            _check_groups(f"the choice of {one.n_groups}", one.groups, one.assignment, n_tasks)
        for label, grouping in self.groupings.items():
            _check_groups(label, grouping.groups, grouping.assignment, n_tasks)
        return self


def _check_groups(label: str, groups: Sequence[Sequence[int]], assignment: Sequence[int], n_tasks: int) -> None:
    if len(assignment) != n_tasks or not all(0 <= task < n_tasks for group in groups for task in group):
        raise ValueError(f"{label} should assign the tasks 0 to {n_tasks - 1}")
    if any(not 0 <= index < len(groups) or task not in groups[index] for task, index in enumerate(assignment)):
        raise ValueError(f"{label} assigns a task to a group that it is not in")


def read_choices(options: GroupOptions, folder: Path) -> Choices:
    """Read what `write_choices` wrote.

    Raises:
        InputError: if the file was edited into something else, or chosen with other options.
    """
    path = folder / GROUPINGS_FILE
    try:
        stored = _Stored.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        reason = first_problem(error) if isinstance(error, ValidationError) else error.strerror
        raise InputError(f"{path} cannot be read: {reason}; delete it to choose again") from None
    asked = _deciding(options)
    others = [
        f"{PREFIX}{name}={value}: {path} was chosen with {stored.options.get(name)}; delete it to choose again"
        for name, value in asked.items()
        if stored.options.get(name) != value
    ]
    if others:
        raise InputError(others)
    affinities = {name: np.array(affinity) for name, affinity in stored.affinities.items()}
    candidates = [_candidate(affinities[options.by[0]], *one) for one in stored.groupings.items()]
    selections = {name: [one.model_dump() for one in rows] for name, rows in stored.selections.items()}
    return Choices(stored.tasks, affinities, stored.reliabilities, selections, candidates)
