"""A whole comparison: runs, statistics, report."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from mtrl_transfer.agents.runs.compare import content
from mtrl_transfer.agents.runs.compare.collect import collect
from mtrl_transfer.agents.runs.compare.engine import run_all
from mtrl_transfer.agents.runs.compare.files import write_report
from mtrl_transfer.agents.runs.compare.mixture import check_before_running
from mtrl_transfer.agents.runs.compare.plan import Plan, load_plan
from mtrl_transfer.agents.runs.compare.summary import Summary, summarise
from mtrl_transfer.agents.runs.exit_codes import Incomplete
from mtrl_transfer.agents.runs.streams import say


def compare(argument: str, overrides: Sequence[str], console: Console) -> Summary:
    """Do the missing runs of a comparison and write its report.

    Args:
        argument: a comparison's file, or the name of a preset.
        overrides: ``key=value`` texts.
        console: takes the output.

    Raises:
        InputError: before any work.
        Interrupted: after Ctrl-C, once the runs have saved.
        Incomplete: if runs are missing in the report, which is written nevertheless.
    """
    return run_comparison(load_plan(argument, overrides), console)


def run_comparison(plan: Plan, console: Console) -> Summary:
    """Do the same as `compare` for a plan."""
    for difference in plan.differences:
        say(console, f"Methods differ in {difference}")
    errors: dict[str, str | None] = {}
    if plan.config.run:
        check_before_running(plan)
        results = run_all([run.planned for run in plan.runs], plan.config, console)
        errors = {result.label: result.error for result in results}
    collected = collect(plan, errors)
    summary = summarise(collected.runs, list(plan.config.methods), plan.config.baseline)
    written = write_report(plan, collected, summary)
    _tell(console, summary)
    for note in collected.notes:
        say(console, note)
    say(console, f"Report: {written}")
    if collected.missing:
        raise Incomplete(["The report lacks:", *(f"  {told}" for told in collected.missing)])
    return summary


def _tell(console: Console, summary: Summary) -> None:
    if not summary.methods:
        return
    table = Table(title="Final success")
    for column in ("method", "seeds", "IQM", "P(better)"):
        table.add_column(column, justify="left" if column == "method" else "right", no_wrap=True)
    for method in summary.methods.values():
        improvement = "–" if method.improvement is None else str(method.improvement)
        table.add_row(method.method, str(len(method.seeds)), str(method.iqm), improvement)
    console.print(table)
    for sentence in (*content.verdicts(summary), *content.warnings(summary)):
        say(console, sentence)
