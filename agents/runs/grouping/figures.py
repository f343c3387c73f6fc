"""Figures of groupings: dendrogram, score over the number of networks, and predicted against realised gain."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from scipy.cluster import hierarchy

from mtrl_transfer.agents.monitoring.figures import DPI, shortened
from mtrl_transfer.grouping import linkage

WIDTH, HEIGHT = 6.4, 5.4
"""Inches, for reports."""
STEM = 0.08
"""Share of a dendrogram's width left of the closest pair, which is joined at distance 0 and would be invisible."""


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
