"""Benchmarks, as ratios taken in one run: ``scripts/benchmark.py update key=value ...``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from benchmarks import update
from mtrl_transfer.agents.runs.cli import run_command

BENCHMARKS = {"update": update.run}


def benchmark(arguments: Sequence[str] | None = None) -> int:
    """Run a benchmark: ``update key=value ...``. Returns the exit code."""
    parser = argparse.ArgumentParser("benchmark", description="Measure costs, as ratios taken in one run.")
    parser.add_argument("what", choices=BENCHMARKS, help="cost of updates by combiner and measure")
    parser.add_argument("options", metavar="key=value", nargs="*", default=[], help="e.g. rows=32 hidden=[256,256,256]")
    return run_command(parser, arguments, lambda of, console: BENCHMARKS[of.what](of.options, console))


if __name__ == "__main__":  # worker processes import this file
    raise SystemExit(benchmark())
