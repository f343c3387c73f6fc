"""Settings of the study of decisions."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from mtrl_transfer.agents.declarations import Count, Float, Section, Seed


class Settings(Section):
    """Settings of the study of decisions."""

    agents: Annotated[tuple[str, ...], Field(min_length=1)]
    """Folders: a checkpoint (``runs/mine/checkpoints/300000``), or a run, whose newest checkpoint is taken."""
    decisions: Count = 25
    """Decisions of each role of each agent."""
    gradient_rows: Count = 32
    """Rows of each task that give the gradients."""
    rows: tuple[Count, ...] = (8, 32, 128)
    """Held-out rows of each task on which it is decided."""
    truth_rows: Count = 400
    """Other rows of each task on which decisions are judged."""
    step: Literal["optimizer", "matched"] = "optimizer"
    """The true step, and that of the measures which can take it: the trunk optimizer's own; or a gradient step of its
    length, which all measures take."""
    z: Annotated[Float, Field(ge=0)] = 2.0
    """Standard errors that a significant lead exceeds."""
    horizon: Count = 10
    """Optimizer steps of the measure ``horizon``."""
    horizon_decisions: Annotated[int, Field(ge=0)] = 5
    """Decisions by ``horizon`` of each role of each agent; each takes as long as many others."""
    seed: Seed = 0
    """Of the rows and the noise."""
    out: str = "runs/decisions"
    """Folder of the report, and of each agent's decisions: those that are there already are not made again."""
