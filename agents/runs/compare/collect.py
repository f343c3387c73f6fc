"""Read the folders of finished runs for a report, and name what is missing or does not belong."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mtrl_transfer.agents.mtsac.roles import ROLES
from mtrl_transfer.agents.runs.compare.mixture import refuse_mixture
from mtrl_transfer.agents.runs.compare.plan import MethodRun, Plan, different_keys, method_of, protocol_of
from mtrl_transfer.agents.runs.config.loading import load_config
from mtrl_transfer.agents.runs.config.schema import RunConfig
from mtrl_transfer.agents.runs.errors import InputError
from mtrl_transfer.agents.runs.logs.metrics import METRICS_FILE
from mtrl_transfer.agents.runs.outcome import Unreadable, read_evaluation, read_metrics, read_protocol
from mtrl_transfer.agents.runs.run_folder import CONFIG_FILE, EVALUATION_FILE, PROTOCOL_FILE, RECORD_FILE
from mtrl_transfer.recorder import Recording

MEASURES = {"exact": "correlation", "first order": "correlation_first_order"}
"""Measures of transference, with the ends of their tags."""
PROTOCOL_PARTS = ("environment", "evaluation")
"""Parts of a run's protocol card that must be equal; others (versions, machine) are noted."""
NOTED_PARTS = ("precision", "versions", "machine", "commit")
TIMED = {"update", "transference"}
"""Parts of a run whose seconds the report shows."""


class History(NamedTuple):
    """Values over a run: ``steps [n]`` in transitions, and ``values [n, ...]``."""

    steps: np.ndarray
    values: np.ndarray


@dataclass(frozen=True)
class FinishedRun:
    """One run, as a report needs it.

    Attributes:
        label: of the run, by its method and seed.
        config: of the run.
        card: its protocol card.
        task_names: of all T tasks; ``solvable [T]`` marks those that count for averages.
        success: in the final evaluation ``[T]``.
        returns: in the final evaluation ``[T]``.
        seconds: by part of the run.
        steps: ``[n]``, transitions at the evaluations in training; empty if the log is damaged.
        training_seconds: ``[n]``, of environments, updates and transference until then.
        curve: success ``[n, T]`` at these evaluations.
        kept: by role, share of updates in which each task's gradient was kept ``[n, T]``.
        pairwise: by role, transference ``[n, T giver, T receiver]``, where it was recorded.
        leads: by role, total transference of a `Transference` combiner's candidates less the full set's ``[n, K - 1]``,
            where that was recorded and candidates were the same throughout.
        prediction: by role and measure, correlation of predicted with realised improvement ``[n]``, where it is known.
    """

    label: str
    method: str
    seed: int
    config: RunConfig
    card: dict[str, Any]
    task_names: tuple[str, ...]
    solvable: np.ndarray
    success: np.ndarray
    returns: np.ndarray
    seconds: dict[str, float]
    n_updates: int
    steps: np.ndarray
    training_seconds: np.ndarray
    curve: np.ndarray
    kept: dict[str, History]
    pairwise: dict[str, History]
    leads: dict[str, History]
    prediction: dict[tuple[str, str], History]


class Collected(NamedTuple):
    """Whole runs, and sentences about runs that are missing or left out and about differences that are allowed."""

    runs: list[FinishedRun]
    missing: list[str]
    notes: list[str]


def collect(plan: Plan, errors: dict[str, str | None]) -> Collected:
    """Read every planned run that is finished.

    Args:
        plan: the comparison.
        errors: label -> why a run failed, for the runs that were tried.

    Returns:
        The runs that belong together; for all others a sentence.

    Raises:
        InputError: if products were of different precision, unless ``mix_precisions`` permits it.
    """
    found, missing, notes = list[FinishedRun](), list[str](), list[str]()
    for planned in plan.runs:
        label = planned.planned.label
        try:
            run, told = _read(planned)
        except _NotWhole as reason:
            missing.append(f"{label}: {errors.get(label) or reason}")
            continue
        foreign = _foreign(run, planned, found)
        other_tasks = found and run.task_names != found[0].task_names
        if foreign and (other_tasks or not plan.config.allow_differences):
            missing.append(f"{label} is left out, for it does not belong: {'; '.join(foreign)}")
            continue
        notes += [f"{label}: {sentence}" for sentence in (*foreign, *told)]
        found.append(run)
    refuse_mixture([(run.label, run.card["precision"]) for run in found], plan)
    return Collected(found, missing, notes + _mixed_notes(found))


class _NotWhole(Exception):
    """A folder holds no finished run; the message says why."""


class _Files(NamedTuple):
    """The files of a finished run, as they were read."""

    config: RunConfig
    evaluation: dict[str, Any]
    card: dict[str, Any]
    rows: list[dict[str, Any]]
    damaged: int


def _files(folder: Path) -> _Files:
    try:
        config = load_config(str(folder / CONFIG_FILE))
    except InputError as error:
        reason = "not begun" if not folder.exists() else f"holds no run that can be read ({error.problems[0]})"
        raise _NotWhole(reason) from None
    try:
        rows, damaged = read_metrics(folder / METRICS_FILE)
        done = rows[-1]["step"] if rows else 0
        if (folder / EVALUATION_FILE).exists():
            evaluation = read_evaluation(folder / EVALUATION_FILE)
            done = evaluation["step"]
        if done < config.total_timesteps or not (folder / EVALUATION_FILE).exists():
            raise _NotWhole(f"not finished: {done:,} of {config.total_timesteps:,} transitions")
        card = read_protocol(folder / PROTOCOL_FILE)
    except Unreadable as error:
        raise _NotWhole(str(error)) from None
    if tuple(evaluation["tasks"]) != card["environment"]["task_names"] or not evaluation["seconds"].keys() >= TIMED:
        raise _NotWhole(f"{EVALUATION_FILE} is not that of a run on the tasks of {PROTOCOL_FILE}")
    return _Files(config, evaluation, card, rows, damaged)


def _read(planned: MethodRun) -> tuple[FinishedRun, list[str]]:
    """The run in a planned run's folder, and sentences about files of it that are left out."""
    config, evaluation, card, rows, damaged = _files(planned.planned.run_dir)
    scores = evaluation["tasks"]
    names = tuple(scores)
    evaluated = [row for row in rows if "success/mean" in row]
    damaged += sum(not _is_evaluation(row, names) for row in evaluated)
    notes = [f"{METRICS_FILE} has {damaged} damaged lines; its curves are left out"] if damaged else []
    if damaged:
        evaluated = []
    pairwise, leads, unread = _recorded(planned.planned.run_dir, names)
    run = FinishedRun(
        label=planned.planned.label,
        method=planned.method,
        seed=config.seed,
        config=config,
        card=card,
        task_names=names,
        solvable=np.isin(range(len(names)), card["environment"]["solvable_tasks"]),
        success=np.array([score["success"] for score in scores.values()]),
        returns=np.array([score["return"] for score in scores.values()]),
        seconds=evaluation["seconds"],
        n_updates=int(max((row.get("train/n_updates") or 0 for row in rows), default=0)),
        steps=np.array([row["step"] for row in evaluated]),
        training_seconds=np.array([row["time/training_seconds"] for row in evaluated]),
        curve=_of_tasks(evaluated, "success", names).values,
        kept={role: _of_tasks(rows, f"kept_{role}", names) for role in ROLES},
        pairwise=pairwise,
        leads=leads,
        prediction={
            (role, measure): _known(rows, f"transference/{role}_{tag}")
            for role in ROLES
            for measure, tag in MEASURES.items()
        },
    )
    return run, notes + unread


def _is_evaluation(row: dict[str, Any], names: Sequence[str]) -> bool:
    """Return whether a logged row holds the time and every task's success."""
    shares = [row.get(f"success/{name}") for name in names]
    return row.get("time/training_seconds") is not None and all(one is not None and 0 <= one <= 1 for one in shares)


def _of_tasks(rows: Sequence[dict[str, Any]], tag: str, names: Sequence[str]) -> History:
    found = [row for row in rows if f"{tag}/{names[0]}" in row]
    values = np.array([[row.get(f"{tag}/{name}") for name in names] for row in found], float)
    return History(np.array([row["step"] for row in found]), values.reshape(-1, len(names)))


def _known(rows: Sequence[dict[str, Any]], tag: str) -> History:
    found = [row for row in rows if row.get(tag) is not None]
    return History(np.array([row["step"] for row in found]), np.array([row[tag] for row in found], float))


def _recorded(folder: Path, names: Sequence[str]) -> tuple[dict[str, History], dict[str, History], list[str]]:
    path = folder / RECORD_FILE
    if not path.is_file():
        return {}, {}, []
    try:
        recording = Recording(path)
        if recording.tasks != list(names):
            raise ValueError("it is of other tasks")
        read = {role: recording.of(role) for role in ROLES}
    except (OSError, ValueError) as error:
        return {}, {}, [f"{RECORD_FILE} cannot be read ({error})"]
    pairwise = {role: _whole(recording.steps, rows["pairwise"]) for role, rows in read.items()}
    decided = {role: rows for role, rows in read.items() if _same_candidates(rows["candidates"])}
    totals = {role: rows["transference"].sum(axis=2) for role, rows in decided.items()}
    fresh = {role: _fresh(total) for role, total in totals.items()}
    leads = {
        role: _whole(recording.steps[fresh[role]], (total[:, 1:] - total[:, :1])[fresh[role]])
        for role, total in totals.items()
    }
    return pairwise, leads, []


def _fresh(rows: np.ndarray) -> np.ndarray:
    """Mask ``[n]`` of rows ``[n, K]`` that differ from the row before: a decision stands until the next one."""
    fresh = np.ones(len(rows), bool)
    fresh[1:] = (rows[1:] != rows[:-1]).any(axis=1)
    return fresh


def _same_candidates(rows: np.ndarray) -> bool:
    """Return whether rows ``[n, K, T]`` hold the same subsets throughout, as listed candidates do."""
    known = rows[np.isfinite(rows).all(axis=(1, 2))] != 0
    return rows.shape[1] > 1 and bool((known == known[:1]).all())


def _whole(steps: np.ndarray, values: np.ndarray) -> History:
    whole = np.isfinite(values).all(axis=tuple(range(1, values.ndim)))
    return History(steps[whole], values[whole])


def _foreign(run: FinishedRun, planned: MethodRun, found: Sequence[FinishedRun]) -> list[str]:
    """Differences of a run from what was planned, and of its protocol from that of the runs before it."""
    expected = planned.planned.config
    told = _differing("", protocol_of(run.config), protocol_of(expected))
    for part in PROTOCOL_PARTS if found else ():
        told += _differing(f"{part}.", run.card[part], found[0].card[part])
    told += _differing(f"{run.method}'s ", method_of(run.config), method_of(expected))
    return told + _differing("", {"seed": run.seed}, {"seed": planned.seed})


def _differing(prefix: str, ours: dict[str, Any], theirs: dict[str, Any]) -> list[str]:
    keys = different_keys(ours, theirs)
    return [f"{prefix}{key} is {_short(ours.get(key))}, not {_short(theirs.get(key))}" for key in keys]


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _mixed_notes(runs: Sequence[FinishedRun]) -> list[str]:
    """Sentences about versions and machines that differ: success may be compared, times may not."""
    notes = []
    for part in NOTED_PARTS:
        seen: dict[str, list[FinishedRun]] = {}
        for run in runs:
            seen.setdefault(json.dumps(run.card.get(part), sort_keys=True), []).append(run)
        if len(seen) > 1:
            most, *others = sorted(seen.values(), key=len, reverse=True)
            warning = ": seconds can't be compared between them" if part == "machine" else ""
            told = "; ".join(_by_method(group) for group in others)
            notes.append(f"Not all runs have the same {part}{warning} (unlike the other {len(most)}: {told})")
    return notes


def _by_method(runs: Sequence[FinishedRun]) -> str:
    seeds: dict[str, list[int]] = {}
    for run in runs:
        seeds.setdefault(run.method, []).append(run.seed)
    return ", ".join(f"{method} {_ranges(sorted(of))}" for method, of in seeds.items())


def _ranges(numbers: Sequence[int]) -> str:
    """``1-3, 5`` for 1, 2, 3, 5."""
    ranges: list[list[int]] = []
    for number in numbers:
        if ranges and number == ranges[-1][-1] + 1:
            ranges[-1] = [ranges[-1][0], number]
        else:
            ranges.append([number])
    return ", ".join("-".join(map(str, one)) for one in ranges)
