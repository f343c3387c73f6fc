"""Files of a comparison: the report, and its numbers as JSON and CSV."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mtrl_transfer.agents.runs.compare.collect import Collected, FinishedRun
from mtrl_transfer.agents.runs.compare.content import report
from mtrl_transfer.agents.runs.compare.plan import Plan
from mtrl_transfer.agents.runs.compare.summary import Summary
from mtrl_transfer.agents.runs.report.numbers import write_csv, write_json


def write_report(plan: Plan, collected: Collected, summary: Summary) -> Path:
    """Write the report and its numbers into the comparison's folder.

    Returns:
        The HTML file.
    """
    folder, runs = plan.folder, collected.runs
    page = report(plan, collected, summary).write(folder)
    notes = {"missing": collected.missing, "notes": collected.notes, "differences": plan.differences}
    write_json(folder / "summary.json", {**asdict(summary), **notes})
    write_csv(folder / "scores.csv", ("method", "seed", "task", "solvable", "success", "return"), _scores(runs))
    header = ("method", "seed", "transitions", "training_seconds", "task", "success")
    write_csv(folder / "curves.csv", header, _curves(runs))
    return page


def _scores(runs: Sequence[FinishedRun]) -> Iterable[tuple[Any, ...]]:
    for run in runs:
        for row in zip(run.task_names, run.solvable, run.success, run.returns, strict=True):
            yield run.method, run.seed, *row


def _curves(runs: Sequence[FinishedRun]) -> Iterable[tuple[Any, ...]]:
    for run in runs:
        for step, seconds, successes in zip(run.steps, run.training_seconds, run.curve, strict=True):
            for task, success in zip(run.task_names, successes, strict=True):
                yield run.method, run.seed, step, seconds, task, success
