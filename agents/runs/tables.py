"""Tables and lines that a run prints."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from mtrl_transfer.agents import MTSAC, Evaluation
from mtrl_transfer.agents.runs.estimate import Estimate
from mtrl_transfer.agents.runs.run_folder import AGENT_FILE, EVALUATION_FILE
from mtrl_transfer.agents.runs.streams import say


def print_estimate(console: Console, estimate: Estimate, transitions: int) -> None:
    """Print the estimate of a run's duration."""
    say(
        console,
        f"Estimate: about {duration(estimate.training + estimate.evaluation)} for {transitions:,} transitions "
        f"(training {duration(estimate.training)}, evaluation {duration(estimate.evaluation)}), from a measured "
        f"{1e3 * estimate.learning:.1f} ms a vector step with updates and {1e3 * estimate.playing:.1f} ms without.",
    )


def evaluation_json(evaluation: Evaluation, **about: Any) -> dict[str, Any]:
    """The content of ``evaluation.json``: ``mean_success`` over the solvable tasks, then each task's figures."""
    return {
        **about,
        "mean_success": evaluation.mean_success,
        "tasks": {
            name: {"success": float(success), "return": float(value), "episodes": evaluation.episodes}
            for name, success, value in zip(evaluation.task_names, evaluation.success, evaluation.returns, strict=True)
        },
    }


def evaluation_table(evaluation: Evaluation, kept: Mapping[str, np.ndarray] | None = None) -> Table:
    """Success and return per task, and in which share of the updates its gradient was kept."""
    table = Table(title=f"Evaluation, {episodes(evaluation.episodes)} a task")
    table.add_column("task")
    roles = list(kept or {})
    for column in ("success", "return", *(f"kept by {role}" for role in roles)):
        table.add_column(column, justify="right")
    for task, name in enumerate(evaluation.task_names):
        shares = [f"{kept[role][task]:.0%}" for role in roles] if kept else []
        table.add_row(name, f"{evaluation.success[task]:.2f}", f"{evaluation.returns[task]:.1f}", *shares)
    return table


def episodes(number: int) -> str:
    """``1 episode``, ``50 episodes``."""
    return f"{number} episode" + "s" * (number != 1)


def print_mean(console: Console, evaluation: Evaluation) -> None:
    """Print mean success."""
    n_solvable = int(evaluation.solvable.sum())
    all_solvable = n_solvable == len(evaluation.task_names)
    over = "" if all_solvable else f" (over the {n_solvable} tasks that can be solved)"
    say(console, f"Mean success {evaluation.mean_success:.3f}{over}")


def print_end(
    console: Console,
    evaluation: Evaluation,
    model: MTSAC,
    seconds: Mapping[str, float],
) -> None:
    """Print the results of a run."""
    console.print(evaluation_table(evaluation, model.kept_share()))
    print_mean(console, evaluation)
    correlations = {
        role: "not measured" if np.isnan(r) else f"{r:.2f}" for role, r in model.prediction_correlation().items()
    }
    say(
        console,
        "Correlation of predicted with realised improvement: "
        + ", ".join(f"{role} {value}" for role, value in correlations.items()),
    )
    total = sum(seconds.values())
    shares = ", ".join(f"{part} {duration(spent)} ({spent / total:.0%})" for part, spent in seconds.items())
    say(console, f"Time {duration(total)}: {shares}")


def print_folder(console: Console, folder: Path) -> None:
    """Print where the files are."""
    say(console, f"Written to {folder}: {AGENT_FILE}, {EVALUATION_FILE}, logs and checkpoints")
    say(console, f"Look at it: tensorboard --logdir {shlex.quote(str(folder.parent))}")


def duration(seconds: float) -> str:
    """``45 s``, ``12 min``, ``3 h 05 min``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60:02d} min"


def groupings_table(title: str, selections: Iterable[Mapping[str, Any]], names: Sequence[str]) -> Table:
    """Chosen groups by the number of networks."""
    table = Table(title=title)
    table.add_column("networks, at most", justify="right")
    table.add_column("groups")
    table.add_column("score", justify="right")
    for row in selections:
        groups = "; ".join(", ".join(names[task] for task in group) for group in row["groups"])
        table.add_row(str(row["n_groups"]), groups, f"{round(row['score'], 2) + 0.0:.2f}")
    return table
