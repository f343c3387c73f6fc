"""Training runs for an engine, and their results."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mtrl_transfer.agents.runs.config.loading import load_config
from mtrl_transfer.agents.runs.config.schema import RunConfig
from mtrl_transfer.agents.runs.errors import InputError
from mtrl_transfer.agents.runs.outcome import finished_step
from mtrl_transfer.agents.runs.run_folder import CONFIG_FILE, HARMLESS, changed_keys


@dataclass(frozen=True)
class PlannedRun:
    """One ordinary training run.

    Args:
        label: short and unique among the runs of one engine, e.g. ``"pcgrad_s1"``.
        config: what to train. ``threads`` not set means 1: runs side by side must not fight for cores.
        run_dir: its run folder. ``<run_dir>.yaml`` and ``<run_dir>.log`` are written beside it.
    """

    label: str
    config: RunConfig
    run_dir: Path

    @property
    def resolved(self) -> RunConfig:
        """The config with folder and threads, without a progress bar."""
        config = self.config
        own = {
            "run_dir": str(self.run_dir),
            "resume": False,
            "threads": config.threads or 1,
            "log": config.log.model_copy(update={"progress": False}),
        }
        return config.model_copy(update=own)

    @property
    def cores(self) -> int:
        """Cores that the run uses: torch's threads and the environments' processes take turns."""
        return max(self.config.threads or 1, self.config.env.n_procs)

    @property
    def config_file(self) -> Path:
        """The config, for `scripts/train.py` by hand."""
        return self.run_dir.with_name(self.run_dir.name + ".yaml")

    @property
    def log_file(self) -> Path:
        """Output of the run."""
        return self.run_dir.with_name(self.run_dir.name + ".log")


@dataclass(frozen=True)
class RunResult:
    """Result of a planned run: ``error`` is None if it is finished, otherwise one line."""

    label: str
    run_dir: Path
    error: str | None = None


def is_finished(run: PlannedRun) -> bool:
    """Return whether the run has been trained for its whole budget and evaluated."""
    return finished_step(run.run_dir) >= run.config.total_timesteps


def check_planned(runs: Sequence[PlannedRun]) -> None:
    """Refuse, before any work, what cannot be run side by side or continued.

    Raises:
        InputError: for labels or folders that occur twice, and for folders that hold another run or no run at all.
    """
    problems = [f"two runs are called {label}" for label in _twice([run.label for run in runs])]
    problems += [f"two runs have the folder {folder}" for folder in _twice([str(run.run_dir) for run in runs])]
    for run in runs:
        problems += _folder_problems(run)
    if problems:
        raise InputError(problems)


def _twice(names: Sequence[str]) -> list[str]:
    return sorted({name for name in names if names.count(name) > 1})


def _folder_problems(run: PlannedRun) -> list[str]:
    folder = run.run_dir
    if folder.exists() and not folder.is_dir():
        return [f"{folder} is a file, expected the folder of the run {run.label}"]
    if not folder.is_dir() or all(path.suffix == ".partial" for path in folder.iterdir()):
        return []  # ".partial": killed before its first file was whole
    if not (folder / CONFIG_FILE).is_file():
        return [f"{folder} is not empty and holds no run: {CONFIG_FILE} is missing"]
    changed = changed_keys(load_config(str(folder / CONFIG_FILE)), run.resolved, (*HARMLESS, "total_timesteps"))
    if not changed:
        return []
    return [f"{folder} was trained with another config ({'; '.join(changed)}); choose another folder, or delete it"]
