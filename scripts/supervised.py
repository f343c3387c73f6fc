"""Groups and combiners on a supervised suite: ``scripts/supervised.py suite=digits|regression key=value ...``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from rich.console import Console

from mtrl_transfer.agents.runs.cli import run_command
from mtrl_transfer.agents.runs.streams import STDOUT
from studies.supervised.run import run_study


def supervised(arguments: Sequence[str] | None = None) -> int:
    """Study groups and combiners on a supervised suite: ``key=value ...``. Returns the exit code."""
    parser = argparse.ArgumentParser(
        "supervised", description="Train every group of a small suite's tasks; measure the regret of chosen ones."
    )
    parser.add_argument(
        "options", metavar="key=value", nargs="*", default=[], help="e.g. suite=regression seeds=5 steps=600"
    )
    return run_command(parser, arguments, lambda of: run_study(of.options, Console(file=STDOUT)))


if __name__ == "__main__":
    raise SystemExit(supervised())
