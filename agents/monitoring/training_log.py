"""Scalars of training in the agent's logger."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING

from torch import Tensor

from mtrl_transfer.agents.monitoring.features import feature_spread
from mtrl_transfer.faults import describe
from mtrl_transfer.gradients import is_sync_free

if TYPE_CHECKING:
    from mtrl_transfer.agents.mtsac.mtsac import MTSAC


MEANS_OVER_TASKS = {"train/critic_loss": "critic_loss", "train/actor_loss": "actor_loss", "train/ent_coef": "alpha"}
"""SB3's tags, and the statistics whose means over tasks they are."""


def record_updates(agent: MTSAC) -> None:
    """Record ``train/`` tags after updates, as SB3 does, so that callbacks can read them from the logger.

    Losses and temperatures are means over tasks and over updates since the last log. Where reading them would wait for
    the device, only the log records them. An agent outside ``learn`` may have no logger.
    """
    if not hasattr(agent, "_logger"):
        return
    agent.logger.record("train/learning_rate", agent.lr_schedule(agent._current_progress_remaining))
    agent.logger.record("train/n_updates", agent._n_updates)
    if is_sync_free(agent.device):
        for tag, name in MEANS_OVER_TASKS.items():
            agent.logger.record(tag, float(agent.learner.means.mean(name).mean()))


def record_training(agent: MTSAC) -> None:
    """Record the means of all statistics since the last call, per task; waits for the device."""
    statistics = agent.learner.means.flush()
    _record_tasks(agent, statistics)
    for tag, name in MEANS_OVER_TASKS.items():
        if name in statistics:
            agent.logger.record(tag, float(statistics[name].mean()))
    for role, update in agent.updates.items():
        means = {**update.means.flush(), **update.measurement.means.flush()}
        agreement = means.pop("agreement", None)
        _record_tasks(agent, {f"{name}_{role}": value for name, value in means.items()})
        if agreement is not None:
            agent.logger.record(f"transference/{role}_agreement", float(agreement))
            for name in ("correlation", "correlation_step", "correlation_first_order"):
                agent.logger.record(f"transference/{role}_{name}", getattr(update.measurement, name).flush())
    if agent._n_updates:
        _record_tasks(agent, {f"feature_spread_{role}": spread for role, spread in feature_spread(agent).items()})
    for tag, value in agent._episodes.means().items():
        agent.logger.record(tag, value, exclude=None if tag.endswith("/mean") else "stdout")
    _record_times(agent)


def record_faults(agent: MTSAC) -> list[str]:
    """Record and warn of losses and gradients that were not finite; return messages for which training has to stop."""
    fatal = []
    for role, update in agent.updates.items():
        faults = update.faults.report()
        for fault, message in zip(faults, describe(role, faults, agent.task_names, agent._n_updates), strict=True):
            agent.logger.record(f"nonfinite_{role}/{agent.task_names[fault.task]}", fault.updates, exclude="stdout")
            if fault.in_a_row >= agent.max_nonfinite:
                fatal.append(message)
            else:
                warnings.warn(message, stacklevel=3)
    return fatal


def _record_tasks(agent: MTSAC, means: Mapping[str, Tensor]) -> None:
    for tag, values in means.items():
        for name, value in zip(agent.task_names, values.tolist(), strict=True):
            agent.logger.record(f"{tag}/{name}", value, exclude="stdout")


def _record_times(agent: MTSAC) -> None:
    busy = agent.timing["update"] + agent.timing["transference"]
    if busy > 0:
        agent.logger.record("time/updates_per_second", agent._n_updates / busy)
        agent.logger.record("time/logging_share", agent.timing["logging"] / sum(agent.timing.values()))
    for part, seconds in agent.timing.items():
        agent.logger.record(f"time/{part}_seconds", seconds)
    agent.logger.record("train/learning_rate", agent.lr_schedule(agent._current_progress_remaining))
    agent.logger.record("train/n_updates", agent._n_updates)
