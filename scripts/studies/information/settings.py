"""What can be chosen about the report on information transfer."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from mtrl_transfer.agents.runs.config.schema import Count, Section, Seed


class Settings(Section):
    """The synthetic study; every figure is a mean over independent draws of tasks and rows."""

    trials: Annotated[int, Field(ge=2)] = 20
    """Independent draws."""
    angles: Annotated[int, Field(ge=2)] = 7
    """Angles between 0 and 90 degrees."""
    steps: Count = 1_200
    """Updates of each ReLU network; a turn of alternating alignment is a twelfth of it."""
    seed: Seed = 0
    """Of all draws."""
    out: str = "runs/information_transfer"
    """Folder of the report."""
