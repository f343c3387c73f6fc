"""What an update costs: combiners and measures side by side in one interleaved run, beside other libraries."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
import torch
from rich.table import Table
from stable_baselines3 import SAC
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.vec_env import DummyVecEnv
from torch.utils.flop_counter import FlopCounterMode

from agents import MTSAC
from agents.trunk_lookahead import detached
from agents.trunk_update import TrunkUpdate
from mtrl_transfer.gradients import TaskGradients

OBSERVATION, ACTION, STORED = 39, 4, 1_000
"""Widths of Meta-World's observations and actions; vector steps of random transitions to draw from."""


class Case(NamedTuple):
    """One row of the table: ``update()`` takes one update."""

    name: str
    update: Callable[[], None]


class Timing(NamedTuple):
    """Milliseconds of one update, its ratio to the plain update's (medians over rounds).

    ``ratio`` and its quartiles come from the rounds' own ratios: each round runs all cases one after the other.
    """

    name: str
    milliseconds: float
    ratio: float
    low: float
    high: float


class Sizes(NamedTuple):
    """Size of the problem: tasks, rows a task, trunk, LayerNorm, rows a task for lookahead."""

    n_tasks: int = 10
    rows: int = 128
    hidden: tuple[int, ...] = (400, 400, 400)
    layer_norm: bool = False
    lookahead_rows: int = 32


def benchmark_update(sizes: Sizes, rounds: int = 15, only: Sequence[str] | None = None) -> list[Timing]:
    """Time updates of MTSAC under combiners and measures, of SB3's SAC, and of other ways to task gradients.

    Args:
        sizes: of the problem; transitions are random numbers of Meta-World's shapes.
        rounds: each runs every case once, in turn, so that the machine's moods meet all alike.
        only: names of cases to run besides the plain update; None: all.
    """
    made = [case for case in cases(sizes) if only is None or case.name in (*only, "plain")]
    for case in made:
        case.update()
    seconds: dict[str, list[float]] = {case.name: [] for case in made}
    for _ in range(rounds):
        for case in made:
            start = time.perf_counter()
            case.update()
            seconds[case.name].append(time.perf_counter() - start)
    return [_timing(case, seconds) for case in made]


def cases(sizes: Sizes) -> list[Case]:
    """All rows of the table, the plain update first."""
    both = {"lookahead_rows": sizes.lookahead_rows}
    half = {"lookahead_rows": max(sizes.lookahead_rows // 2, 1)}
    kwargs: dict[str, tuple[str, dict[str, Any]]] = {
        "plain": ("mean", {}),
        "pcgrad": ("pcgrad", {}),
        "first order, same rows": ("transference", {"measure": "first_order", "lookahead_batch": "same"}),
        f"exact leave-one-out, {both['lookahead_rows']} held-out rows": ("transference", both),
        f"exact leave-one-out, {half['lookahead_rows']} held-out rows": ("transference", half),
        "exact leave-one-out, every 10": ("transference", {**both, "every": 10}),
        "basis, all subsets": ("transference", {**both, "measure": "basis", "candidates": "power_set"}),
    }
    agents = {name: _agent(sizes, combiner, options) for name, (combiner, options) in kwargs.items()}
    listed = [Case(name, _trains(agent, sizes)) for name, agent in agents.items()]
    listed.append(Case("SB3's SAC, same sizes", _sb3(sizes)))
    for name, engine in (("pcgrad, T autograd.grad calls", SeparateCalls), ("pcgrad, TorchJD's mtl_backward", TorchJD)):
        agent = _agent(sizes, "pcgrad", {})
        for update in agent.updates.values():
            update.__class__ = engine
        listed.append(Case(name, _trains(agent, sizes)))
    return listed


def product_rate(seconds: float = 2.0) -> float:
    """Best rate of float32 matrix products here at torch's current precision, in floating-point operations a second."""
    best, until = 0.0, time.perf_counter() + seconds
    squares = [torch.randn(size, size) for size in (1024, 2048)]
    while time.perf_counter() < until:
        for square in squares:
            start = time.perf_counter()
            square @ square
            best = max(best, 2 * len(square) ** 3 / (time.perf_counter() - start))
    return best


def plain_operations(sizes: Sizes) -> int:
    """Floating-point operations of the plain update's matrix products."""
    update = _trains(_agent(sizes, "mean", {}), sizes)
    update()
    with FlopCounterMode(display=False) as counter:
        update()
    return int(counter.get_total_flops())


def table(timings: Sequence[Timing], title: str) -> Table:
    """The timings as a table."""
    shown = Table(title=title)
    shown.add_column("update")
    for column in ("ms", "ratio to plain", "quartiles"):
        shown.add_column(column, justify="right")
    for row in timings:
        spread = f"{row.low:.2f} to {row.high:.2f}"
        shown.add_row(row.name, f"{row.milliseconds:.1f}", f"{row.ratio:.2f}", spread)
    return shown


class SeparateCalls(TrunkUpdate[Any]):
    """Task gradients by T separate backward passes, as most PCGrad code takes them."""

    def _task_gradients(self, batch: Any) -> tuple[TaskGradients, Any]:
        rows = self.loss(batch)
        losses = rows.losses.squeeze(0).mean(dim=-1)
        parameters = [*self.network.trunk.values(), *self.network.heads.values()]
        calls = [torch.autograd.grad(loss, parameters, retain_graph=True) for loss in losses]
        n_trunk = len(self.network.trunk)
        shared = {name: torch.stack([call[i] for call in calls]) for i, name in enumerate(self.network.trunk)}
        heads = {name: sum(call[n_trunk + i] for call in calls) for i, name in enumerate(self.network.heads)}
        return TaskGradients(losses.detach(), shared, heads), detached(rows)


class TorchJD(TrunkUpdate[Any]):
    """Task gradients by TorchJD's engine."""

    def _task_gradients(self, batch: Any) -> tuple[TaskGradients, Any]:
        from torchjd.autojac import mtl_backward

        own, features = self.network.features, []
        self.network.features = lambda *arguments: features.append(own(*arguments)) or features[-1]  # type: ignore[method-assign, func-returns-value]
        rows = self.loss(batch)
        del self.network.features
        losses = rows.losses.squeeze(0).mean(dim=-1)
        trunk, heads = dict(self.network.trunk.items()), dict(self.network.heads.items())
        for head in heads.values():
            head.grad = None
        tasks_params = [list(heads.values())] * len(losses)
        engine = {"features": features[0], "tasks_params": tasks_params, "shared_params": trunk.values()}
        mtl_backward(list(losses), retain_graph=True, **engine)
        shared = {name: parameter.jac for name, parameter in trunk.items()}
        for parameter in trunk.values():
            del parameter.jac
        found = TaskGradients(losses.detach(), shared, {name: head.grad for name, head in heads.items()})
        return found, detached(rows)


def _timing(case: Case, seconds: dict[str, list[float]]) -> Timing:
    own, plain = np.array(seconds[case.name]), np.array(seconds["plain"])
    low, ratio, high = np.quantile(own / plain, [0.25, 0.5, 0.75])
    return Timing(case.name, 1e3 * statistics.median(own), ratio, low, high)


class _RandomTask(gym.Env[np.ndarray, np.ndarray]):
    """A task of Meta-World's shapes that is never stepped: only its spaces count."""

    def __init__(self, n_tasks: int, task: int) -> None:
        self.observation_space = gym.spaces.Box(-np.inf, np.inf, (OBSERVATION + n_tasks,), np.float32)
        self.action_space = gym.spaces.Box(-1.0, 1.0, (ACTION,), np.float32)
        self.task_name = f"task-{task}"


def _agent(sizes: Sizes, combiner: str, options: dict[str, Any]) -> MTSAC:
    n_tasks = sizes.n_tasks
    env = DummyVecEnv([lambda task=task: _RandomTask(n_tasks, task) for task in range(n_tasks)])
    agent = MTSAC(
        "MultiTaskPolicy",
        env,
        combiner=combiner,
        combiner_kwargs=options,
        buffer_size=STORED * n_tasks,
        batch_size=sizes.rows * n_tasks,
        policy_kwargs={"net_arch": list(sizes.hidden), "layer_norm": sizes.layer_norm},
        seed=0,
    )
    random = np.random.default_rng(0)
    infos: list[dict[str, Any]] = [{} for _ in range(n_tasks)]
    for _ in range(STORED):
        observations = random.standard_normal((2, n_tasks, OBSERVATION + n_tasks))
        actions, rewards = random.uniform(-1, 1, (n_tasks, ACTION)), random.uniform(0, 10, n_tasks)
        before, after = observations
        agent.replay_buffer.add(before, after, actions, rewards, np.zeros(n_tasks, bool), infos)
    agent.train(2, sizes.rows * n_tasks)  # past the first step, which has no length to match
    return agent


def _trains(agent: MTSAC, sizes: Sizes) -> Callable[[], None]:
    return lambda: agent.train(1, sizes.rows * sizes.n_tasks)


def _sb3(sizes: Sizes) -> Callable[[], None]:
    """SB3's SAC with the same networks and total batch, the one-hot in its input."""
    env = DummyVecEnv([lambda: _RandomTask(sizes.n_tasks, 0)])
    agent = SAC(
        "MlpPolicy", env, policy_kwargs={"net_arch": list(sizes.hidden)}, buffer_size=STORED, device="cpu", seed=0
    )
    agent.set_logger(Logger(None, []))
    random, width = np.random.default_rng(0), OBSERVATION + sizes.n_tasks
    for _ in range(STORED):
        observations = random.standard_normal((2, 1, width))
        agent.replay_buffer.add(*observations, random.uniform(-1, 1, (1, ACTION)), np.ones(1), np.zeros(1), [{}])
    return lambda: agent.train(1, sizes.rows * sizes.n_tasks)
