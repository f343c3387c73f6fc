"""Content of a comparison's report."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path

from mtrl_transfer.agents.monitoring.figures import shortened
from mtrl_transfer.agents.runs.compare import plots, transference
from mtrl_transfer.agents.runs.compare.collect import Collected, FinishedRun
from mtrl_transfer.agents.runs.compare.plan import Plan, method_of
from mtrl_transfer.agents.runs.compare.statistics import ENOUGH_SEEDS, MOST_SEEDS, SIGNIFICANCE
from mtrl_transfer.agents.runs.compare.summary import MethodSummary, Summary
from mtrl_transfer.agents.runs.report.document import Code, Document, Part, Picture, Section, Table, Text
from mtrl_transfer.agents.runs.tables import duration

GLOSSARY = (
    "Success: share of evaluation episodes with success at any step; 0 to 1.",
    "IQM: interquartile mean, the mean of the middle half of all seeds × tasks. The best and the worst quarter do not "
    "affect it.",
    "Interval: 95%, by bootstrap. Runs are drawn with replacement 2,000 times, as many as there are; a run is drawn "
    "with all its tasks, because they share a network.",
    "Probability of improvement, P(better): probability that a run of this method beats a run of the baseline on a "
    "task drawn at random. Ties count half, so 0.5 means no difference.",
    "p: bootstrap p-value of no difference from the baseline, two-sided, after Holm's correction. When several methods "
    "are compared with the baseline, some differ by chance; the correction keeps the probability of one or more such "
    "false alarms in a report at 5%. The intervals are not corrected.",
    f"Better, worse: p is below 0.05, and both methods have at least {ENOUGH_SEEDS} seeds.",
    "Seeds needed: seeds per method with which a two-sided t-test at 5% of the means over tasks finds a difference of "
    "the observed size in 80% of experiments. From few seeds it is a rough guide.",
    "Worst three tasks: mean success of the three tasks in which the method is worst.",
    "Area under curve: mean height of the learning curve over transitions.",
    "Training time: environments, updates and transference; without evaluation, logging and checkpoints.",
    "Transference: effect of a step along one task's gradient on another task's loss. Blue helps, red harms.",
)


def document(plan: Plan, collected: Collected, summary: Summary) -> Document:
    """The whole report, the answer first."""
    title = f"{plan.config.name}: {', '.join(summary.methods or plan.config.methods)}"
    missing, protocol = _missing(plan, collected), _protocol(plan, collected)
    if not summary.methods:
        return Document(title, [missing, protocol])
    helps = [
        transference.who_helps_whom(method, [run for run in collected.runs if run.method == method])
        for method in summary.methods
    ]
    sections = [
        _answer(summary),
        missing,
        _results(summary),
        _learning(summary),
        _tasks(summary),
        transference.prediction(summary),
        transference.interaction(summary),
        transference.choices(summary),
        _cost(summary),
        *helps,
        protocol,
        Section("How to read this", [Text(term) for term in GLOSSARY], folded=True),
    ]
    return Document(title, sections)


def verdicts(summary: Summary) -> list[str]:
    """Each method against the baseline, in a sentence."""
    return [_verdict(method, summary) for method in summary.compared]


def warnings(summary: Summary) -> list[str]:
    """Reasons not to trust the numbers."""
    found = []
    few = [f"{method.method}: {len(method.seeds)}" for method in summary.methods.values() if not method.trusted]
    if few:
        found.append(
            f"Too few seeds ({', '.join(few)}) to call a method better or worse: with fewer than {ENOUGH_SEEDS}, "
            "intervals are likely too narrow."
        )
    if summary.baseline not in summary.methods:
        found.append(f"The baseline {summary.baseline} has no finished run, so no method is compared with it.")
    return found


def _verdict(method: MethodSummary, summary: Summary) -> str:
    assert method.improvement is not None
    assert method.p_value is not None
    baseline = summary.methods[summary.baseline]
    differs = method.trusted and baseline.trusted and method.p_value < SIGNIFICANCE
    direction = "better than" if method.improvement.value > 0.5 else "worse than"
    relation = direction if differs else "not shown to differ from"
    corrected = f", corrected for {len(summary.compared)} comparisons" if len(summary.compared) > 1 else ""
    return (
        f"{method.method} is {relation} {summary.baseline}: probability of improvement {method.improvement} "
        f"(p = {method.p_value:.3f}{corrected}), mean success {method.mean.value - baseline.mean.value:+.3f}. "
        + _seeds_needed(method)
    )


def _seeds_needed(method: MethodSummary) -> str:
    if len(method.seeds) < 2:
        return "The number of seeds needed can't be told from one seed."
    if method.seeds_needed is None:
        return f"There is no difference, or confirming it would take more than {MOST_SEEDS:,} seeds."
    return f"Confirming a difference of this size takes about {method.seeds_needed} seeds per method."


def _answer(summary: Summary) -> Section:
    texts = [*(Text(text, warning=True) for text in warnings(summary)), *map(Text, verdicts(summary))]
    caption = "Final success by method: interquartile mean, 95% interval, a dot per seed"
    return Section("In short", [*texts, Picture("final_success_by_method", caption, plots.intervals(summary))])


def _missing(plan: Plan, collected: Collected) -> Section:
    texts = [Text(text) for text in (*collected.missing, *collected.notes)]
    if collected.missing:
        texts.insert(0, Text(f"{len(collected.missing)} of {len(plan.runs)} runs are missing here.", warning=True))
    return Section("Missing runs and notes", texts)


def _results(summary: Summary) -> Section:
    header = [
        "method",
        "seeds",
        "IQM",
        "mean",
        "worst three tasks",
        "area under curve",
        "P(better)",
        "p",
        "seeds needed",
    ]
    rows = [
        [
            method.method,
            len(method.seeds),
            method.iqm,
            method.mean,
            f"{method.worst[0]:.2f}",
            method.area,
            method.improvement,
            None if method.p_value is None else f"{method.p_value:.3f}",
            method.seeds_needed,
        ]
        for method in summary.methods.values()
    ]
    worst = "; ".join(
        f"{method.method}: {', '.join(map(shortened, method.worst[1]))}" for method in summary.methods.values()
    )
    about = (
        f"Success of the final evaluation over {len(summary.tasks)} solvable tasks, with 95% intervals. P(better): "
        f"probability of improvement over {summary.baseline}; p: its p-value after Holm's correction. "
        f"Worst tasks: {worst}."
    )
    return Section("Results", [Text(about), Table(header, rows)])


def _learning(summary: Summary) -> Section:
    methods = summary.methods
    transitions = {name: method.over_transitions for name, method in methods.items()}
    times = {name: method.over_seconds for name, method in methods.items()}
    if not any(transitions.values()):
        return Section("Learning curves")
    first = next(iter(methods.values()))
    header = ["method", *(f"{at:,} transitions" for at in first.at_transitions), *map(duration, first.at_seconds)]
    rows = [[name, *method.at_transitions.values(), *method.at_seconds.values()] for name, method in methods.items()]
    return Section(
        "Learning curves",
        [
            Picture("success_over_transitions", "Success over transitions", plots.over_transitions(transitions)),
            Picture("success_over_training_time", "Success over training time", plots.over_time(times)),
            Text(
                "Interquartile mean at the last evaluation before a number of transitions, or before a training time."
            ),
            Table(header, rows),
        ],
    )


def _tasks(summary: Summary) -> Section:
    rows = [
        [shortened(task), *(_spread(method, number) for method in summary.methods.values())]
        for number, task in enumerate(summary.tasks)
    ]
    return Section(
        "Tasks",
        [
            Picture("final_success_per_task", "Final success per task", plots.task_bars(summary)),
            Text("Mean success, lowest and highest of the seeds, and mean return:"),
            Table(["task", *summary.methods], rows),
        ],
    )


def _spread(method: MethodSummary, task: int) -> str:
    scores = method.scores[:, task]
    return f"{scores.mean():.2f} ({scores.min():.2f}–{scores.max():.2f}), {method.returns[:, task].mean():.1f}"


def _cost(summary: Summary) -> Section:
    header = ["method", "ms an update", "of which measuring and combining", "a whole run"]
    rows = [
        [name, f"{method.update_ms:.2f}", f"{method.transference_ms:.2f}", duration(method.seconds)]
        for name, method in summary.methods.items()
    ]
    about = (
        "Times as they were: runs side by side slow each other down. Measuring for the record is included, equally for "
        "all methods."
    )
    picture = Picture("cost_of_an_update", "Cost of an update", plots.costs(summary))
    return Section("Cost", [Text(about), picture, Table(header, rows)])


def _protocol(plan: Plan, collected: Collected) -> Section:
    parts: list[Part] = []
    if plan.differences:
        parts.append(Text("The methods differ in more than the combiner: " + "; ".join(plan.differences), warning=True))
    configs = {run.method: run.planned.config for run in plan.runs}
    settings = [
        [method, ", ".join(f"{key.removeprefix('combiner.')}={value}" for key, value in method_of(config).items())]
        for method, config in configs.items()
    ]
    parts.append(Text(f"Methods, each with the seeds {', '.join(map(str, plan.config.seeds))}:"))
    parts.append(Table(["method", "combiner"], settings, words=True))
    if collected.runs:
        parts.append(Table(["protocol", ""], _card(collected.runs[0]), words=True))
    commands = [command(), *(f"python scripts/train.py {run.planned.config_file}" for run in plan.runs)]
    parts.append(Text("Commands: the comparison, and each run by hand (give another run_dir=... to keep this one)."))
    parts.append(Code("\n".join(commands)))
    return Section("Protocol", parts)


def command() -> str:
    """The command line that made this report."""
    program = Path(sys.argv[0])
    called = f"python {os.path.relpath(program)}" if program.suffix == ".py" else program.name
    return shlex.join([*called.split(), *sys.argv[1:]])


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
