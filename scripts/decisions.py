"""True worth of decisions by transference: ``scripts/decisions.py agents=[FOLDER, ...] key=value ...``."""

from __future__ import annotations

from collections.abc import Sequence

from mtrl_transfer.agents.runs.cli import run_options
from studies.decisions.run import run_study


def decisions(arguments: Sequence[str] | None = None) -> int:
    """Judge decisions of stored agents on other rows: ``key=value ...``. Returns the exit code."""
    about = "Judge choices of task gradients by their true lead."
    return run_options("decisions", about, "e.g. agents=[runs/mine/checkpoints/300000]", run_study, arguments)


if __name__ == "__main__":
    raise SystemExit(decisions())
