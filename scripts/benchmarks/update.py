"""Benchmark of updates: combiners and measures side by side in one interleaved run, beside other libraries."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.rows import Ours, UpdateOptions, table_rows
from mtrl_transfer.agents.runs.config.loading import section
from mtrl_transfer.agents.runs.errors import InputError
from mtrl_transfer.agents.runs.torch_settings import torch_settings
from mtrl_transfer.choices import did_you_mean


class Timing(NamedTuple):
    """Milliseconds of one update, its ratio to the plain update's (medians over rounds), and its memory.

    ``ratio`` and its quartiles come from the rounds' own ratios: each round runs all cases one after the other.
    ``megabytes`` is the most that an update's tensors take beyond what is there between updates.
    """

    name: str
    milliseconds: float
    ratio: float
    low: float
    high: float
    megabytes: float


def run(overrides: Sequence[str], console: Console) -> None:
    """Print the table of updates: ratios to our own plain update, with quartiles over interleaved rounds."""
    options = section(UpdateOptions, overrides)
    with torch_settings(options.matmul_precision, options.threads):
        timings = benchmark_update(options)
        floor = 1e3 * plain_operations(options) / product_rate()
    console.print(table(timings, options))
    console.print(
        f"Floor of the plain update (its products at the best rate measured here): {floor:.1f} ms; "
        f"plain is {timings[0].milliseconds / floor:.2f} times that.",
        highlight=False,
    )


def benchmark_update(options: UpdateOptions) -> list[Timing]:
    """Time updates of MTSAC under combiners and measures, of SB3's SAC, and of other ways to task gradients.

    Transitions are random numbers of Meta-World's shapes. Each round runs every case once, in turn, so whatever else
    the machine does slows all equally.

    Raises:
        InputError: for a name in ``only`` that no row has.
    """
    rows = table_rows(options)
    for name in options.only or ():
        if name not in rows:
            raise InputError(f"only={name!r} is no row of the table{did_you_mean(name, rows)}")
    wanted = rows if options.only is None else ("plain", *options.only)
    updates = {name: row.update(options) for name, row in rows.items() if name in wanted}
    for update in updates.values():
        update()
    peaks = {name: peak_megabytes(update) for name, update in updates.items()}
    seconds: dict[str, list[float]] = {name: [] for name in updates}
    for _ in range(options.rounds):
        for name, update in updates.items():
            start = time.perf_counter()
            update()
            seconds[name].append(time.perf_counter() - start)
    return [_timing(name, seconds, peaks[name]) for name in updates]


def peak_megabytes(update: Callable[[], object]) -> float:
    """Return the most memory that torch's tensors take during a call, beyond what they take before."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as watched:
        update()
    assert watched.profiler is not None
    events = [event for event in watched.profiler.kineto_results.events() if event.name() == "[memory]"]
    changes = [event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())]
    return float(np.cumsum([0, *changes]).max()) / 1e6


def product_rate(seconds: float = 2.0) -> float:
    """Measure the best rate of float32 matrix products at torch's current precision, in operations a second."""
    best, until = 0.0, time.perf_counter() + seconds
    squares = [torch.randn(size, size) for size in (1024, 2048)]
    while time.perf_counter() < until:
        for square in squares:
            start = time.perf_counter()
            square @ square
            best = max(best, 2 * len(square) ** 3 / (time.perf_counter() - start))
    return best


def plain_operations(options: UpdateOptions) -> int:
    """Count the floating-point operations of the plain update's matrix products."""
    update = Ours().update(options)
    update()
    with FlopCounterMode(display=False) as counter:
        update()
    return int(counter.get_total_flops())


def table(timings: Sequence[Timing], options: UpdateOptions) -> Table:
    """Return the timings as a table."""
    norm = " with LayerNorm" if options.layer_norm else ""
    shown = Table(
        title=f"{options.tasks} tasks, {options.rows} rows each, {list(options.hidden)}{norm}, "
        f"{options.threads or torch.get_num_threads()} threads, precision {options.matmul_precision}"
    )
    shown.add_column("update")
    for column in ("ms", "ratio to plain", "quartiles", "peak MB"):
        shown.add_column(column, justify="right")
    for row in timings:
        spread = f"{row.low:.2f} to {row.high:.2f}"
        shown.add_row(row.name, f"{row.milliseconds:.1f}", f"{row.ratio:.2f}", spread, f"{row.megabytes:.1f}")
    return shown


def _timing(name: str, seconds: dict[str, list[float]], megabytes: float) -> Timing:
    own, plain = np.array(seconds[name]), np.array(seconds["plain"])
    low, ratio, high = np.quantile(own / plain, [0.25, 0.5, 0.75])
    return Timing(name, 1e3 * statistics.median(own), ratio, low, high, megabytes)
