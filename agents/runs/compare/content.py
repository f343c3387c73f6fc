"""Verdicts, tables and figures of a comparison's report; its text is in ``report.md.jinja``."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path

from mtrl_transfer.agents.monitoring.figures import shortened
from mtrl_transfer.agents.mtsac.roles import ROLES
from mtrl_transfer.agents.runs.compare import plots
from mtrl_transfer.agents.runs.compare.collect import Collected
from mtrl_transfer.agents.runs.compare.interaction import PHASES
from mtrl_transfer.agents.runs.compare.plan import Plan, method_of
from mtrl_transfer.agents.runs.compare.statistics import ENOUGH_SEEDS, MOST_SEEDS, SIGNIFICANCE
from mtrl_transfer.agents.runs.compare.summary import MethodSummary, Summary
from mtrl_transfer.agents.runs.config.schema import RunConfig
from mtrl_transfer.agents.runs.report.document import Report, digits, table
from mtrl_transfer.agents.runs.tables import duration, episodes

TEMPLATE = Path(__file__).with_name("report.md.jinja")


def report(plan: Plan, collected: Collected, summary: Summary) -> Report:
    """The whole report, the answer first."""
    methods = summary.methods
    values = {
        **{"plan": plan, "collected": collected, "summary": summary, "methods": list(methods.values())},
        **{"roles": ROLES, "phases": PHASES, "enough_seeds": ENOUGH_SEEDS},
        **{"short": shortened, "duration": duration, "digits": digits, "episodes": episodes},
        "verdicts": verdicts(summary),
        "warnings": warnings(summary),
        "curves_table": _curves_table(summary),
        "tasks_table": _tasks_table(summary),
        "combiners": {run.method: _combiner(run.planned.config) for run in plan.runs},
        "run": next(iter(collected.runs), None),
        "command": command(),
    }
    return Report(TEMPLATE, values, plots.figures(summary, collected.runs))


def verdicts(summary: Summary) -> list[str]:
    """Each method against the baseline, in a sentence."""
    return [_verdict(method, summary) for method in summary.compared]


def warnings(summary: Summary) -> list[str]:
    """Reasons not to trust the numbers."""
    found = []
    few = [f"{method.method}: {len(method.seeds)}" for method in summary.methods.values() if not method.trusted]
    if few:
        found.append(
            f"Too few seeds ({', '.join(few)}) to call a method better or worse: with fewer than {ENOUGH_SEEDS} the "
            "intervals are too narrow, and no p-value and no number of seeds needed is given."
        )
    if summary.baseline not in summary.methods:
        found.append(f"The baseline {summary.baseline} has no finished run, so no method is compared with it.")
    return found


def command() -> str:
    """The command line that made this report."""
    program = Path(sys.argv[0])
    called = f"python {os.path.relpath(program)}" if program.suffix == ".py" else program.name
    return shlex.join([*called.split(), *sys.argv[1:]])


def _verdict(method: MethodSummary, summary: Summary) -> str:
    assert method.improvement is not None
    difference = method.mean.value - summary.methods[summary.baseline].mean.value
    seen = f"probability of improvement {method.improvement}"
    if method.p_value is None:
        return f"{method.method} against {summary.baseline}: {seen}, mean success {difference:+.3f}."
    direction = "better than" if method.improvement.value > 0.5 else "worse than"
    relation = direction if method.p_value < SIGNIFICANCE else "not shown to differ from"
    tests = sum(other.p_value is not None for other in summary.compared)
    corrected = f", corrected for {tests} comparisons" if tests > 1 else ""
    return (
        f"{method.method} is {relation} {summary.baseline}: {seen} (p = {method.p_value:.3f}{corrected}), "
        f"mean success {difference:+.3f}. {_seeds_needed(method)}"
    )


def _seeds_needed(method: MethodSummary) -> str:
    if method.seeds_needed is None:
        return f"There is no difference, or confirming it would take more than {MOST_SEEDS:,} seeds."
    return f"Confirming a difference of this size takes about {method.seeds_needed} seeds per method."


def _curves_table(summary: Summary) -> str:
    methods = summary.methods
    first = next(iter(methods.values()), None)
    if first is None:
        return ""
    header = ["method", *(f"{at:,} transitions" for at in first.at_transitions), *map(duration, first.at_seconds)]
    rows = [[name, *method.at_transitions.values(), *method.at_seconds.values()] for name, method in methods.items()]
    return table(header, rows)


def _tasks_table(summary: Summary) -> str:
    rows = [
        [shortened(task), *(_spread(method, number) for method in summary.methods.values())]
        for number, task in enumerate(summary.tasks)
    ]
    return table(["task", *summary.methods], rows)


def _spread(method: MethodSummary, task: int) -> str:
    scores = method.scores[:, task]
    return f"{scores.mean():.2f} ({scores.min():.2f}–{scores.max():.2f}), {method.returns[:, task].mean():.1f}"


def _combiner(config: RunConfig) -> str:
    return ", ".join(f"{key.removeprefix('combiner.')}={value}" for key, value in method_of(config).items())
