"""Map of where choosing task gradients pays, on Point: ``scripts/when.py key=value ...``."""

from __future__ import annotations

from collections.abc import Sequence

from mtrl_transfer.agents.runs.cli import run_options
from studies.when.run import run_study


def when(arguments: Sequence[str] | None = None) -> int:
    """Train all methods in all cells and draw the map: ``key=value ...``. Returns the exit code."""
    about = "Compare methods by trunk, reward sizes and planted harm."
    return run_options("when", about, "e.g. seeds=[1,2] widths=[4]", run_study, arguments)


if __name__ == "__main__":  # worker processes import this file
    raise SystemExit(when())
