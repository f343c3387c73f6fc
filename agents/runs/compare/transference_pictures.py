"""The report's pictures of what helps what, and of what was left out, for one method."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mtrl_transfer.agents.monitoring.figures import heatmap, left_out_shares
from mtrl_transfer.agents.runs.compare.collect import ROLES, FinishedRun, History
from mtrl_transfer.agents.runs.compare.interaction import PHASES, by_phase
from mtrl_transfer.agents.runs.compare.page import Code, Picture, Section, Table, Text
from mtrl_transfer.agents.runs.compare.plots import as_svg


def transference_section(method: str, runs: Sequence[FinishedRun]) -> Section:
    """Heatmaps of transference over training and shares of updates that left a task out, averaged over seeds."""
    parts: list[Text | Code | Table | Picture] = []
    for role in ROLES:
        parts += _left_out(role, runs)
    for role in ROLES:
        parts += _heatmaps(role, runs)
    return Section(f"Transference: {method}", parts, folded=True)


def _left_out(role: str, runs: Sequence[FinishedRun]) -> list[Picture | Text]:
    histories = [run.kept[role] for run in runs if len(run.kept[role].steps)]
    if not histories:
        return []
    common = sorted(set.intersection(*({*history.steps.tolist()} for history in histories)))
    shares = 1 - np.mean([_at(history, common) for history in histories], axis=0)
    if not shares.any():
        return [Text(f"The {role} left no task out.")]
    figure = left_out_shares(common, shares, runs[0].task_names, f"Left out by the {role}")
    return [Picture(f"Which tasks the {role} left out, mean over seeds", as_svg(figure))]


def _heatmaps(role: str, runs: Sequence[FinishedRun]) -> list[Picture]:
    recorded = [run.pairwise[role] for run in runs if role in run.pairwise and len(run.pairwise[role].steps)]
    pictures = []
    for number, phase in enumerate(PHASES):
        means = [_phase(history, number) for history in recorded]
        known = [mean for mean in means if mean is not None]
        if known:
            figure = heatmap(np.mean(known, axis=0), runs[0].task_names, f"{role}, {phase}", "gives", "receives")
            pictures.append(
                Picture(f"Transference of the {role} in the {phase} of training, mean over seeds", as_svg(figure))
            )
    return pictures


def _phase(history: History, number: int) -> np.ndarray | None:
    """Mean over a third of the recorded steps ``[T, T]``; None where it is empty."""
    values = by_phase(history)[number]
    return values.mean(axis=0) if len(values) else None


def _at(history: History, steps: Sequence[int]) -> np.ndarray:
    return history.values[np.isin(history.steps, steps)]
