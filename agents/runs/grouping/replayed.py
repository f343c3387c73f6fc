"""Covariance similarity of trunk features on the replay of finished runs."""

from __future__ import annotations

from contextlib import closing

import numpy as np
import torch

from mtrl_transfer.agents.monitoring.features import covariance_similarities
from mtrl_transfer.agents.mtsac.mtsac import MTSAC
from mtrl_transfer.agents.mtsac.roles import ROLES
from mtrl_transfer.agents.runs.build import training_env
from mtrl_transfer.agents.runs.checkpoint.checkpoints import AGENT, load_replay, newest
from mtrl_transfer.agents.runs.compare.planned import PlannedRun
from mtrl_transfer.agents.runs.config.machine import device_here
from mtrl_transfer.agents.runs.errors import InputError
from mtrl_transfer.agents.runs.grouping.history import Series

DRAWS = 8
"""Draws of rows from a replay; they take the place of measurements."""


def covariance_series(run: PlannedRun) -> dict[str, Series]:
    """Return the covariance similarity of the features of a run's critic and actor, by several draws from its replay.

    Raises:
        InputError: if the run has no checkpoint.
    """
    checkpoint = newest(run.run_dir)
    if checkpoint is None:
        raise InputError(f"{run.run_dir} has no checkpoint: covariance similarity is of the replay in it")
    with closing(training_env(run.config)) as env:
        agent = MTSAC.load(checkpoint.folder / AGENT, env=env, device=device_here(run.config.agent.device))
        load_replay(run.run_dir, checkpoint.manifest, agent.replay_buffer)
        generator = torch.Generator(agent.device).manual_seed(0)
        draws = [covariance_similarities(agent, generator) for _ in range(DRAWS)]
    return {f"covariance_{role}": Series(np.stack([one[role] for one in draws]), np.ones(DRAWS)) for role in ROLES}
