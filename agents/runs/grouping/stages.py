"""Measure, choose, train, report: each stage does what it needs of those before it, and nothing twice."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Console

from mtrl_transfer.agents.monitoring.figures import shortened
from mtrl_transfer.agents.runs.compare.engine import run_all
from mtrl_transfer.agents.runs.compare.planned import PlannedRun
from mtrl_transfer.agents.runs.exit_codes import Incomplete
from mtrl_transfer.agents.runs.grouping.choose import GROUPINGS_FILE, Choices, choose, read_choices, write_choices
from mtrl_transfer.agents.runs.grouping.history import AffinityHistory, read_history
from mtrl_transfer.agents.runs.grouping.options import GroupPlan, load_plan
from mtrl_transfer.agents.runs.grouping.replayed import covariance_series
from mtrl_transfer.agents.runs.grouping.report import write_report
from mtrl_transfer.agents.runs.grouping.results import Results
from mtrl_transfer.agents.runs.grouping.trained import group_runs, joint_runs, make_routed, planned
from mtrl_transfer.agents.runs.streams import say
from mtrl_transfer.agents.runs.tables import groupings_table


def measure_stage(plan: GroupPlan, console: Console) -> AffinityHistory:
    """Train all tasks together and return their affinities."""
    _run(plan, joint_runs(plan), console)
    return _history(plan)


def _history(plan: GroupPlan) -> AffinityHistory:
    runs = joint_runs(plan)
    history = read_history([run.run_dir for run in runs])
    if not any(name.startswith("covariance") for name in plan.options.by):
        return history
    return history._replace(runs=[one | covariance_series(run) for one, run in zip(history.runs, runs, strict=True)])


def choose_stage(plan: GroupPlan, console: Console) -> Choices:
    """Choose groups by the joint runs' affinity; an existing choice stands."""
    history = measure_stage(plan, console)
    if (plan.folder / GROUPINGS_FILE).is_file():
        choices = read_choices(plan.options, plan.folder)
    else:
        choices = choose(history, plan.options)
        write_choices(choices, plan.options, plan.folder)
    for name, rows in choices.selections.items():
        title = f"Groups by {name}; repeatability {choices.reliabilities[name]}"
        wanted = (row for row in rows if row["n_groups"] in plan.options.n_groups)
        console.print(groupings_table(title, wanted, [shortened(task) for task in choices.names]))
    say(console, f"Groups are in {plan.folder / GROUPINGS_FILE}")
    return choices


def train_stage(plan: GroupPlan, console: Console) -> Results:
    """Train every group of every wanted grouping, and route its agents."""
    choices = choose_stage(plan, console).only(plan.options.only)
    wanted = [
        run
        for seed in plan.options.seeds
        for candidate in choices.candidates
        for run in group_runs(plan, candidate.grouping, seed)
    ]
    _run(plan, [planned(plan, run) for run in dict.fromkeys(wanted)], console)
    evaluations = {
        candidate.label: [make_routed(plan, candidate, seed) for seed in plan.options.seeds]
        for candidate in choices.candidates
    }
    return Results(plan, choices, evaluations)


def report_stage(plan: GroupPlan, console: Console) -> Path:
    """Everything in one HTML page, and in TensorBoard."""
    results = train_stage(plan, console)
    page = write_report(results, _history(plan))
    say(console, f"Written: {page}; tensorboard --logdir {shlex.quote(str(plan.folder))}")
    return page


STAGES: dict[str, Callable[[GroupPlan, Console], object]] = {
    "measure": measure_stage,
    "choose": choose_stage,
    "train": train_stage,
    "report": report_stage,
}


def run_stage(stage: str, config: str, overrides: Sequence[str], console: Console) -> None:
    """Do a stage of ``scripts/group.py``.

    Raises:
        InputError: for bad input.
        Incomplete: where runs failed; the same command tries them again.
        Interrupted: after Ctrl-C; the same command goes on.
    """
    STAGES[stage](load_plan(config, overrides), console)


def _run(plan: GroupPlan, runs: Sequence[PlannedRun], console: Console) -> None:
    failed = [result for result in run_all(runs, plan.options.engine, console) if result.error is not None]
    if failed:
        raise Incomplete([f"{result.label} failed: {result.error}" for result in failed])
