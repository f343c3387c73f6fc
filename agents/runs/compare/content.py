"""What the report says."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from mtrl_transfer.agents.monitoring.figures import shortened
from mtrl_transfer.agents.runs.compare import plots, transference_tables
from mtrl_transfer.agents.runs.compare.collect import Collected, FinishedRun
from mtrl_transfer.agents.runs.compare.glossary import TERMS
from mtrl_transfer.agents.runs.compare.page import Code, Picture, Section, Table, Text
from mtrl_transfer.agents.runs.compare.plan import Plan, method_of
from mtrl_transfer.agents.runs.compare.statistics import ENOUGH_SEEDS, MOST_SEEDS
from mtrl_transfer.agents.runs.compare.summary import MethodSummary, Summary
from mtrl_transfer.agents.runs.compare.transference_pictures import transference_section
from mtrl_transfer.agents.runs.compare.wording import NOTHING, number
from mtrl_transfer.agents.runs.tables import duration


def sections(plan: Plan, collected: Collected, summary: Summary) -> list[Section]:
    """The whole report, the answer first."""
    always = [_missing(plan, collected), _protocol(plan, collected)]
    if not summary.methods:
        return [section for section in always if section.parts]
    parts = [
        _answer(summary),
        always[0],
        _results(summary),
        _learning(summary),
        _tasks(summary),
        transference_tables.prediction(summary),
        transference_tables.interaction(summary),
        transference_tables.choices(summary),
        _cost(summary),
        *(transference_section(method, _of(method, collected.runs)) for method in summary.methods),
        always[1],
        _how_to_read(),
    ]
    return [section for section in parts if section.parts]


def answer(summary: Summary) -> list[str]:
    """Each method against the baseline, in a sentence."""
    return [_against(method, summary) for method in summary.methods.values() if method.improvement is not None]


def doubts(summary: Summary) -> list[str]:
    """What keeps the figures from being trusted."""
    few = [method for method in summary.methods.values() if not method.trusted]
    told = []
    if few:
        seeds = ", ".join(f"{method.method}: {len(method.seeds)}" for method in few)
        told.append(
            f"Too few seeds ({seeds}) to call a method better or worse: with fewer than {ENOUGH_SEEDS} an interval is "
            "likely too narrow."
        )
    if summary.baseline not in summary.methods:
        told.append(f"The baseline {summary.baseline} has no finished run, so nothing is compared with it.")
    return told


def _against(method: MethodSummary, summary: Summary) -> str:
    assert method.improvement is not None
    baseline = summary.methods[summary.baseline]
    by = method.mean.value - baseline.mean.value
    low, high = method.improvement.low, method.improvement.high
    enough = method.trusted and baseline.trusted
    verdict = (
        f"better than {summary.baseline}"
        if enough and low > 0.5
        else f"worse than {summary.baseline}"
        if enough and high < 0.5
        else f"not shown to differ from {summary.baseline}"
    )
    return (
        f"{method.method} is {verdict}: probability of improvement {number(method.improvement)}, mean success "
        f"{by:+.3f}. {_needed(method)}"
    )


def _needed(method: MethodSummary) -> str:
    if len(method.seeds) < 2:
        return "How many seeds it would take can't be told from one."
    if method.seeds_needed is None:
        return f"To confirm a difference of this size would take more than {MOST_SEEDS:,} seeds, or there is none."
    return f"To confirm a difference of this size takes about {method.seeds_needed} seeds per method."


def _answer(summary: Summary) -> Section:
    texts = [*(Text(told, warning=True) for told in doubts(summary)), *(Text(told) for told in answer(summary))]
    picture = Picture(
        "Final success by method: interquartile mean, 95% interval, a dot per seed", plots.intervals(summary)
    )
    return Section("In short", [*texts, picture])


def _missing(plan: Plan, collected: Collected) -> Section:
    n_planned = len(plan.runs) + sum(map(len, plan.config.imports.values()))
    texts = [Text(told) for told in (*collected.missing, *collected.notes)]
    if collected.missing:
        texts.insert(0, Text(f"{len(collected.missing)} of {n_planned} runs are missing here.", warning=True))
    return Section("Missing, and worth knowing", [*texts])


def _results(summary: Summary) -> Section:
    header = ["method", "seeds", "IQM", "mean", "worst three tasks", "area under curve", "P(better)", "seeds needed"]
    rows = [
        [
            method.method,
            str(len(method.seeds)),
            number(method.iqm),
            number(method.mean),
            f"{method.worst[0]:.2f}",
            number(method.area),
            number(method.improvement),
            NOTHING if method.seeds_needed is None else str(method.seeds_needed),
        ]
        for method in summary.methods.values()
    ]
    worst = "; ".join(
        f"{method.method}: {', '.join(map(shortened, method.worst[1]))}" for method in summary.methods.values()
    )
    about = (
        f"Success of the final evaluation over {len(summary.tasks)} tasks that can be solved, with 95% intervals. "
        f"P(better): probability of improvement over {summary.baseline}. Worst tasks: {worst}."
    )
    return Section("Results", [Text(about), Table(header, rows)])


def _learning(summary: Summary) -> Section:
    methods = summary.methods
    over_transitions = {name: method.over_transitions for name, method in methods.items()}
    over_seconds = {name: method.over_seconds for name, method in methods.items()}
    if not any(over_transitions.values()):
        return Section("Learning curves")
    first = next(iter(methods.values()))
    at_transitions = [f"{at:,} transitions" for at in first.at_transitions]
    at_seconds = [duration(at) for at in first.at_seconds]
    rows = [
        [
            name,
            *(number(value) for value in method.at_transitions.values()),
            *(number(value) for value in method.at_seconds.values()),
        ]
        for name, method in methods.items()
    ]
    return Section(
        "Learning curves",
        [
            Picture("Success over transitions", plots.curves(over_transitions, "transitions")),
            Picture("Success over training time", plots.curves(over_seconds, "minutes of training", in_minutes=True)),
            Text("Interquartile mean at fixed transitions, and at fixed training time (the last evaluation by then)."),
            Table(["method", *at_transitions, *at_seconds], rows),
        ],
    )


def _tasks(summary: Summary) -> Section:
    header = ["task", *summary.methods]
    rows = [
        [shortened(task), *(_spread(method, number) for method in summary.methods.values())]
        for number, task in enumerate(summary.tasks)
    ]
    return Section(
        "Tasks",
        [
            Picture("Final success per task", plots.task_bars(summary)),
            Picture("Performance profile", plots.profiles(summary)),
            Text("Mean success, least and greatest of the seeds, and mean return:"),
            Table(header, rows),
        ],
    )


def _spread(method: MethodSummary, task: int) -> str:
    scores = method.scores[:, task]
    return f"{scores.mean():.2f} ({scores.min():.2f}–{scores.max():.2f}), {method.returns[:, task].mean():.1f}"


def _cost(summary: Summary) -> Section:
    header = ["method", "ms an update", "of it measuring and combining", "a whole run"]
    rows = [
        [name, f"{method.update_ms:.2f}", f"{method.transference_ms:.2f}", duration(method.seconds)]
        for name, method in summary.methods.items()
    ]
    about = "As it was: runs side by side slow each other down. Measuring for the record is in it, alike for all."
    return Section("Cost", [Text(about), Picture("Cost of an update", plots.costs(summary)), Table(header, rows)])


def _of(method: str, runs: Sequence[FinishedRun]) -> list[FinishedRun]:
    return [run for run in runs if run.method == method]


def _protocol(plan: Plan, collected: Collected) -> Section:
    parts: list[Text | Code | Table | Picture] = []
    if plan.differences:
        parts.append(Text("The methods differ in more than the combiner: " + "; ".join(plan.differences), warning=True))
    parts.append(Text(f"Methods, each with the seeds {', '.join(map(str, plan.config.seeds))}:"))
    parts.append(Table(["method", "combiner"], _settings(plan, collected), facts=True))
    if collected.runs:
        parts.append(Table(["protocol", ""], _card(collected.runs[0]), facts=True))
    parts.append(
        Text("Commands: the comparison, and any of its runs by hand (run_dir=... elsewhere, to keep this one).")
    )
    parts.append(
        Code("\n".join([command(), *(f"python scripts/train.py {run.planned.config_file}" for run in plan.runs)]))
    )
    return Section("Protocol", parts)


def command() -> str:
    """The command line that made this report."""
    program = Path(sys.argv[0])
    called = f"python {os.path.relpath(program)}" if program.suffix == ".py" else program.name
    return shlex.join([*called.split(), *sys.argv[1:]])


def _settings(plan: Plan, collected: Collected) -> list[list[str]]:
    configs = {run.method: run.planned.config for run in plan.runs}
    configs |= {run.method: run.config for run in collected.runs if run.method not in configs}
    return [
        [method, ", ".join(f"{key.removeprefix('combiner.')}={value}" for key, value in method_of(config).items())]
        for method, config in configs.items()
    ]


def _card(run: FinishedRun) -> list[list[str]]:
    card, config = run.card, run.config
    environment, evaluation, machine = card["environment"], card["evaluation"], card["machine"]
    goals = environment["n_goals"]
    return [
        ["tasks", f"{environment['suite']}: {', '.join(map(shortened, run.task_names))}"],
        ["budget", f"{config.total_timesteps:,} transitions over all tasks"],
        ["goals", "drawn anew for each episode" if goals is None else f"{goals} a task, seed {config.env.goal_seed}"],
        ["final evaluation", f"{evaluation['episodes_per_task']} episodes a task, {evaluation['policy']} policy"],
        ["success", f"{evaluation['success']}, environments {evaluation['environments']}"],
        ["evaluated in training", f"every {config.evaluation.every} transitions, {config.evaluation.n_goals} episodes"],
        ["versions", ", ".join(f"{name} {version}" for name, version in card["versions"].items())],
        ["commit", str(card["commit"])],
        ["machine", ", ".join(f"{name} {value}" for name, value in machine.items())],
    ]


def _how_to_read() -> Section:
    return Section("How to read this", [Text(term) for term in TERMS], folded=True)
