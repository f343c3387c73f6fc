"""The report's files: HTML, Markdown, its pictures, and the same numbers as JSON and CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from mtrl_transfer.agents.runs.compare.collect import Collected, FinishedRun
from mtrl_transfer.agents.runs.compare.content import sections
from mtrl_transfer.agents.runs.compare.page import pictures, to_html, to_markdown
from mtrl_transfer.agents.runs.compare.plan import Plan
from mtrl_transfer.agents.runs.compare.statistics import Estimate
from mtrl_transfer.agents.runs.compare.summary import Summary
from mtrl_transfer.agents.runs.run_folder import to_json, write_text

HTML, MARKDOWN, SUMMARY = "report.html", "report.md", "summary.json"
SCORES, CURVES = "scores.csv", "curves.csv"
FIGURES = "figures"
"""Folder of the pictures as SVG files, for a paper or a README."""


def write_report(plan: Plan, collected: Collected, summary: Summary) -> Path:
    """Write the report and its numbers into the comparison's folder.

    Returns:
        The HTML file.
    """
    folder = plan.folder
    folder.mkdir(parents=True, exist_ok=True)
    told = sections(plan, collected, summary)
    title = f"{plan.config.name}: {', '.join(summary.methods or plan.config.methods)}"
    write_text(folder / HTML, to_html(title, told))
    write_text(folder / MARKDOWN, to_markdown(title, told))
    _write_pictures(folder / FIGURES, pictures(told))
    numbers = {"missing": collected.missing, "notes": collected.notes, "differences": list(plan.differences)}
    write_text(folder / SUMMARY, to_json({**_plain(asdict(summary)), **numbers}))
    write_text(
        folder / SCORES, _csv(("method", "seed", "task", "solvable", "success", "return"), _scores(collected.runs))
    )
    header = ("method", "seed", "transitions", "training_seconds", "task", "success")
    write_text(folder / CURVES, _csv(header, _curves(collected.runs)))
    return folder / HTML


def _write_pictures(folder: Path, drawn: Mapping[str, str]) -> None:
    folder.mkdir(exist_ok=True)
    for old in folder.glob("*.svg"):
        if old.stem not in drawn:
            old.unlink()  # of a report with other sections
    for name, svg in drawn.items():
        write_text(folder / f"{name}.svg", svg)


def _scores(runs: Sequence[FinishedRun]) -> Iterable[tuple[Any, ...]]:
    for run in runs:
        for row in zip(run.task_names, run.solvable, run.success, run.returns, strict=True):
            yield run.method, run.seed, *row


def _curves(runs: Sequence[FinishedRun]) -> Iterable[tuple[Any, ...]]:
    for run in runs:
        for step, seconds, successes in zip(run.steps, run.training_seconds, run.curve, strict=True):
            for task, success in zip(run.task_names, successes, strict=True):
                yield run.method, run.seed, step, seconds, task, success


def _csv(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return buffer.getvalue()


def _plain(value: Any) -> Any:
    """Numpy's and our own types as JSON's; what is not finite is null."""
    if isinstance(value, Estimate):
        return {"value": value.value, "low": value.low, "high": value.high}
    if isinstance(value, dict):
        return {str(key): _plain(one) for key, one in value.items()}
    if hasattr(value, "_asdict"):
        return _plain(value._asdict())
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value.item() if isinstance(value, np.generic) else value
