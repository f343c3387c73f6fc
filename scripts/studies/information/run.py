"""The study of information transfer, from settings to report."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from rich.console import Console
from rich.markdown import Markdown

from mtrl_transfer.agents.runs.config.loading import section
from mtrl_transfer.agents.runs.errors import InputError
from mtrl_transfer.agents.runs.report.document import Report, digits, table
from mtrl_transfer.agents.runs.report.numbers import mean_with_interval, write_json
from mtrl_transfer.agents.runs.run_folder import folder_problems
from mtrl_transfer.agents.runs.torch_settings import torch_settings
from studies.information import sweeps
from studies.information.sweeps import Curve, Settings

TEMPLATE = Path(__file__).with_name("report.md.jinja")
ANGLE = "angle of the source's covariance (degrees)"
SWEEPS: dict[str, tuple[Callable[[Settings], list[Curve]], str]] = {
    "capacity": (sweeps.capacity, "width of the trunk"),
    "similarity_linear": (sweeps.similarity_linear, ANGLE),
    "similarity_relu": (sweeps.similarity_relu, ANGLE),
    "reweighting": (sweeps.reweighting, "label noise of the noisy tasks"),
}
"""Each sweep with the condition that it varies."""


@torch_settings(threads=1)  # the products are too small for more
def report(overrides: Sequence[str], console: Console) -> Path:
    """Run the synthetic study that ``key=value`` overrides describe.

    Returns:
        The folder with ``report.html``, ``report.md``, its figures and ``results.json``.

    Raises:
        InputError: for a bad setting, or a folder that cannot be written to.
    """
    settings = section(Settings, overrides)
    folder = Path(settings.out)
    if problems := folder_problems("out", folder):
        raise InputError(problems)
    found = {name: sweep(settings) for name, (sweep, _) in SWEEPS.items()}
    made = _report(settings, found)
    made.write(folder)
    results = {
        name: {curve.name: {"points": curve.points, "transfer": curve.values} for curve in curves}
        for name, curves in found.items()
    }
    write_json(folder / "results.json", results)
    console.print(Markdown(made.markdown))
    console.print(f"Written to {folder}", highlight=False, soft_wrap=True)
    return folder


def _report(settings: Settings, found: Mapping[str, Sequence[Curve]]) -> Report:
    widths = {"linear": sweeps.LINEAR_WIDTH, "relu": sweeps.RELU_WIDTH}
    values = {
        **{"settings": settings, "sweeps": sweeps, "digits": digits},
        "similarity": {name: sweeps.similarities(settings, width) for name, width in widths.items()},
        "tables": {name: _table(SWEEPS[name][1], curves) for name, curves in found.items()},
    }
    figures = {name: _draw(SWEEPS[name][1], curves) for name, curves in found.items()}
    figures["reweighting"].axes[0].set_xscale("log")
    return Report(TEMPLATE, values, figures)


def _table(condition: str, curves: Sequence[Curve]) -> str:
    points = [f"{point:g}" for point in curves[0].points]
    columns = [map(mean_with_interval, curve.values) for curve in curves]
    return table([condition, *(curve.name for curve in curves)], zip(points, *columns, strict=True))


def _draw(condition: str, curves: Sequence[Curve]) -> Figure:
    """Mean transfer over trials, with 95% intervals, over a sweep's condition."""
    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    axes = figure.add_subplot()
    for curve in curves:
        means, low, high = np.array([mean_with_interval(values) for values in curve.values]).T
        (line,) = axes.plot(curve.points, means, marker="o", markersize=4, label=curve.name)
        axes.fill_between(curve.points, low, high, color=line.get_color(), alpha=0.2, linewidth=0)
    axes.axhline(0, color="grey", linewidth=1, zorder=0)
    axes.set(xlabel=condition, ylabel="transfer: ln(single / multi-task error)")
    axes.legend(fontsize=8)
    return figure
