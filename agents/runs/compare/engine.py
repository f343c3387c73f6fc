"""Running many training runs: by processes here, or as tasks on a Ray cluster."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field
from rich.console import Console

from mtrl_transfer.agents.declarations import Count, Float, Section
from mtrl_transfer.agents.runs.compare.engine_local import run_locally
from mtrl_transfer.agents.runs.compare.engine_ray import run_on_ray
from mtrl_transfer.agents.runs.compare.overview import Overview
from mtrl_transfer.agents.runs.compare.planned import PlannedRun, RunResult, check_planned, is_finished
from mtrl_transfer.agents.runs.config.loading import to_yaml
from mtrl_transfer.agents.runs.errors import InputError
from mtrl_transfer.agents.runs.run_folder import write_text


class EngineConfig(Section):
    """Settings of the engine that does the runs."""

    engine: Literal["local", "ray"] = "local"
    """``local``: processes on this machine; ``ray``: tasks on a Ray cluster, run folders on storage that all share."""
    workers: Count | None = None
    """Local: runs at a time; null: as many as there are cores for."""
    address: str | None = None
    """Ray: of the cluster, e.g. ``ray://host:10001``; null: the one that this machine belongs to."""
    gpus_per_run: Annotated[Float, Field(ge=0)] = 0.0
    """Ray: GPUs, or the share of one, that each run claims; a run that claims none sees none."""


def run_all(runs: Sequence[PlannedRun], engine: EngineConfig, console: Console) -> list[RunResult]:
    """Bring all runs to their end; those that are finished are left alone, interrupted ones go on.

    A run that fails does not stop the others; called again, only what is missing runs.

    Args:
        runs: ordinary training runs in folders of their own.
        engine: what does them.
        console: where the overview is shown.

    Returns:
        One result per run, in order.

    Raises:
        InputError: before any work, for settings that do not fit or folders that cannot be used.
        Interrupted: after Ctrl-C, once the runs have written their checkpoints.
    """
    problems = engine_problems(engine)
    if problems:
        raise InputError(problems)
    check_planned(runs)
    missing = [run for run in runs if not is_finished(run)]
    for run in missing:
        run.run_dir.parent.mkdir(parents=True, exist_ok=True)
        write_text(run.config_file, to_yaml(run.resolved))
    with Overview(runs, console) as overview:
        if not missing:
            errors: dict[str, str | None] = {}
        elif engine.engine == "ray":
            errors = run_on_ray(missing, engine.address, engine.gpus_per_run, overview)
        else:
            errors = run_locally(missing, engine.workers, overview)
    return [RunResult(run.label, run.run_dir, errors.get(run.label)) for run in runs]


def engine_problems(engine: EngineConfig) -> list[str]:
    """Settings that the chosen engine does not have."""
    if engine.engine == "local":
        foreign = {"address": engine.address, "gpus_per_run": engine.gpus_per_run or None}
    else:
        foreign = {"workers": engine.workers}
    other = "ray" if engine.engine == "local" else "local"
    return [f"{key}={value!r} is for engine={other}" for key, value in foreign.items() if value is not None]
