"""Benchmarks, as ratios taken in one run: ``scripts/benchmark.py update|envs|checkpoint|soak key=value ...``."""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Sequence

from rich.console import Console

from mtrl_transfer.agents.runs.cli import run_command
from mtrl_transfer.agents.runs.errors import InputError
from mtrl_transfer.agents.runs.streams import STDOUT

BENCHMARKS = ("update", "envs", "checkpoint", "soak")
"""Modules of ``benchmarks`` with a function ``run(overrides, console)``."""


def benchmark(arguments: Sequence[str] | None = None) -> int:
    """Run a benchmark: ``update|envs|checkpoint|soak key=value ...``. Returns the exit code."""
    parser = argparse.ArgumentParser("benchmark", description="Measure costs, as ratios taken in one run.")
    parser.add_argument(
        "what", choices=BENCHMARKS, help="updates by combiner and measure, environments, checkpoints, a long run"
    )
    parser.add_argument("options", metavar="key=value", nargs="*", default=[], help="e.g. rows=32 hidden=[256,256,256]")
    return run_command(parser, arguments, lambda of: _run(of.what, of.options))


def _run(what: str, overrides: Sequence[str]) -> None:
    try:
        module = importlib.import_module(f"benchmarks.{what}")
    except ModuleNotFoundError as error:
        raise InputError(f"the benchmark needs {error.name}: pip install {error.name}") from None
    module.run(overrides, Console(file=STDOUT))


if __name__ == "__main__":  # worker processes import this file
    raise SystemExit(benchmark())
