"""A run's config and scalars in Weights & Biases."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stable_baselines3.common.logger import KVWriter

from mtrl_transfer.agents.runs.config.schema import RunConfig
from mtrl_transfer.agents.runs.errors import InputError
from mtrl_transfer.agents.runs.logs.metrics import scalars_of
from mtrl_transfer.agents.runs.run_folder import write_text

ID_FILE = "wandb_id"
"""Holds the id under which W&B knows the run; with it a resumed run goes on there too."""


def wandb_problems(config: RunConfig) -> list[str]:
    """Problems of sending a run to W&B from here. Only training asks."""
    if config.log.wandb is None or importlib.util.find_spec("wandb") is not None:
        return []
    return [f"log.wandb={config.log.wandb} needs wandb: pip install 'mtrl-transfer[wandb]'"]


class WandbWriter(KVWriter):
    """Scalars as W&B's history, over ``step`` (transitions); runs that share a ``name`` are a group.

    Args:
        folder: the run folder.
        config: of the run; ``log.wandb`` names the project.

    Raises:
        InputError: if wandb refuses the run, such as without a login.
    """

    def __init__(self, folder: Path, config: RunConfig) -> None:
        import wandb

        file = folder / ID_FILE
        try:
            self._run = wandb.init(
                project=config.log.wandb,
                dir=folder,
                id=file.read_text(encoding="utf-8") if file.exists() else None,
                resume="allow",
                name=folder.name,
                group=config.name,
                config=config.model_dump(mode="json"),
                allow_val_change=True,
                settings=wandb.Settings(console="off"),
            )
        except wandb.Error as error:
            raise InputError(f"log.wandb={config.log.wandb!r}: {error}") from error
        write_text(file, self._run.id)
        self._run.define_metric("*", step_metric="step")

    def write(self, key_values: Mapping[str, Any], key_excluded: Mapping[str, tuple[str, ...]], step: int = 0) -> None:
        """Send the step's scalars."""
        if scalars := scalars_of(key_values, key_excluded):
            self._run.log({"step": step, **scalars})

    def close(self) -> None:
        """End the run in W&B; resuming reopens it."""
        self._run.finish()
