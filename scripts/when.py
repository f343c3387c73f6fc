"""Map of where choosing task gradients pays, on Point: ``scripts/when.py key=value ...``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from rich.console import Console

from mtrl_transfer.agents.runs.cli import run_command
from mtrl_transfer.agents.runs.streams import STDOUT
from studies.when.run import run_study


def when(arguments: Sequence[str] | None = None) -> int:
    """Train all methods in all cells and draw the map: ``key=value ...``. Returns the exit code."""
    parser = argparse.ArgumentParser("when", description="Compare methods by trunk, reward sizes and planted harm.")
    parser.add_argument("options", metavar="key=value", nargs="*", default=[], help="e.g. seeds=[1,2] widths=[4]")
    return run_command(parser, arguments, lambda of: run_study(of.options, Console(file=STDOUT)))


if __name__ == "__main__":  # worker processes import this file
    raise SystemExit(when())
