"""When does choosing pay? All methods on Point, by width of the trunk, sizes of rewards and planted harm; and a map."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure
from rich.console import Console
from rich.markdown import Markdown

from mtrl_transfer.agents.declarations import Count, Section, Seed
from mtrl_transfer.agents.runs.compare import statistics
from mtrl_transfer.agents.runs.compare.command import run_comparison
from mtrl_transfer.agents.runs.compare.plan import load_plan
from mtrl_transfer.agents.runs.compare.summary import BOOTSTRAP_SEED, Summary
from mtrl_transfer.agents.runs.config.loading import section
from mtrl_transfer.agents.runs.report.document import Report, digits
from mtrl_transfer.agents.runs.report.numbers import Estimate, write_json

TEMPLATE = Path(__file__).with_name("report.md.jinja")
REACHING = "point-a0,point-b0,point-a1,point-b1,point-a2,point-b2"
"""The tasks of Point-7 without the harmful one."""
ROWS, STEPS, START = 32, 2_000, 100
"""Rows of a task in an update; vector steps of a run, and of its warm-up."""


class Settings(Section):
    """Settings of the study."""

    comparison: str = "when"
    """Methods and what all cells share: a preset comparison, or a file."""
    widths: tuple[Count, ...] = (2, 4, 16)
    """Units of the last layer of every trunk, for six or seven tasks."""
    spreads: tuple[bool, ...] = (False, True)
    """Reward sizes: equal, or spread from 0.1 to 10."""
    planted: tuple[bool, ...] = (False, True)
    """Without, or with the harmful task."""
    seeds: tuple[Seed, ...] = (1, 2, 3, 4, 5, 6, 7, 8, 9, 10)
    """Seeds of every method in every cell."""
    workers: Count | None = None
    """Runs at a time; null: as many as there are cores for."""
    out: str = "runs/when"
    """Folder of the runs, a folder for each cell, and of the map. The same command continues where it was stopped."""


class Cell(NamedTuple):
    """A cell of the map."""

    width: int
    spread: bool
    planted: bool

    @property
    def name(self) -> str:
        """Name of its folder."""
        return f"{self.width}_{'spread' if self.spread else 'equal'}_{'harm' if self.planted else 'none'}"

    @property
    def title(self) -> str:
        """Short description."""
        return f"{self.width} units, {'spread' if self.spread else 'equal'}{', harm' if self.planted else ''}"

    @property
    def overrides(self) -> list[str]:
        """Overrides of the shared comparison for this cell."""
        tasks = 7 if self.planted else 6
        suite = "Point-7" + "-spread" * self.spread + ("" if self.planted else f":{REACHING}")
        return [
            f'config.env.id="{suite}"',
            f"config.total_timesteps={STEPS * tasks}",
            f"config.agent.learning_starts={START * tasks}",
            f"config.agent.batch_size={ROWS * tasks}",
            f"config.agent.policy_kwargs.net_arch.pi=[64,{self.width}]",
            f"config.agent.policy_kwargs.net_arch.qf=[64,{self.width}]",
        ]


class Lead(NamedTuple):
    """A method's lead over the mean in a cell.

    - `success`: mean final success.
    - `difference`: from the mean's, with its bootstrap interval; whole runs are drawn.
    - `p`: two-sided p-value of no improvement, after Holm's correction for all methods in all cells.
    """

    success: Estimate
    difference: Estimate
    p: float


def run_study(overrides: Sequence[str], console: Console) -> Path:
    """Do the missing runs of all cells, and write the map.

    Returns:
        The folder, with ``report.md``, ``report.html``, its figure and ``results.json``.

    Raises:
        InputError: for a bad setting.
        Incomplete: if runs of a cell failed; the same command tries them again.
        Interrupted: after Ctrl-C; the same command goes on.
    """
    settings = section(Settings, overrides)
    cells = [
        Cell(width, spread, planted)
        for planted in settings.planted
        for spread in settings.spreads
        for width in settings.widths
    ]
    folder = Path(settings.out)
    shared = [f"seeds={list(settings.seeds)}", *([] if settings.workers is None else [f"workers={settings.workers}"])]
    plans = {
        cell: load_plan(settings.comparison, [*shared, *cell.overrides, f"folder={folder / cell.name}"])
        for cell in cells
    }
    summaries = {}
    for cell, plan in plans.items():
        console.rule(cell.title)
        summaries[cell] = run_comparison(plan, console)
    leads = leads_over_baseline(summaries)
    methods = list(next(iter(summaries.values())).methods)
    baseline = next(iter(summaries.values())).baseline
    values = {"settings": settings, "cells": cells, "methods": methods, "baseline": baseline, "leads": leads}
    values |= {"summaries": summaries, "digits": digits, "significance": statistics.SIGNIFICANCE}
    report = Report(TEMPLATE, values, {"map": drawn(leads, summaries, cells, methods)})
    report.write(folder)
    numbers = {
        cell.name: {method: leads[cell, method] for method in methods if (cell, method) in leads} for cell in cells
    }
    means = {cell.name: summaries[cell].methods[baseline].mean for cell in cells}
    write_json(folder / "results.json", {"settings": settings.model_dump(), baseline: means, "leads": numbers})
    console.print(Markdown(report.markdown))
    return folder


def leads_over_baseline(summaries: dict[Cell, Summary]) -> dict[tuple[Cell, str], Lead]:
    """Leads of all methods in all cells over the cell's baseline."""
    found, p_values = {}, []
    generator = np.random.default_rng(BOOTSTRAP_SEED)
    for cell, summary in summaries.items():
        base = summary.methods[summary.baseline].scores
        for name, method in summary.methods.items():
            if name == summary.baseline:
                continue
            samples = statistics.mean(statistics.resampled(method.scores, generator))
            samples -= statistics.mean(statistics.resampled(base, generator))
            value = float(method.scores.mean() - base.mean())
            bounds = np.quantile(samples, [statistics.SIGNIFICANCE / 2, 1 - statistics.SIGNIFICANCE / 2])
            found[cell, name] = (method.mean, Estimate(value, *bounds.tolist()))
            p_values.append(statistics.improvement(method.scores, base, generator)[1])
    corrected = statistics.holm(p_values)
    return {key: Lead(*of, p) for (key, of), p in zip(found.items(), corrected, strict=True)}


def drawn(
    leads: dict[tuple[Cell, str], Lead], summaries: dict[Cell, Summary], cells: Sequence[Cell], methods: Sequence[str]
) -> Figure:
    """Draw the map: a column for each cell, a row for each method, coloured by its lead."""
    others = [method for method in methods if any((cell, method) in leads for cell in cells)]
    matrix = np.array([[leads[cell, method].difference.value for cell in cells] for method in others])
    figure = Figure(figsize=(2.2 + 0.75 * len(cells), 1.8 + 0.45 * len(others)), layout="constrained")
    axes = figure.add_subplot()
    limit = max(float(np.abs(matrix).max()), 1e-3)
    axes.imshow(matrix, cmap="RdBu", vmin=-limit, vmax=limit, aspect="auto")
    for (row, column), value in np.ndenumerate(matrix):
        significant = leads[cells[column], others[row]].p < statistics.SIGNIFICANCE
        text = f"{value:+.2f}" + "*" * significant
        colour = "white" if abs(value) > 0.6 * limit else "black"
        weight = "bold" if significant else "normal"
        axes.text(column, row, text, ha="center", va="center", fontsize=9, color=colour, fontweight=weight)
    labels = [f"{cell.title}\n{summaries[cell].methods[summaries[cell].baseline].mean.value:.2f}" for cell in cells]
    axes.set_xticks(range(len(cells)), labels, rotation=50, ha="right", rotation_mode="anchor", fontsize=8)
    axes.set_yticks(range(len(others)), others, fontsize=9)
    figure.suptitle("Lead in success over the mean, whose success stands below; * significant", fontsize=10)
    return figure
