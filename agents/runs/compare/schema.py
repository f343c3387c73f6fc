"""What a comparison's YAML may hold."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, Field

from mtrl_transfer.agents.declarations import Seed
from mtrl_transfer.agents.runs.compare.engine import EngineConfig
from mtrl_transfer.agents.runs.config.schema import fit_for_a_folder

Name = Annotated[str, AfterValidator(fit_for_a_folder)]


class CompareConfig(EngineConfig):
    """A comparison: methods times seeds, on one budget and one protocol."""

    name: Name
    """Part of the folder's name: letters, digits, dot, dash, underscore."""
    base: str
    """The run config that all methods share: a file, relative to this one, or a preset's name."""
    config: dict[str, Any] = Field(default_factory=dict)
    """Keys of a run config laid over the base, for all methods alike."""
    methods: Annotated[dict[Name, dict[str, Any]], Field(min_length=1)]
    """For each method, by the name that the report gives it, the keys of a run config that make it."""
    seeds: Annotated[tuple[Seed, ...], Field(min_length=1)]
    """The same for every method."""
    baseline: str
    """The method that the others are measured against."""
    allow_differences: bool = False
    """Whether methods may differ in more than the combiner; the report tells in what."""
    mix_precisions: bool = False
    """Whether runs may differ in the precision that matrix products really had: float32, tf32, bf16, or unknown where a
    run of version 0.1 did not note it. The report tells it."""
    folder: str | None = None
    """Of runs and report; null: runs/compare_<name>."""
    run: bool = True
    """Do what is missing; false: only report what is there."""
