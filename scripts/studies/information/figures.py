"""Curves of transfer with their intervals."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure

from studies.information.sweeps import Curve
from studies.supervised.statistics import interval


def curves(found: Sequence[Curve], title: str, condition: str, log: bool = False) -> Figure:
    """Mean transfer over trials, with 95% intervals, over a sweep's condition.

    Args:
        found: of one sweep.
        title: above.
        condition: what is swept.
        log: whether the condition is drawn to a logarithmic scale.
    """
    figure = Figure(figsize=(6.4, 4.2), dpi=100, layout="constrained")
    axes = figure.add_subplot()
    for number, curve in enumerate(found):
        estimates = np.array([interval(values) for values in curve.values])
        colour = colormaps["tab10"](number)
        axes.plot(curve.points, estimates[:, 0], marker="o", markersize=4, color=colour, label=curve.name)
        axes.fill_between(curve.points, estimates[:, 1], estimates[:, 2], color=colour, alpha=0.2, linewidth=0)
    axes.axhline(0, color="grey", linewidth=1, zorder=0)
    if log:
        axes.set_xscale("log")
    axes.set(title=title, xlabel=condition, ylabel="transfer: ln(single / multi-task error)")
    axes.legend(fontsize=8)
    return figure
