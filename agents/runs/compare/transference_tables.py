"""The report's tables of what transference is worth as a measure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TypeVar

import numpy as np

from mtrl_transfer.agents.runs.compare.interaction import PHASES
from mtrl_transfer.agents.runs.compare.page import Section, Table, Text
from mtrl_transfer.agents.runs.compare.summary import Summary
from mtrl_transfer.agents.runs.compare.wording import NOTHING, number

T = TypeVar("T")


def prediction(summary: Summary) -> Section:
    """How well predicted improvements agree with realised ones, by phase and measure."""
    rows = [
        [name, what, *(number(phase) for phase in phases)]
        for name, method in summary.methods.items()
        for what, phases in method.prediction.items()
        if any(phases)
    ]
    about = (
        "Correlation, over the tasks and measurements between two logs, of the improvement predicted for the weights "
        "that were applied with what the optimizer's step did to each task's loss on the same rows: mean over logs and "
        "seeds, by thirds of training. Exact: lookahead at a gradient step, where the full set's would be as long as "
        "the last real one; first order: inner products of gradients alone."
    )
    table = Table(["method", "prediction", *PHASES], rows)
    return Section("Does predicted transference come true?", [Text(about), table] if rows else [])


def interaction(summary: Summary) -> Section:
    """Pairwise transference, and whether it repeats."""
    rows = [
        [
            *which,
            f"{found.own:.2g}",
            f"{found.others:.2g}",
            f"{found.harmful:.0%}",
            *(NOTHING if np.isnan(value) else f"{value:.2f}" for value in (found.split_half, found.between_runs)),
        ]
        for *which, found in _by_role({name: method.interaction for name, method in summary.methods.items()})
    ]
    about = (
        "Recorded pairwise transference: what a step along one task's gradient does to its own loss and to each other "
        "task's, and in how many pairs of different tasks it harms; medians of the records of each third of training. "
        "Split half: rank correlation over such pairs of every second record with the others; between runs: of two "
        "runs. Near 0, who helps whom can't be told from so many records."
    )
    header = ["method", "network", "own loss", "each other's loss", "harmful pairs", "split half", "between runs"]
    return Section("Do tasks act on each other?", [Text(about), Table(header, rows)] if rows else [])


def choices(summary: Summary) -> Section:
    """What the choices of `Transference` combiners were worth."""
    rows = [
        [*which, f"{found.seen:.2g}", f"{found.lasting:.2g}", f"{found.ahead:.0%}", f"{found.behind:.0%}"]
        for *which, found in _by_role({name: method.choices for name, method in summary.methods.items()})
    ]
    about = (
        "Recorded total transference of candidates less the full set's, before smoothing, whatever was then applied. "
        "At a decision: mean lead of the best one. Lasting: mean lead, over a third of training, of the candidate "
        "that is best there; chosen on every second record, read off the others. Chance alone gives 0. Ahead, behind: "
        "candidates whose mean lead over a third is above, or below, 0; some 2.5% each would be so by chance."
    )
    header = ["method", "network", "lead at a decision", "lasting lead", "ahead", "behind"]
    return Section("Is choosing more than chance?", [Text(about), Table(header, rows)] if rows else [])


def _by_role(methods: Mapping[str, Mapping[str, T | None]]) -> Iterator[tuple[str, str, T]]:
    """Method, role and what is known of them."""
    for name, roles in methods.items():
        for role, found in roles.items():
            if found is not None:
                yield name, role, found
