"""Figures of a comparison."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, MaxNLocator

from mtrl_transfer.agents.monitoring.figures import heatmap, left_out_shares, shortened
from mtrl_transfer.agents.mtsac.roles import ROLES
from mtrl_transfer.agents.runs.compare.collect import FinishedRun
from mtrl_transfer.agents.runs.compare.interaction import PHASES, by_phase
from mtrl_transfer.agents.runs.compare.statistics import iqm
from mtrl_transfer.agents.runs.compare.summary import Band, Summary

WIDTH, HEIGHT = 5.6, 3.4
"""Inches. Narrow, so that text stays legible when a phone scales the picture down."""
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8C8C00", "#999999", "#6A3D9A")
"""Okabe and Ito's palette and more, which the colour-blind can tell apart."""
MARKERS = "osD^vP*X<>"


def figures(summary: Summary, runs: Sequence[FinishedRun]) -> dict[str, Figure]:
    """All figures of a comparison by name; empty without a finished run."""
    if not summary.methods:
        return {}
    drawn = {
        "final_success_by_method": intervals(summary),
        "final_success_per_task": task_bars(summary),
    }
    transitions = {name: method.over_transitions for name, method in summary.methods.items()}
    if any(transitions.values()):
        drawn["success_over_transitions"] = over_transitions(transitions)
        times = {name: method.over_seconds for name, method in summary.methods.items()}
        drawn["success_over_training_time"] = over_time(times)
    for method in summary.methods:
        own = [run for run in runs if run.method == method]
        for role in ROLES:
            drawn |= {f"{method}_{role}_{name}": figure for name, figure in transference(own, role).items()}
    return drawn


def transference(runs: Sequence[FinishedRun], role: str) -> dict[str, Figure]:
    """Shares of updates that left a task out, and heatmaps of transference by phase; means over one method's runs."""
    drawn, names = {}, runs[0].task_names
    kept = [run.kept[role] for run in runs if len(run.kept[role].steps)]
    if kept:
        common = sorted(set.intersection(*({*history.steps.tolist()} for history in kept)))
        shares = 1 - np.mean([history.values[np.isin(history.steps, common)] for history in kept], axis=0)
        if shares.any():
            drawn["left_out"] = left_out_shares(common, shares, names, f"Left out by the {role}")
    recorded = [by_phase(run.pairwise[role]) for run in runs if role in run.pairwise]
    for number, phase in enumerate(PHASES):
        means = [phases[number].mean(axis=0) for phases in recorded if len(phases[number])]
        if means:
            figure = heatmap(np.mean(means, axis=0), names, f"{role}, {phase}", "gives", "receives")
            drawn[phase.replace(" ", "_")] = figure
    return drawn


def intervals(summary: Summary) -> Figure:
    """Interquartile mean of each method with its interval, and a dot per seed."""
    figure, axes = _axes(1.0 + 0.42 * len(summary.methods))
    axes.set_yticks(range(len(summary.methods)), list(summary.methods))
    axes.set_ylim(len(summary.methods) - 0.5, -0.5)
    for row, method in enumerate(summary.methods.values()):
        colour = _cycled(COLOURS, row)
        axes.plot(method.iqm[1:], [row, row], color=colour, linewidth=7, alpha=0.35, solid_capstyle="butt")
        axes.plot(method.iqm.value, row, "|", color=colour, markersize=17, markeredgewidth=3)
        seeds = iqm(method.scores[:, None, :])
        axes.plot(seeds, np.full(len(seeds), row), "o", color=colour, markersize=4, alpha=0.8)
    axes.set_xlabel("final success, interquartile mean")
    axes.xaxis.set_major_locator(MaxNLocator(6))
    axes.grid(axis="x", alpha=0.3)
    return figure


def over_transitions(bands: Mapping[str, Band | None]) -> Figure:
    """Learning curves with intervals over transitions, one per method."""
    figure, axes = _curves(bands, "transitions", 1.0, line={})
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    return figure


def over_time(bands: Mapping[str, Band | None]) -> Figure:
    """Learning curves with intervals over minutes of training; a value holds until the next evaluation."""
    return _curves(bands, "minutes of training", 1 / 60, line={"drawstyle": "steps-post"}, step="post")[0]


def task_bars(summary: Summary) -> Figure:
    """Final success per task: a bar per method, a dot per seed."""
    n_methods, n_tasks = len(summary.methods), len(summary.tasks)
    figure, axes = _axes(1.0 + n_tasks * (0.16 * n_methods + 0.12))
    thickness = 0.8 / n_methods
    for number, (name, method) in enumerate(summary.methods.items()):
        rows = np.arange(n_tasks) - 0.4 + (number + 0.5) * thickness
        colour = _cycled(COLOURS, number)
        axes.barh(rows, method.scores.mean(axis=0), thickness * 0.9, color=colour, alpha=0.55, label=name)
        axes.plot(method.scores.T, rows, ".", color=colour, markersize=5)
    axes.set_yticks(range(n_tasks), [shortened(task) for task in summary.tasks])
    axes.set(xlabel="final success: mean, and each seed", xlim=(0, 1.02), ylim=(n_tasks - 0.5, -0.5))
    axes.grid(axis="x", alpha=0.3)
    _legend_above(axes)
    return figure


def _curves(
    bands: Mapping[str, Band | None], x_label: str, scale: float, line: Mapping[str, Any], **area: Any
) -> tuple[Figure, Axes]:
    figure, axes = _axes(HEIGHT)
    for number, (method, band) in enumerate(bands.items()):
        if band is None:
            continue
        x, colour = scale * band.x, _cycled(COLOURS, number)
        marker = _cycled(MARKERS, number) if len(x) < 25 else ""
        axes.plot(x, band.value, color=colour, marker=marker, markersize=4, label=method, **line)
        axes.fill_between(x, band.low, band.high, color=colour, alpha=0.15, linewidth=0, **area)
    axes.xaxis.set_major_locator(MaxNLocator(6))
    axes.set(xlabel=x_label, ylabel="success (IQM)", ylim=(-0.02, 1.02))
    axes.grid(alpha=0.3)
    _legend_above(axes)
    return figure, axes


def _axes(height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _cycled(values: Sequence[str], number: int) -> str:
    return values[number % len(values)]


def _legend_above(axes: Axes) -> None:
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=3, frameon=False, borderaxespad=0.2)
