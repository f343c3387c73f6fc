"""Schema of a comparison's YAML."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, Field

from mtrl_transfer.agents.declarations import Seeds, Text
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
    """Keys of a run config that override the base, for all methods."""
    methods: Annotated[dict[Name, dict[str, Any]], Field(min_length=1)]
    """Methods by name: the keys of a run config in which each method differs."""
    seeds: Seeds
    """Seeds, the same for every method."""
    baseline: str
    """The method that the others are measured against."""
    allow_differences: bool = False
    """Permit methods that differ in more than the combiner; the report lists the differences."""
    mix_precisions: bool = False
    """Permit runs that differ in the actual precision of matrix products: float32, tf32, bf16, or unknown for a run of
    version 0.1. The report lists the precisions."""
    folder: Text | None = None
    """Folder of runs and report; null: runs/compare_<name>."""
    run: bool = True
    """Do the missing runs; false: only report the runs that are there."""
