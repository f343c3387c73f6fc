"""What can be chosen about a supervised study."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from mtrl_transfer.agents.runs.config.schema import Count, Positive, Section


class Settings(Section):
    """A study of one suite; every figure is a mean over the seeds."""

    suite: str = "digits"
    """``digits`` or ``regression``."""
    seeds: Annotated[int, Field(ge=2)] = 10
    """Starts and row orders that everything is repeated for."""
    steps: Count = 1_000
    """Updates of each network."""
    batch: Count = 64
    """Rows of an update."""
    learning_rate: Positive = 5e-3
    """Adam's."""
    every: Count = 10
    """Updates between measurements of affinity."""
    out: str | None = None
    """Folder of the report; null: runs/supervised_<suite>."""
