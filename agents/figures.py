"""Figures of transference: what helps what, what was left out, what was predicted and what happened."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, MaxNLocator

WIDTH, HEIGHT, DPI = 6.4, 5.4, 100
"""Inches and dots: about what TensorBoard shows an image at without scaling. The ground is light, also in dark mode."""


def heatmap(matrix: np.ndarray, names: Sequence[str], title: str, rows: str, columns: str) -> Figure:
    """A matrix ``[T, T]`` with its numbers, coloured symmetrically about zero: blue helps, red harms.

    Args:
        matrix: ``[T, T]``.
        names: of the tasks.
        title: above.
        rows: what a row is.
        columns: what a column is.
    """
    figure = Figure(figsize=(WIDTH, HEIGHT), dpi=DPI, layout="constrained")
    axes = figure.add_subplot()
    limit = float(np.nanmax(np.abs(matrix), initial=1e-12))
    image = axes.imshow(matrix, cmap="RdBu", vmin=-limit, vmax=limit)
    short = [shortened(name) for name in names]
    axes.set_xticks(range(len(names)), short, rotation=40, ha="right", fontsize=9)
    axes.set_yticks(range(len(names)), short, fontsize=9)
    axes.set(title=title, ylabel=rows, xlabel=columns)
    if len(names) <= 12:
        for (row, column), value in np.ndenumerate(matrix):
            colour = "white" if abs(value) > 0.6 * limit else "black"
            axes.text(column, row, _two_digits(value), ha="center", va="center", fontsize=7, color=colour)
    figure.colorbar(image, shrink=0.8)
    return figure


def left_out_shares(steps: Sequence[int], shares: np.ndarray, names: Sequence[str], title: str) -> Figure:
    """How often each task was left out over time, stacked.

    Args:
        steps: ``n`` counts of transitions.
        shares: ``[n, T]``, share of updates since the previous step that left the task out.
        names: of the tasks.
        title: above.
    """
    figure = Figure(figsize=(WIDTH, HEIGHT), dpi=DPI, layout="constrained")
    axes = figure.add_subplot()
    colours = [colormaps["tab20"](task % 20) for task in range(len(names))]
    if len(steps) > 1:
        axes.stackplot(steps, shares.T, labels=names, colors=colours)
        axes.xaxis.set_major_locator(MaxNLocator(6))
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    else:
        axes.bar([0], shares[0].sum(), color="none")
        axes.bar(names, shares[0], color=colours)
        axes.tick_params(axis="x", rotation=40)
    axes.set(title=title, xlabel="transitions", ylabel="share of updates, summed over tasks")
    handles, labels = axes.get_legend_handles_labels()
    if handles:
        axes.legend(handles[::-1], labels[::-1], fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


def scatter(predicted: np.ndarray, realised: np.ndarray, names: Sequence[str], title: str) -> Figure:
    """Predicted against realised improvement, one point per task and measurement: ``[n, T]`` each."""
    figure = Figure(figsize=(WIDTH, HEIGHT), dpi=DPI, layout="constrained")
    axes = figure.add_subplot()
    for task, name in enumerate(names):
        colour = colormaps["tab20"](task % 20)
        axes.scatter(predicted[:, task], realised[:, task], s=10, alpha=0.6, color=colour, label=name)
    # The middle 98%: a few outliers would squeeze all others into a point.
    values = np.concatenate([predicted.ravel(), realised.ravel()])
    low, high = np.quantile(values, [0.01, 0.99])
    margin = 0.05 * (high - low) + 1e-12
    limits = (low - margin, high + margin)
    axes.plot(limits, limits, color="grey", linewidth=1, zorder=0)
    axes.axhline(0, color="lightgrey", linewidth=1, zorder=0)
    axes.axvline(0, color="lightgrey", linewidth=1, zorder=0)
    axes.set(title=title, xlabel="predicted transference", ylabel="realised", xlim=limits, ylim=limits)
    axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


def shortened(name: str) -> str:
    """A task's name without Meta-World's version suffix."""
    return name.removesuffix("-v3")


def _two_digits(value: float) -> str:
    return f"{value:.2f}" if abs(value) >= 0.095 or value == 0 else f"{value:.0e}".replace("e-0", "e-")
