"""The same runs as tasks on a Ray cluster; their folders lie on storage that all of its machines share."""

from __future__ import annotations

import traceback
from collections.abc import Sequence
from dataclasses import replace
from types import ModuleType
from typing import Any

from rich.console import Console

from mtrl_transfer.agents.runs.compare.one_run import run_or_resume
from mtrl_transfer.agents.runs.compare.overview import Overview
from mtrl_transfer.agents.runs.compare.planned import PlannedRun
from mtrl_transfer.agents.runs.config.loading import load_config
from mtrl_transfer.agents.runs.errors import InputError, Interrupted

RETRIES = 3
"""Times that a run goes on elsewhere after its worker or machine died."""
POLL_SECONDS = 0.5
STOP_SECONDS = 60.0


def run_on_ray(
    runs: Sequence[PlannedRun], address: str | None, gpus_per_run: float, overview: Overview
) -> dict[str, str | None]:
    """Do all runs as Ray tasks, each claiming the cores that it keeps busy.

    Args:
        runs: unfinished runs.
        address: of the cluster; None: the one that this machine belongs to.
        gpus_per_run: claimed by each.
        overview: told of progress and ends.

    Returns:
        label -> error, None where the run is finished.

    Raises:
        InputError: if Ray is not installed or no cluster answers.
        Interrupted: after Ctrl-C, once the tasks have been asked to save.
    """
    ray = _connect(address)
    # A fresh process per run, as the local engine has it: torch's threads and precision are settings of a process.
    task = ray.remote(max_calls=1, max_retries=RETRIES, num_gpus=gpus_per_run)(_train)
    pending: dict[Any, str] = {}
    errors: dict[str, str | None] = {}
    try:
        for run in runs:
            here = replace(run, run_dir=run.run_dir.resolve())
            pending[task.options(num_cpus=run.cores, name=run.label).remote(here)] = run.label
            overview.started(run.label)
        while pending:
            for reference in ray.wait(list(pending), timeout=POLL_SECONDS)[0]:
                label = pending.pop(reference)
                errors[label] = _outcome(ray, reference)
                overview.ended(label, errors[label])
            overview.refresh()
    except KeyboardInterrupt:
        overview.say("Stopping: the runs write their checkpoints.")
        for reference in pending:
            ray.cancel(reference)
        ray.wait(list(pending), num_returns=len(pending), timeout=STOP_SECONDS)
        raise Interrupted("Stopped. Continue with the same command: only what is missing will run.") from None
    finally:
        ray.shutdown()
    return errors


def _connect(address: str | None) -> ModuleType:
    try:
        import ray
    except ImportError:
        raise InputError("engine=ray needs Ray: pip install 'mtrl-transfer[ray]', or use engine=local") from None
    try:
        ray.init(address=address or "auto", log_to_driver=False, configure_logging=False)
    except (ConnectionError, RuntimeError, ValueError) as error:
        where = f"at address={address!r}" if address else "here; start one with `ray start --head`, or give address="
        raise InputError(f"no Ray cluster answers {where} ({str(error).splitlines()[0]})") from error
    return ray


def _train(run: PlannedRun) -> str | None:
    """The task: returns its error, None where the run is finished."""
    with run.log_file.open("a", encoding="utf-8") as log:
        try:
            config = load_config(str(run.config_file))  # checked again: a worker's machine may lack what it asks for
            run_or_resume(replace(run, config=config), Console(file=log))
        except (Interrupted, KeyboardInterrupt):
            return "interrupted"
        except Exception as error:
            traceback.print_exc(file=log)
            return f"{type(error).__name__}: {error}".strip().splitlines()[0]
    return None


def _outcome(ray: ModuleType, reference: Any) -> str | None:
    try:
        return ray.get(reference)
    except ray.exceptions.RayError as error:
        return f"{type(error).__name__} after {RETRIES} retries: {str(error).splitlines()[0]}"
