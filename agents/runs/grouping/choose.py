"""Groupings chosen by affinity, and controls, for every number of networks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from pydantic import BaseModel, ValidationError, model_validator

from mtrl_transfer.agents.runs.errors import InputError, first_problem
from mtrl_transfer.agents.runs.grouping.history import AffinityHistory
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
DECIDE = ("n_groups", "network", "part", "max_size", "max_total_size", "singleton_score", "random")
"""Options on which the choice depends."""


class Candidate(NamedTuple):
    """A grouping to train with its name; `predicted [T]` by affinity, nan for a task alone."""

    label: str
    grouping: Grouping
    predicted: np.ndarray


class Choices(NamedTuple):
    """Groupings found by `choose`.

    - `names`: names of the tasks.
    - `affinity`: the standardized affinity that decided, `[T, T]`.
    - `selections`: for 1 to T networks the chosen groups, with total score and bound.
    - `candidates`: the groupings to train.
    """

    names: tuple[str, ...]
    affinity: np.ndarray
    selections: list[dict[str, Any]]
    candidates: list[Candidate]


def choose(history: AffinityHistory, options: GroupOptions) -> Choices:
    """Choose groups, and add the controls.

    Raises:
        InputError: for limits that no grouping meets.
    """
    affinity = standardized(history.affinity(options.network, options.part))
    n_tasks = len(affinity)
    too_many = [number for number in options.n_groups if number > n_tasks]
    if too_many:
        raise InputError(f"groups.n_groups={too_many[0]} should be at most {n_tasks}, the number of tasks")
    limits = options.model_dump(include={"max_size", "max_total_size", "singleton_score"})
    selections = []
    for number in range(1, n_tasks + 1):
        try:
            found = best_selection(affinity, number, **limits)
        except ValueError as error:
            if number in options.n_groups:
                raise InputError(f"groups.n_groups={number}: {error}") from None
            continue
        selections.append({"n_groups": number, **found.grouping._asdict(), "score": found.score, "bound": found.bound})
    by_number = {row["n_groups"]: Grouping(row["groups"], row["assignment"]) for row in selections}
    raw = history.affinity("critic", "overall")
    groupings = {"together": all_together(n_tasks), "one_per_task": one_per_task(n_tasks)}
    for number in sorted(set(options.n_groups)):
        groupings[f"chosen_{number}"] = by_number[number]
        groupings[f"tag_{number}"] = best_selection(raw, number).grouping
        groupings[f"cluster_{number}"] = cluster(affinity, number)
        draws = dict.fromkeys(random_groups(n_tasks, number, seed) for seed in range(100 * options.random))
        for draw, grouping in enumerate([*draws][: options.random]):  # of few tasks there may be fewer
            groupings[f"random{draw}_{number}"] = grouping
    return Choices(history.names, affinity, selections, [_candidate(affinity, *one) for one in groupings.items()])


def _candidate(affinity: np.ndarray, label: str, grouping: Grouping) -> Candidate:
    scores = task_scores(affinity, grouping)
    return Candidate(label, grouping, np.where(np.isfinite(scores), scores, np.nan))


def write_choices(choices: Choices, options: GroupOptions, folder: Path) -> Path:
    """Write ``groupings.json`` for people and for the next stage; groups may be edited there."""
    content = {
        "options": _deciding(options),
        "tasks": list(choices.names),
        "affinity": choices.affinity.tolist(),
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

    options: dict[str, Any] | None = None
    tasks: tuple[str, ...]
    affinity: tuple[tuple[float, ...], ...]
    selections: list[_Selection]
    groupings: dict[str, Grouping]

    @model_validator(mode="after")
    def _is_of_these_tasks(self) -> _Stored:
        n_tasks = len(self.tasks)
        if [len(row) for row in self.affinity] != [n_tasks] * n_tasks:
            raise ValueError(f"affinity should be [{n_tasks}, {n_tasks}]")
        for one in self.selections:
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
    chosen_with = asked if stored.options is None else stored.options
    others = [
        f"{PREFIX}{name}={value}: {path} was chosen with {chosen_with.get(name)}; delete it to choose again"
        for name, value in asked.items()
        if chosen_with.get(name) != value
    ]
    if others:
        raise InputError(others)
    affinity = np.array(stored.affinity)
    candidates = [_candidate(affinity, *one) for one in stored.groupings.items()]
    return Choices(stored.tasks, affinity, [one.model_dump() for one in stored.selections], candidates)
