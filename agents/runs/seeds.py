"""Runs of ``seeds=1,2,3``: the same config with several seeds, a run folder each."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mtrl_transfer.agents.declarations import Section, Seeds
from mtrl_transfer.agents.runs.config.loading import load_config, section
from mtrl_transfer.agents.runs.config.schema import RunConfig
from mtrl_transfer.agents.runs.errors import InputError
from mtrl_transfer.agents.runs.outcome import finished_step
from mtrl_transfer.agents.runs.run_folder import CONFIG_FILE, check_run_dir, load_run

PREFIX = "seeds="


class _SeedsOption(Section):
    seeds: Seeds


def runs_to_do(argument: str, overrides: Sequence[str]) -> list[RunConfig]:
    """Load the config of each run that a command line asks for: one per seed of ``seeds=``, otherwise one.

    The run of seed 3 lies in ``<run_dir>/s3`` where ``run_dir`` is given. With ``resume=true`` finished runs are left
    out, interrupted ones continue and missing ones begin.

    Raises:
        InputError: with every bad key and value at once.
    """
    given = [override for override in overrides if override.startswith(PREFIX)]
    if not given:
        return [load_run(argument, overrides)]
    seeds = section(_SeedsOption, given).seeds
    if any(override.startswith("seed=") for override in overrides):
        raise InputError("give seed= or seeds=, not both")
    config = load_config(argument, [override for override in overrides if override not in given])
    if config.run_dir is None and config.resume:
        raise InputError("resume=true with seeds= needs run_dir=, the folder that holds the runs")
    if config.run_dir is None:
        return [config.model_copy(update={"seed": seed}) for seed in seeds]
    parent = Path(config.run_dir)
    runs = [_run_in(parent / f"s{seed}", config.model_copy(update={"seed": seed})) for seed in seeds]
    todo = [run for run in runs if not run.resume or finished_step(Path(str(run.run_dir))) < run.total_timesteps]
    if not todo:
        raise InputError(f"all runs in {parent} are complete at {config.total_timesteps} transitions")
    for run in todo:
        check_run_dir(run)
    return todo


def _run_in(folder: Path, config: RunConfig) -> RunConfig:
    begun = (folder / CONFIG_FILE).is_file()
    return config.model_copy(update={"run_dir": str(folder), "resume": config.resume and begun})
