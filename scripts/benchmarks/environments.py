"""How fast environments step and start, against Meta-World's own vector environments."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import metaworld
import numpy as np

from mtrl_transfer.envs.make import make_vec_env
from mtrl_transfer.envs.metaworld.suites import SUITES
from mtrl_transfer.envs.vec_env import available_cores

Step = Callable[[np.ndarray], Any]


def benchmark_envs(suite: str = "MT10", n_goals: int = 50, rounds: int = 10, steps: int = 50) -> dict[str, Any]:
    """Time our vector environment (one process; one per core) and Meta-World's `make_vec` (sync; async) side by side.

    The four step the same random actions in turns, `rounds` times `steps` vector steps each, so that whatever else the
    machine does meets all of them alike. Ten rounds of 50 are one episode and contain one reset.

    Args:
        suite: `"MT10"`, `"MT25"` or `"MT50"`.
        n_goals: Goals per task; decides the time to make an environment.
        rounds: Turns; medians are over them.
        steps: Vector steps in a turn.

    Returns:
        JSON-able: `transitions_per_second` and `creation_seconds` of each contender; `step_ratios` of ours to the
        better of Meta-World's (median over turns) and `creation_ratio` of our one process to Meta-World's sync.
    """
    makers = _contenders(suite, n_goals)
    n_tasks = len(SUITES[suite])
    running: dict[str, tuple[Step, Callable[[], None]]] = {}
    creation = {}
    for name, make in makers.items():
        started = time.perf_counter()
        running[name] = make()
        creation[name] = time.perf_counter() - started
    actions = np.random.default_rng(0).uniform(-1, 1, (rounds * steps, n_tasks, 4)).astype(np.float32)
    turns = [_turn(running, actions[turn * steps : (turn + 1) * steps]) for turn in range(rounds)]
    for _, close in running.values():
        close()
    rates = {name: n_tasks * steps / statistics.median(turn[name] for turn in turns) for name in makers}
    return {
        "suite": suite,
        "cores": available_cores(),
        "transitions_per_second": {name: round(rate) for name, rate in rates.items()},
        "step_ratios": {name: _ratio(turns, name) for name in ("ours, one process", "ours, one per core")},
        "creation_seconds": {name: round(seconds, 2) for name, seconds in creation.items()},
        "creation_ratio": round(creation["ours, one process"] / creation["metaworld sync"], 2),
    }


def _contenders(suite: str, n_goals: int) -> dict[str, Callable[[], tuple[Step, Callable[[], None]]]]:
    """Per name: make an environment, reset it once, and return how to step and close it."""

    def ours(n_procs: int | None) -> tuple[Step, Callable[[], None]]:
        env = make_vec_env(suite, n_procs=n_procs, n_goals=n_goals)
        env.reset()
        return env.step, env.close

    def theirs(strategy: str) -> tuple[Step, Callable[[], None]]:
        default = metaworld._N_GOALS
        try:  # `num_goals` sets a global of Meta-World's
            env = gym.make_vec(
                f"Meta-World/{suite}", vector_strategy=strategy, seed=1, use_one_hot=True, num_goals=n_goals
            )
        finally:
            metaworld._N_GOALS = default
        env.reset()
        return env.step, env.close

    return {
        "ours, one process": lambda: ours(1),
        "metaworld sync": lambda: theirs("sync"),
        "ours, one per core": lambda: ours(None),
        "metaworld async": lambda: theirs("async"),
    }


def _ratio(turns: list[dict[str, float]], name: str) -> float:
    """How many times as fast as the better of Meta-World's; median over turns."""
    return round(
        statistics.median(min(turn["metaworld sync"], turn["metaworld async"]) / turn[name] for turn in turns), 2
    )


def _turn(running: dict[str, tuple[Step, Callable[[], None]]], actions: np.ndarray) -> dict[str, float]:
    """Seconds each contender takes for the same actions."""
    seconds = {}
    for name, (step, _) in running.items():
        started = time.perf_counter()
        for action in actions:
            step(action)
        seconds[name] = time.perf_counter() - started
    return seconds
