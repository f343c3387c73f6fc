"""Combiners of task gradients compared on the same starts and rows."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from rich.console import Console

from mtrl_transfer import make_combiner
from mtrl_transfer.agents.runs.report.numbers import Estimate, mean_with_interval
from studies.supervised.joint import Joint, train_joint
from studies.supervised.settings import Settings
from studies.supervised.suites import Suite

METHODS: dict[str, tuple[str, dict[str, Any]]] = {
    "mean": ("mean", {}),
    "PCGrad": ("pcgrad", {}),
    "transference": ("transference", {}),
    "transference + PCGrad": ("transference", {"inner": "pcgrad"}),
}


class Compared(NamedTuple):
    """Joint runs under each method.

    - `relative`: by method, the mean over tasks of the test loss over that of `mean` at the same seed.
    - `affinities`: `[seeds, T giver, T receiver]`, measured under `mean`.
    - `overhead`: median share of the time of these runs that measuring took.
    """

    relative: dict[str, Estimate]
    affinities: np.ndarray
    overhead: float


def compare_combiners(suite: Suite, settings: Settings, console: Console) -> Compared:
    """Train all tasks together under each method, for each seed."""
    runs: dict[str, list[Joint]] = {}
    for name, (kind, kwargs) in METHODS.items():
        console.print(f"All tasks together by {name}: {settings.seeds} seeds ...", highlight=False)
        runs[name] = [_run(suite, settings, seed, kind, kwargs, name == "mean") for seed in range(settings.seeds)]
    losses = {name: np.stack([run.losses.numpy() for run in found]) for name, found in runs.items()}
    relative = {name: mean_with_interval((found / losses["mean"]).mean(axis=1)) for name, found in losses.items()}
    affinities = np.stack([run.affinity.mean(dim=0).numpy() for run in runs["mean"]])
    return Compared(relative, affinities, float(np.median([run.overhead for run in runs["mean"]])))


def _run(suite: Suite, settings: Settings, seed: int, kind: str, kwargs: dict[str, Any], measure: bool) -> Joint:
    combiner = make_combiner(kind, **kwargs)
    combiner.seed(seed)
    return train_joint(suite, settings, seed, combiner, settings.every if measure else None)
