"""Settings of a supervised study."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from mtrl_transfer.agents.declarations import Count, Positive, Section


class Settings(Section):
    """Settings of a study of one suite; every number is a mean over the seeds."""

    suite: Literal["digits", "regression"] = "digits"
    """Name of the problem."""
    seeds: Annotated[int, Field(ge=2)] = 10
    """Starts and row orders; everything is repeated for each."""
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
