"""The study of groups as a report and in TensorBoard."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from torch.utils.tensorboard import SummaryWriter

from mtrl_transfer.agents.monitoring.figures import heatmap
from mtrl_transfer.agents.runs.grouping.choose import TOGETHER
from mtrl_transfer.agents.runs.grouping.figures import dendrogram, over_groups, predicted_and_realised
from mtrl_transfer.agents.runs.grouping.history import AffinityHistory
from mtrl_transfer.agents.runs.grouping.results import Results
from mtrl_transfer.agents.runs.report.document import Report, digits, table

TEMPLATE = Path(__file__).with_name("report.md.jinja")
EVENTS = "report"
"""Folder of TensorBoard's events."""


def write_report(results: Results, history: AffinityHistory) -> Path:
    """Write ``report.html``, ``report.md``, the figures and TensorBoard's events.

    Args:
        results: results of all groupings.
        history: affinity of the joint run.

    Returns:
        The HTML page.
    """
    names = results.choices.names
    ranks = zip(names, results.rank_correlation().tolist(), strict=True)
    figures = _figures(results, history)
    values = {
        **{"config": results.plan.config, "options": results.plan.options, "names": names, "digits": digits},
        "named": lambda groups: _named(names, groups),
        "results": list(_rows(results)),
        "ranks": {name: rank for name, rank in ranks if np.isfinite(rank)},
        "per_task": _per_task(results),
        "selections": results.choices.selections,
        "reliabilities": results.choices.reliabilities,
    }
    folder = results.plan.folder
    _write_events(folder / EVENTS, results, figures)
    return Report(TEMPLATE, values, figures).write(folder)


def _figures(results: Results, history: AffinityHistory) -> dict[str, Figure]:
    figures, names = {}, history.names
    for name, affinity in results.choices.affinities.items():
        figures[f"affinity_{name}"] = heatmap(affinity, names, f"Affinity: {name}", "gives", "receives")
        figures[f"dendrogram_{name}"] = dendrogram(affinity, names, f"Dendrogram: {name}")
    lines = {name: [row["score"] for row in rows] for name, rows in results.choices.selections.items()}
    figures["score"] = over_groups(lines, "Total affinity of the chosen groups", "standard deviations")
    figures["predicted_realised"] = predicted_and_realised(
        results.predicted, results.gains, names, "Predicted and realised gain", "return beyond all together's"
    )
    return figures


def _rows(results: Results) -> Iterator[tuple[object, ...]]:
    """Label, groups, mean success, its range over seeds, transitions and steps of each grouping."""
    for candidate in results.choices.candidates:
        label, success = candidate.label, results.mean_success(candidate.label)
        spread = f"{success.min():.2f}–{success.max():.2f}"
        steps = f"{results.updates(label):,}"
        yield label, candidate.grouping.groups, success.mean(), spread, results.transitions(label), steps
    for number in sorted(set(results.plan.options.n_groups)):
        best = results.best_found(number)
        if best is not None:
            groups = best[0].groups
            transitions = sum(map(len, groups)) * results.updates(TOGETHER)
            yield f"best found in hindsight, {number}", groups, best[1], None, transitions, None


def _per_task(results: Results) -> str:
    rows = []
    for candidate in results.choices.candidates:
        means = (results.values(candidate.label, name).mean(axis=0) for name in ("success", "return"))
        rows.append([candidate.label, *(f"{s:.2f} ({r:.1f})" for s, r in zip(*means, strict=True))])
    return table(("grouping", *results.choices.names), rows)


def _named(names: tuple[str, ...], groups: Iterable[Iterable[int]]) -> str:
    return "; ".join(", ".join(names[task] for task in group) for group in groups)


def _write_events(folder: Path, results: Results, figures: dict[str, Figure]) -> None:
    """Write figures, the score by the number of networks, and each grouping's mean success by the same number."""
    shutil.rmtree(folder, ignore_errors=True)  # of an earlier report
    with SummaryWriter(str(folder)) as writer:
        for name, figure in figures.items():
            writer.add_figure(f"groups/{name}", figure, close=False)
        for name, rows in results.choices.selections.items():
            for row in rows:
                writer.add_scalar(f"groups_score/{name}", row["score"], row["n_groups"])
        for candidate in results.choices.candidates:
            method = candidate.label.rpartition("_")[0] if candidate.label[-1].isdigit() else candidate.label
            success = float(results.mean_success(candidate.label).mean())
            writer.add_scalar(f"groups_success/{method}", success, len(candidate.grouping.groups))
