"""Learning curves of the laptop preset on MT10 beside published results, for README and guide."""

from __future__ import annotations

import csv
from collections import defaultdict
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure

ROOT = Path(__file__).parents[1]
PUBLISHED = {
    "reported: ARS, ICML 2025": (2e7, 0.973, 0.995),
    "reported: TOPPO, arXiv 2605.11473": (2e7, 0.972, 0.972),
}
"""Mean success on MT10 as their papers report it, not repeated here: transitions, lowest and highest."""


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def mean_success(found: list[dict[str, str]], *keys: str) -> dict[tuple[str, ...], float]:
    """Mean of ``success`` over the rows that agree in the keys."""
    groups = defaultdict(list)
    for row in found:
        groups[tuple(row[key] for key in keys)].append(float(row["success"]))
    return {key: float(np.mean(values)) for key, values in groups.items()}


def learning_curve(folder: Path) -> Figure:
    """Success over transitions, a line per seed that ends in a dot: the final evaluation, 50 episodes of each task."""
    figure = Figure(figsize=(6.4, 3.6), layout="constrained")
    axes = figure.subplots()
    curves = mean_success(rows(folder / "curves.csv"), "method", "seed", "transitions")
    for (method, seed), final in mean_success(rows(folder / "scores.csv"), "method", "seed").items():
        steps = sorted(int(step) for *run, step in curves if run == [method, seed])
        line = [curves[method, seed, str(step)] for step in steps]
        axes.plot(steps, line, alpha=0.5, label=f"mt10_laptop, {method}, seed {seed}")
        axes.plot(steps[-1], final, "o", color=axes.lines[-1].get_color())
    for marker, (name, (step, low, high)) in zip("sD", PUBLISHED.items(), strict=True):
        middle, half = (low + high) / 2, (high - low) / 2
        axes.errorbar(step, middle, half, fmt=marker, color="black", markerfacecolor="none", capsize=3, label=name)
    axes.set(xscale="log", xlabel="transitions", ylabel="mean success of MT10", ylim=(0, 1.05))
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right", fontsize="small")
    return figure


if __name__ == "__main__":
    matplotlib.rcParams["svg.hashsalt"] = "mtrl-transfer"  # the same file from the same data
    figure = learning_curve(ROOT / "results" / "mt10_laptop" / "3m")
    figure.savefig(ROOT / "docs" / "images" / "learning_curves.svg", metadata={"Date": None})
