"""The report's pictures, as SVG."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Literal

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, MaxNLocator

from mtrl_transfer.agents.monitoring.figures import shortened
from mtrl_transfer.agents.runs.compare.statistics import iqm
from mtrl_transfer.agents.runs.compare.summary import THRESHOLDS, Band, MethodSummary, Summary

WIDTH, HEIGHT = 5.6, 3.4
"""Inches. Narrow, so that text stays legible when a phone scales the picture down."""
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8C8C00", "#999999", "#6A3D9A")
"""Okabe and Ito's, told apart by the colour-blind too."""
MARKERS = "osD^vP*X<>"


def intervals(summary: Summary) -> str:
    """Interquartile mean of each method with its interval, a dot per seed."""
    figure, axes = _figure(0.9 + 0.42 * len(summary.methods))
    for row, (colour, method) in enumerate(_coloured(summary)):
        low, high = method.iqm.low, method.iqm.high
        axes.plot([low, high], [row, row], color=colour, linewidth=7, alpha=0.35, solid_capstyle="butt")
        axes.plot(method.iqm.value, row, "|", color=colour, markersize=17, markeredgewidth=3)
        seeds = iqm(method.scores[:, None, :])
        axes.plot(seeds, np.full(len(seeds), row), "o", color=colour, markersize=4, alpha=0.8)
    axes.set_yticks(range(len(summary.methods)), list(summary.methods))
    axes.set_ylim(len(summary.methods) - 0.5, -0.5)
    axes.set_xlabel("final success, interquartile mean")
    axes.xaxis.set_major_locator(MaxNLocator(6))
    axes.grid(axis="x", alpha=0.3)
    return _svg(figure)


def curves(bands: Mapping[str, Band | None], x_label: str, in_minutes: bool = False) -> str:
    """Learning curves with bands, one per method."""
    figure, axes = _figure(HEIGHT)
    for number, (method, band) in enumerate(bands.items()):
        if band is None:
            continue
        colour = COLOURS[number % len(COLOURS)]
        x = band.x / 60 if in_minutes else band.x
        marker = MARKERS[number % len(MARKERS)] if len(x) < 25 else ""
        # Over time, a value holds until the next evaluation.
        line = "steps-post" if in_minutes else "default"
        area: Literal["post"] | None = "post" if in_minutes else None
        axes.plot(x, band.value, color=colour, marker=marker, markersize=4, label=method, drawstyle=line)
        axes.fill_between(x, band.low, band.high, color=colour, alpha=0.15, linewidth=0, step=area)
    axes.xaxis.set_major_locator(MaxNLocator(6))
    if not in_minutes:
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.set(xlabel=x_label, ylabel="success (IQM)", ylim=(-0.02, 1.02))
    axes.grid(alpha=0.3)
    _legend_above(axes, len(bands))
    return _svg(figure)


def task_bars(summary: Summary) -> str:
    """Final success per task: a bar per method, a dot per seed."""
    n_methods, n_tasks = len(summary.methods), len(summary.tasks)
    figure, axes = _figure(1.0 + n_tasks * (0.16 * n_methods + 0.12))
    thickness = 0.8 / n_methods
    for number, (colour, method) in enumerate(_coloured(summary)):
        rows = np.arange(n_tasks) - 0.4 + (number + 0.5) * thickness
        axes.barh(rows, method.scores.mean(axis=0), thickness * 0.9, color=colour, alpha=0.55, label=method.method)
        seeds = np.broadcast_to(rows, method.scores.shape)
        axes.plot(method.scores.ravel(), seeds.ravel(), ".", color=colour, markersize=5)
    axes.set_yticks(range(n_tasks), [shortened(task) for task in summary.tasks])
    axes.set(xlabel="final success: mean, and each seed", xlim=(0, 1.02), ylim=(n_tasks - 0.5, -0.5))
    axes.grid(axis="x", alpha=0.3)
    _legend_above(axes, n_methods)
    return _svg(figure)


def profiles(summary: Summary) -> str:
    """Share of all scores that reach a success of at least so much."""
    figure, axes = _figure(HEIGHT)
    for colour, method in _coloured(summary):
        axes.step(THRESHOLDS, method.profile, where="post", color=colour, label=method.method)
    axes.set(xlabel="success of at least", ylabel="share of seeds × tasks", xlim=(0, 1), ylim=(-0.02, 1.02))
    axes.grid(alpha=0.3)
    _legend_above(axes, len(summary.methods))
    return _svg(figure)


def costs(summary: Summary) -> str:
    """Milliseconds of one update, by part."""
    figure, axes = _figure(1.1 + 0.42 * len(summary.methods))
    methods = list(summary.methods.values())
    rows = np.arange(len(methods))
    extra = np.array([method.transference_ms for method in methods])
    plain = np.array([method.update_ms for method in methods]) - extra
    axes.barh(rows, plain, 0.6, color="#9AA5B1", label="update")
    axes.barh(rows, extra, 0.6, left=plain, color="#D55E00", label="measuring and combining")
    axes.set_yticks(rows, list(summary.methods))
    axes.set_ylim(len(methods) - 0.5, -0.5)
    axes.set_xlabel("milliseconds of an update")
    _legend_above(axes, 2)
    return _svg(figure)


def as_svg(figure: Figure) -> str:
    """A figure drawn elsewhere, such as :func:`mtrl_transfer.agents.monitoring.figures.heatmap`."""
    return _svg(figure)


def _figure(height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    axes = figure.add_subplot()
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    return figure, axes


def _coloured(summary: Summary) -> Sequence[tuple[str, MethodSummary]]:
    return [(COLOURS[i % len(COLOURS)], method) for i, method in enumerate(summary.methods.values())]


def _legend_above(axes: Axes, entries: int) -> None:
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=min(entries, 3), frameon=False, borderaxespad=0.2)


def _svg(figure: Figure) -> str:
    buffer = io.StringIO()
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "report"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()
