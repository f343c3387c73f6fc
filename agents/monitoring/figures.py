"""Figures of transference: pairwise, tasks left out, predicted against realised.

TensorBoard shows an image about 350 pixels wide and without smoothing, so figures are drawn at that size, with few
digits and large letters, on a white ground also in dark mode.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, FixedLocator, MaxNLocator

WIDTH, HEIGHT, DPI = 4.2, 4.2, 82
"""Inches and dots."""
FEW = 10
"""Largest number of tasks that colours can tell apart and a small figure can name."""
INCHES_PER_TASK = 0.16
"""Size of a larger heatmap, which TensorBoard shows whole after a click."""


def heatmap(matrix: np.ndarray, names: Sequence[str], title: str, rows: str, columns: str) -> Figure:
    """A matrix ``[T, T]``, coloured symmetrically about zero: blue helps, red harms.

    The diagonal and missing values are grey: a task's effect on itself would outshine all others. Up to `FEW`
    tasks the cells hold their numbers, as whole multiples of a power of ten that the title names.

    Args:
        matrix: ``[T, T]``.
        names: task names.
        title: title of the figure.
        rows: label of the rows.
        columns: label of the columns.
    """
    few = len(names) <= FEW
    size = WIDTH if few else 2.0 + INCHES_PER_TASK * len(names)
    figure, axes = _axes(size, size)
    matrix = np.where(np.eye(len(names), dtype=bool), np.nan, matrix)
    limit = float(np.nanmax(np.abs(matrix), initial=1e-12))
    image = axes.imshow(matrix, cmap=colormaps["RdBu"].with_extremes(bad="0.85"), vmin=-limit, vmax=limit)
    letters = 9 if few else 8
    short = [shortened(name) for name in names]
    axes.set_xticks(range(len(names)), short, rotation=50, ha="right", rotation_mode="anchor", fontsize=letters)
    axes.set_yticks(range(len(names)), short, fontsize=letters)
    axes.set(ylabel=rows, xlabel=columns)
    if few:
        title += f",\nin {_write_cells(axes, matrix, limit)}"
    else:
        figure.colorbar(image, shrink=0.6)
    figure.suptitle(title, fontsize=10)
    return figure


def left_out_shares(steps: Sequence[int], shares: np.ndarray, names: Sequence[str], title: str) -> Figure:
    """Shares of updates that left each task out, stacked over time; beyond `FEW` tasks the smallest are summed.

    Args:
        steps: ``n`` counts of transitions.
        shares: ``[n, T]``, share of updates since the previous step that left the task out.
        names: task names.
        title: title of the figure.
    """
    figure, axes = _axes(WIDTH, HEIGHT + 0.2)
    shares, labels = _most_left_out(shares, [shortened(name) for name in names])
    colours = [_colour(task) for task in range(len(labels))]
    if len(steps) > 1:
        axes.stackplot(steps, shares.T, labels=labels, colors=colours)
    else:
        width = max(steps[0] / 20, 1)
        for share, below, label, colour in zip(shares[0], shares[0].cumsum() - shares[0], labels, colours, strict=True):
            axes.bar(steps[0], share, width, below, label=label, color=colour)
    axes.xaxis.set_major_locator(MaxNLocator(5) if len(steps) > 1 else FixedLocator(steps))
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.set_title(f"{title}: tasks per update, stacked", fontsize=10)
    axes.set(xlabel="transitions")
    _legend(figure)
    return figure


def scatter(predicted: np.ndarray, realised: np.ndarray, names: Sequence[str], title: str) -> Figure:
    """Predicted against realised improvement, one point per task and measurement: ``[n, T]`` each."""
    few = len(names) <= FEW
    figure, axes = _axes(WIDTH, HEIGHT + (0.6 if few else 0.0))
    for task, name in enumerate(names):
        colour = _colour(task if few else 0)
        axes.scatter(predicted[:, task], realised[:, task], s=12, alpha=0.6, color=colour, label=shortened(name))
    # The middle 98%: a few outliers would squeeze all others into a point.
    values = np.concatenate([predicted.ravel(), realised.ravel()])
    low, high = np.quantile(values, [0.01, 0.99])
    margin = 0.05 * (high - low) + 1e-12
    limits = (low - margin, high + margin)
    axes.plot(limits, limits, color="grey", linewidth=1, zorder=0)
    axes.axhline(0, color="lightgrey", linewidth=1, zorder=0)
    axes.axvline(0, color="lightgrey", linewidth=1, zorder=0)
    axes.set(xlabel="predicted improvement", ylabel="realised", xlim=limits, ylim=limits)
    axes.set_title(title, fontsize=10)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(4))
    if few:
        _legend(figure)
    return figure


def shortened(name: str) -> str:
    """A task's name without Meta-World's version suffix."""
    return name.removesuffix("-v3")


def _axes(width: float, height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained")
    axes = figure.add_subplot()
    axes.tick_params(labelsize=9)
    axes.xaxis.label.set_fontsize(10)
    axes.yaxis.label.set_fontsize(10)
    return figure, axes


def _write_cells(axes: Axes, matrix: np.ndarray, limit: float) -> str:
    """Write the numbers as whole multiples of a unit, such that the largest has two digits (or is 100)."""
    power = int(np.ceil(np.log10(limit) - 1e-6)) - 2
    for (row, column), value in np.ndenumerate(matrix):
        if np.isfinite(value):
            colour = "white" if abs(value) > 0.6 * limit else "black"
            text = f"{value / 10.0**power:.0f}".replace("-0", "0")
            axes.text(column, row, text, ha="center", va="center", fontsize=9, color=colour)
    return {-2: "%", -3: "‰", 0: "1"}.get(power, f"$10^{{{power}}}$")


def _most_left_out(shares: np.ndarray, names: list[str]) -> tuple[np.ndarray, list[str]]:
    if len(names) <= FEW:
        return shares, names
    order = np.argsort(-shares.mean(axis=0), kind="stable")
    first, others = order[: FEW - 1], order[FEW - 1 :]
    summed = shares[:, others].sum(axis=1, keepdims=True)
    return np.hstack([shares[:, first], summed]), [*(names[task] for task in first), f"{len(others)} others"]


def _colour(task: int) -> tuple[float, ...]:
    return colormaps["tab10"](task % FEW)


def _legend(figure: Figure) -> None:
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, fontsize=9, ncols=2, loc="outside lower center", handlelength=1.2, columnspacing=1)
