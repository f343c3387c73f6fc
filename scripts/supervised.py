"""Groups and combiners on a supervised suite: ``scripts/supervised.py suite=digits|regression key=value ...``."""

from __future__ import annotations

from collections.abc import Sequence

from mtrl_transfer.agents.runs.cli import run_options
from studies.supervised.run import run_study


def supervised(arguments: Sequence[str] | None = None) -> int:
    """Study groups and combiners on a supervised suite: ``key=value ...``. Returns the exit code."""
    about = "Train every group of a small suite's tasks; measure the regret of chosen ones."
    return run_options("supervised", about, "e.g. suite=regression seeds=5 steps=600", run_study, arguments)


if __name__ == "__main__":
    raise SystemExit(supervised())
