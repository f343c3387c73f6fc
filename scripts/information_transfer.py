"""Reproduce the theory of information transfer: ``scripts/information_transfer.py trials=20 out=FOLDER ...``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from rich.console import Console

from mtrl_transfer.agents.runs.cli import run_command
from mtrl_transfer.agents.runs.streams import STDOUT
from studies.information.run import report as report_information


def information_transfer(arguments: Sequence[str] | None = None) -> int:
    """Reproduce the theory of information transfer on synthetic tasks: ``key=value ...``. Returns the exit code."""
    parser = argparse.ArgumentParser(
        "information_transfer",
        description="When tasks help each other, and what alignment and reweighting do about it, on synthetic tasks.",
    )
    parser.add_argument("options", metavar="key=value", nargs="*", default=[], help="e.g. trials=20 angles=7 seed=0")
    return run_command(parser, arguments, lambda of: report_information(of.options, Console(file=STDOUT)))


if __name__ == "__main__":
    raise SystemExit(information_transfer())
