"""The command line's benchmarks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch
from pydantic import Field
from rich.console import Console

from benchmarks.checkpoint import benchmark_checkpoint
from benchmarks.environments import benchmark_envs
from benchmarks.update import UpdateOptions, benchmark_update, plain_operations, product_rate, table
from mtrl_transfer.agents.runs.config.loading import load_config, section
from mtrl_transfer.agents.runs.config.schema import Count, Section
from mtrl_transfer.agents.runs.errors import InputError
from mtrl_transfer.agents.runs.run_folder import to_json
from mtrl_transfer.agents.runs.torch_settings import torch_settings


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
    with torch_settings(options.matmul_precision, options.threads):
        _print_update(options, console)


def _print_update(options: UpdateOptions, console: Console) -> None:
    timings = benchmark_update(options)
    floor = 1e3 * plain_operations(options) / product_rate()
    norm = " with LayerNorm" if options.layer_norm else ""
    title = (
        f"{options.tasks} tasks, {options.rows} rows each, {list(options.hidden)}{norm}, "
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


class CheckpointOptions(Section):
    """What can be chosen about the benchmark of checkpoints."""

    tasks: Count = 10
    """Tasks, of Meta-World's sizes."""
    transitions: Count = 1_000_000
    """Transitions that replay holds."""
    every: Count = 100_000
    """Transitions between saves."""
    rounds: Count = 3
    """Saves of new transitions."""
    folder: str = "."
    """A folder on the disk to measure; all that is written there is removed."""


def checkpoint(overrides: Sequence[str], console: Console) -> None:
    """Print how long saves hold training up, how long they take, and their size on the disk."""
    options = section(CheckpointOptions, overrides)
    if not Path(options.folder).is_dir():
        raise InputError(f"folder={options.folder!r} is no folder")
    if options.transitions % options.tasks or options.every % options.tasks or options.every > options.transitions:
        raise InputError(f"transitions and every should be multiples of the {options.tasks} tasks, every the smaller")
    result = benchmark_checkpoint(
        options.tasks, options.transitions, options.every, options.rounds, Path(options.folder)
    )
    for saved in result.saves:
        console.print(
            f"{saved.new:>10,} new transitions: training waited {saved.stall_seconds:.2f} s; "
            f"on the disk after {saved.written_seconds:.2f} s",
            highlight=False,
        )
    ratio = result.bytes_on_disk / result.bytes_of_transitions
    console.print(
        f"On the disk: {result.bytes_on_disk / 1e6:,.0f} MB, {ratio:.2f} times the transitions' own "
        f"{result.bytes_of_transitions / 1e6:,.0f} MB",
        highlight=False,
    )


class SoakOptions(Section):
    """What can be chosen about a soak."""

    minutes: float = Field(60.0, gt=0)
    """How long to train."""
    env: Literal["Point-7", "MT10"] = "Point-7"
    """The preset ``point``, or ``mt10_quick``."""
    n_procs: Count = 1
    """Processes that step environments; Point has one."""


def soak(overrides: Sequence[str], console: Console) -> None:
    """Print what a long training does to memory, open files and processes."""
    options = section(SoakOptions, overrides)
    try:
        from benchmarks.soak import soak as run_soak
    except ModuleNotFoundError as error:
        raise InputError(f"a soak needs {error.name}: pip install {error.name}") from None
    preset, buffer = ("point", 14_000) if options.env == "Point-7" else ("mt10_quick", 40_000)
    # Checkpoints are part of a long run, and so is a replay that forgets.
    settings = [f"agent.buffer_size={buffer}", f"checkpoint.every={buffer}", f"env.n_procs={options.n_procs}"]
    result = run_soak(load_config(preset, settings), 60 * options.minutes)
    begin, end = result.begin, result.end
    console.print(
        f"{options.env}: {result.transitions:,} transitions in {end.seconds / 60:.1f} min. After {begin.seconds:.0f} s "
        f"of warm-up memory went from {begin.megabytes:,.1f} to {end.megabytes:,.1f} MB (a line: {result.slope:+.1f} "
        f"MB an hour), open files from {begin.files} to {end.files}, child processes from {begin.children} to "
        f"{end.children}",
        highlight=False,
    )


BENCHMARKS = {"update": update, "envs": envs, "checkpoint": checkpoint, "soak": soak}
