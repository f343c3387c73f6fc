"""Figures of groupings: affinity beside gains, dendrogram, score over networks, predicted against realised gain."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator
from scipy.cluster import hierarchy

from mtrl_transfer.agents.monitoring.figures import DPI, shortened
from mtrl_transfer.grouping import Grouping, linkage, standardized

WIDTH, HEIGHT = 6.4, 5.4
"""Inches, for reports."""
STEM = 0.08
"""Share of a dendrogram's width left of the closest pair, which is joined at distance 0 and would be invisible."""


def groups_and_gains(
    affinity: np.ndarray, names: Sequence[str], grouping: Grouping, success: Mapping[str, np.ndarray], title: str
) -> Figure:
    """Draw affinity with the tasks ordered by group, and beside it each task's success as an arrow.

    Args:
        affinity: `[T giver, T receiver]`; a row of the picture shows what one task receives, standardized.
        names: names of the tasks.
        grouping: groups that are outlined; a task is placed in the one that serves it.
        success: `[T]` by label; arrows lead from the first to the last.
        title: title of the figure.
    """
    order = sorted(range(len(names)), key=lambda task: (grouping.assignment[task], task))
    short, places = [shortened(names[task]) for task in order], np.arange(len(names))
    size = max(HEIGHT * 0.8, 0.34 * len(names) + 1.6)
    figure = Figure(figsize=(size * 1.8, size), dpi=DPI, layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=(3, 2))
    received = standardized(affinity).T[np.ix_(order, order)]
    np.fill_diagonal(received, np.nan)
    limit = float(np.nanmax(np.abs(received), initial=1e-12))
    image = left.imshow(received, cmap=colormaps["RdBu"].with_extremes(bad="0.85"), vmin=-limit, vmax=limit)
    left.set_xticks(places, short, rotation=50, ha="right", rotation_mode="anchor", fontsize=8)
    left.set_yticks(places, short, fontsize=8)
    left.set(xlabel="gives", ylabel="receives")
    figure.colorbar(image, ax=left, location="left", shrink=0.6, label="affinity (standard deviations)")
    for index in set(grouping.assignment):
        served = [place for place, task in enumerate(order) if grouping.assignment[task] == index]
        corner, side = served[0] - 0.5, len(served)
        left.add_patch(Rectangle((corner, corner), side, side, fill=False, linewidth=2))
    rows = [values[order] for values in success.values()]
    for place, (start, end) in enumerate(zip(rows[0], rows[-1], strict=True)):
        colour = "tab:blue" if end > start else "tab:red"
        arrow = {"arrowstyle": "->", "color": colour, "linewidth": 1.8, "shrinkA": 0, "shrinkB": 0}
        if end != start:
            right.annotate("", (end, place), (start, place), arrowprops=arrow)
    for (label, values), marker in zip(success.items(), "o|D", strict=False):
        right.plot(values[order], places, marker, color="0.2", markersize=8, fillstyle="none", label=label)
    right.set(xlim=(-0.05, 1.05), xlabel="success")
    right.grid(axis="x", color="0.9")
    right.legend(fontsize=8, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=1)
    figure.suptitle(title, fontsize=10)
    return figure


def dendrogram(affinity: np.ndarray, names: Sequence[str], title: str) -> Figure:
    """Draw tasks joined by mutual affinity `[T, T]`, the closest first; see `mtrl_transfer.grouping.linkage`."""
    figure = Figure(figsize=(WIDTH, HEIGHT * 0.7), dpi=DPI, layout="constrained")
    axes = figure.add_subplot()
    tree = linkage(affinity)
    widest = float(tree[-1, 2]) or 1.0
    tree[:, 2] += STEM * widest
    short = [shortened(name) for name in names]
    hierarchy.dendrogram(tree, ax=axes, labels=short, orientation="right", color_threshold=0)
    ticks = [tick for tick in MaxNLocator(5).tick_values(0.0, widest) if tick <= widest]
    axes.set_xticks([tick + STEM * widest for tick in ticks], [f"{tick:g}" for tick in ticks])
    axes.set(title=title, xlabel="beyond the closest pair (standard deviations of affinity)")
    return figure


def over_groups(lines: Mapping[str, Sequence[float]], title: str, ylabel: str) -> Figure:
    """Draw one line per method over the number of groups, 1 to T."""
    figure = Figure(figsize=(WIDTH, HEIGHT * 0.8), dpi=DPI, layout="constrained")
    axes = figure.add_subplot()
    for (name, values), marker in zip(lines.items(), "osv^Dx*", strict=False):
        axes.plot(range(1, len(values) + 1), values, marker=marker, label=name)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set(title=title, xlabel="groups (networks), at most", ylabel=ylabel)
    axes.legend(fontsize=8)
    return figure


def predicted_and_realised(
    predicted: np.ndarray, realised: np.ndarray, names: Sequence[str], title: str, ylabel: str
) -> Figure:
    """Draw one point per task and group: `[n, T]` each, nan where there is none."""
    figure = Figure(figsize=(WIDTH, HEIGHT), dpi=DPI, layout="constrained")
    axes = figure.add_subplot()
    for task, name in enumerate(names):
        axes.scatter(predicted[:, task], realised[:, task], s=14, alpha=0.7, label=shortened(name))
    axes.axhline(0, color="lightgrey", linewidth=1, zorder=0)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.set(title=title, xlabel="predicted: mean affinity from the mates", ylabel=ylabel)
    axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure
