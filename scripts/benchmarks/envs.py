"""Benchmark of environments: speed of stepping and starting, beside Meta-World's own vector environments."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, Literal

import gymnasium as gym
import metaworld
import numpy as np
from rich.console import Console
from rich.table import Table

from mtrl_transfer.agents.runs.config.loading import section
from mtrl_transfer.agents.runs.config.schema import Count, Section
from mtrl_transfer.envs.make import make_vec_env
from mtrl_transfer.envs.metaworld.suites import SUITES


class Options(Section):
    """Options of the benchmark of environments."""

    suite: Literal["MT10", "MT25", "MT50"] = "MT10"
    """Tasks."""
    n_goals: Count = 50
    """Goals of a task; they decide the time to make an environment."""
    rounds: Count = 10
    """Turns; medians are over them."""
    steps: Count = 50
    """Vector steps in a turn; ten turns of 50 are one episode and contain one reset."""


def run(overrides: Sequence[str], console: Console) -> None:
    """Print seconds to make our vector environments and Meta-World's, transitions a second, and ratios.

    All step the same random actions in turns, so whatever else the machine does slows them equally.
    """
    options = section(Options, overrides)
    makers: dict[str, Callable[[], Any]] = {
        "ours, one process": lambda: make_vec_env(options.suite, n_procs=1, n_goals=options.n_goals),
        "ours, one per core": lambda: make_vec_env(options.suite, n_procs=None, n_goals=options.n_goals),
        "metaworld sync": lambda: _meta_world(options, "sync"),
        "metaworld async": lambda: _meta_world(options, "async"),
    }
    made, creation = {}, {}
    for name, make in makers.items():
        start = time.perf_counter()
        made[name] = make()
        made[name].reset()
        creation[name] = time.perf_counter() - start
    draw, n_tasks = np.random.default_rng(0), len(SUITES[options.suite])
    seconds: dict[str, list[float]] = {name: [] for name in made}
    for _ in range(options.rounds):
        actions = draw.uniform(-1, 1, (options.steps, n_tasks, 4)).astype(np.float32)
        for name, env in made.items():
            start = time.perf_counter()
            for action in actions:
                env.step(action)
            seconds[name].append(time.perf_counter() - start)
    for env in made.values():
        env.close()
    theirs = np.minimum(seconds["metaworld sync"], seconds["metaworld async"])
    table = Table("environments", "seconds to make", "transitions a second", "times the better of Meta-World's")
    for name, spent in seconds.items():
        rate = n_tasks * options.steps / np.median(spent)
        table.add_row(name, f"{creation[name]:.2f}", f"{rate:,.0f}", f"{np.median(theirs / spent):.2f}")
    console.print(table)


def _meta_world(options: Options, strategy: str) -> Any:
    default = metaworld._N_GOALS
    try:  # `num_goals` sets a global of Meta-World's
        return gym.make_vec(
            f"Meta-World/{options.suite}",
            vector_strategy=strategy,
            seed=1,
            use_one_hot=True,
            num_goals=options.n_goals,
        )
    finally:
        metaworld._N_GOALS = default
