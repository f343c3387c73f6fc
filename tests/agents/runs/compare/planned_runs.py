"""Short planned runs of the Point suite."""

from __future__ import annotations

from pathlib import Path

from mtrl_transfer.agents.runs.compare.planned import PlannedRun
from mtrl_transfer.agents.runs.config.loading import load_config

SHORT = (
    "env.id=Point-3",
    "total_timesteps=600",
    "agent.learning_starts=90",
    "agent.batch_size=24",
    "measure.every=20",
    "agent.policy_kwargs.net_arch=[8]",
    "evaluation.every=150",
    "evaluation.n_goals=2",
    "evaluation.final_n_goals=4",
    "checkpoint.every=150",
    "log.every=150",
    "log.figures_every=300",
)


def planned(folder: Path, label: str, *overrides: str) -> PlannedRun:
    """A run in ``folder/label``; later overrides win over `SHORT`."""
    keys = [override.partition("=")[0] for override in overrides]
    kept = [line for line in SHORT if line.partition("=")[0] not in keys]
    return PlannedRun(label, load_config("point", [*kept, *overrides]), folder / label)
