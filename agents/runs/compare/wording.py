"""How the report writes numbers."""

from __future__ import annotations

from mtrl_transfer.agents.runs.compare.statistics import Estimate

NOTHING = "–"


def number(estimate: Estimate | None, digits: int = 2) -> str:
    """``0.62 [0.41, 0.80]``."""
    if estimate is None:
        return NOTHING
    return f"{estimate.value:.{digits}f} [{estimate.low:.{digits}f}, {estimate.high:.{digits}f}]"
