"""True worth of decisions by transference: ``scripts/decisions.py agents=[FOLDER, ...] key=value ...``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from rich.console import Console

from mtrl_transfer.agents.runs.cli import run_command
from mtrl_transfer.agents.runs.streams import STDOUT
from studies.decisions.run import run_study


def decisions(arguments: Sequence[str] | None = None) -> int:
    """Judge decisions of stored agents on other rows: ``key=value ...``. Returns the exit code."""
    parser = argparse.ArgumentParser("decisions", description="Judge choices of task gradients by their true lead.")
    parser.add_argument(
        "options", metavar="key=value", nargs="*", default=[], help="e.g. agents=[runs/mine/checkpoints/300000]"
    )
    return run_command(parser, arguments, lambda of: run_study(of.options, Console(file=STDOUT)))


if __name__ == "__main__":
    raise SystemExit(decisions())
