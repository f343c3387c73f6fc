"""The report's sections on transference: its worth as a measure, and who helps whom."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TypeVar

import numpy as np

from mtrl_transfer.agents.monitoring.figures import heatmap, left_out_shares
from mtrl_transfer.agents.runs.compare.collect import ROLES, FinishedRun
from mtrl_transfer.agents.runs.compare.interaction import PHASES, by_phase
from mtrl_transfer.agents.runs.compare.summary import Summary
from mtrl_transfer.agents.runs.report.document import Part, Picture, Section, Table, Text

T = TypeVar("T")


def prediction(summary: Summary) -> Section:
    """Agreement of predicted with realised improvements, by phase and measure."""
    rows = [
        [name, what, *phases]
        for name, method in summary.methods.items()
        for what, phases in method.prediction.items()
        if any(phases)
    ]
    about = (
        "Correlation of the improvement predicted for the applied weights with the change of each task's loss after "
        "the optimizer's step, on the same rows. It is taken over the tasks and measurements between two logs, then "
        "averaged over logs and seeds, for each third of training. Exact: lookahead at a gradient step, where the full "
        "set's step is as long as the last real one. First order: inner products of gradients alone."
    )
    header = ["method", "prediction", *PHASES]
    return _with_table("Does predicted transference come true?", about, header, rows)


def interaction(summary: Summary) -> Section:
    """Pairwise transference, and its repeatability."""
    rows = [
        [
            *which,
            f"{found.own:.2g}",
            f"{found.others:.2g}",
            f"{found.harmful:.0%}",
            *(None if np.isnan(value) else f"{value:.2f}" for value in (found.split_half, found.between_runs)),
        ]
        for *which, found in _by_role({name: method.interaction for name, method in summary.methods.items()})
    ]
    about = (
        "Recorded pairwise transference: the effect of a step along one task's gradient on that task's own loss and on "
        "every other task's loss, and the share of pairs of different tasks in which it harms. Values are medians of "
        "the records of each third of training. Split half: rank correlation, over pairs of different tasks, of every "
        "second record with the others. Between runs: the same for two runs. Near 0, these records cannot tell which "
        "task helps which."
    )
    header = ["method", "network", "own loss", "each other's loss", "harmful pairs", "split half", "between runs"]
    return _with_table("Do tasks act on each other?", about, header, rows)


def choices(summary: Summary) -> Section:
    """Worth of the choices of `Transference` combiners."""
    rows = [
        [*which, f"{found.seen:.2g}", f"{found.lasting:.2g}", f"{found.ahead:.0%}", f"{found.behind:.0%}"]
        for *which, found in _by_role({name: method.choices for name, method in summary.methods.items()})
    ]
    about = (
        "Lead of a candidate: its recorded total transference minus that of the full set, before smoothing, whichever "
        "candidate was applied. At a decision: mean lead of the best candidate. Lasting: mean lead over a third of "
        "training of the candidate that is best there; it is selected on every second record and judged on the "
        "others, so chance alone gives 0. Ahead, behind: share of candidates whose mean lead over a third is above or "
        "below 0 by a t-test; chance alone gives about 2.5% each."
    )
    header = ["method", "network", "lead at a decision", "lasting lead", "ahead", "behind"]
    return _with_table("Is choosing more than chance?", about, header, rows)


def who_helps_whom(method: str, runs: Sequence[FinishedRun]) -> Section:
    """Heatmaps of transference over training, and shares of updates that left a task out, averaged over seeds."""
    parts = [part for role in ROLES for part in _left_out(method, role, runs)]
    parts += [part for role in ROLES for part in _heatmaps(method, role, runs)]
    return Section(f"Transference: {method}", parts, folded=True)


def _with_table(title: str, about: str, header: Sequence[str], rows: Sequence[Sequence[object]]) -> Section:
    return Section(title, [Text(about), Table(header, rows)] if rows else [])


def _by_role(methods: Mapping[str, Mapping[str, T | None]]) -> Iterator[tuple[str, str, T]]:
    """Yield method, role and what is known of them."""
    for name, roles in methods.items():
        for role, found in roles.items():
            if found is not None:
                yield name, role, found


def _left_out(method: str, role: str, runs: Sequence[FinishedRun]) -> list[Part]:
    histories = [run.kept[role] for run in runs if len(run.kept[role].steps)]
    if not histories:
        return []
    common = sorted(set.intersection(*({*history.steps.tolist()} for history in histories)))
    kept = [history.values[np.isin(history.steps, common)] for history in histories]
    shares = 1 - np.mean(kept, axis=0)
    if not shares.any():
        return [Text(f"The {role} left no task out.")]
    figure = left_out_shares(common, shares, runs[0].task_names, f"Left out by the {role}")
    return [Picture(f"{method}_{role}_left_out", f"Tasks that the {role} left out, mean over seeds", figure)]


def _heatmaps(method: str, role: str, runs: Sequence[FinishedRun]) -> list[Part]:
    recorded = [by_phase(run.pairwise[role]) for run in runs if role in run.pairwise]
    pictures: list[Part] = []
    for phase, histories in zip(PHASES, zip(*recorded, strict=True), strict=False):
        means = [values.mean(axis=0) for values in histories if len(values)]
        if means:
            figure = heatmap(np.mean(means, axis=0), runs[0].task_names, f"{role}, {phase}", "gives", "receives")
            caption = f"Transference of the {role} in the {phase} of training, mean over seeds"
            pictures.append(Picture(f"{method}_{role}_{phase.replace(' ', '_')}", caption, figure))
    return pictures
