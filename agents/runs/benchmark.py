"""The command line's benchmarks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from rich.console import Console

from agents.runs.benchmark_update import Sizes, benchmark_update, plain_operations, product_rate, table
from agents.runs.config import section
from agents.runs.run_folder import to_json
from agents.runs.schema import Count, Section
from envs.benchmark import benchmark_envs


class UpdateOptions(Section):
    """What can be chosen about the benchmark of updates."""

    tasks: Count = 10
    """Tasks."""
    rows: Count = 128
    """Rows of a task in an update."""
    hidden: tuple[Count, ...] = (400, 400, 400)
    """Widths of the trunk."""
    layer_norm: bool = False
    """LayerNorm in the trunk."""
    lookahead_rows: Count = 32
    """Held-out rows of a task."""
    matmul_precision: Literal["highest", "high", "medium"] = "medium"
    """For all contenders alike."""
    threads: Count | None = None
    """Threads of torch; null: torch's own choice."""
    rounds: Count = 15
    """Turns; medians are over them."""


class EnvsOptions(Section):
    """What can be chosen about the benchmark of environments."""

    suite: Literal["MT10", "MT25", "MT50"] = "MT10"
    """Tasks."""
    n_goals: Count = 50
    """Goals of a task; they decide the time to make an environment."""
    rounds: Count = 10
    """Turns; medians are over them."""


def update(overrides: Sequence[str], console: Console) -> None:
    """Print the table of updates: ratios to our own plain update, with quartiles over interleaved rounds."""
    options = section(UpdateOptions, overrides)
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    torch.set_float32_matmul_precision(options.matmul_precision)
    sizes = Sizes(options.tasks, options.rows, options.hidden, options.layer_norm, options.lookahead_rows)
    timings = benchmark_update(sizes, options.rounds)
    floor = 1e3 * plain_operations(sizes) / product_rate()
    norm = " with LayerNorm" if sizes.layer_norm else ""
    title = (
        f"{sizes.n_tasks} tasks, {sizes.rows} rows each, {list(sizes.hidden)}{norm}, "
        f"{torch.get_num_threads()} threads, precision {options.matmul_precision}"
    )
    console.print(table(timings, title))
    console.print(
        f"Floor of the plain update (its products at the best rate measured here): {floor:.1f} ms; "
        f"plain is {timings[0].milliseconds / floor:.2f} times that.",
        highlight=False,
    )


def envs(overrides: Sequence[str], console: Console) -> None:
    """Print the rates of our vector environments and of Meta-World's own."""
    options = section(EnvsOptions, overrides)
    console.print_json(to_json(benchmark_envs(options.suite, options.n_goals, options.rounds)))


BENCHMARKS = {"update": update, "envs": envs}
