"""Reproduce the theory of information transfer: ``scripts/information_transfer.py trials=20 out=FOLDER ...``."""

from __future__ import annotations

from collections.abc import Sequence

from mtrl_transfer.agents.runs.cli import run_options
from studies.information.run import report as report_information


def information_transfer(arguments: Sequence[str] | None = None) -> int:
    """Reproduce the theory of information transfer on synthetic tasks: ``key=value ...``. Returns the exit code."""
    about = "When tasks help each other, and what alignment and reweighting do about it, on synthetic tasks."
    return run_options("information_transfer", about, "e.g. trials=20 angles=7 seed=0", report_information, arguments)


if __name__ == "__main__":
    raise SystemExit(information_transfer())
