"""Benchmark of updates: combiners and measures side by side in one interleaved run, beside other libraries."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal, NamedTuple

import gymnasium as gym
import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from stable_baselines3 import SAC
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.vec_env import DummyVecEnv
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from mtrl_transfer import COMBINERS
from mtrl_transfer.agents import MTSAC, MeasureTransference
from mtrl_transfer.agents.declarations import Count, Section
from mtrl_transfer.agents.mtsac.losses import detached
from mtrl_transfer.agents.runs.config.loading import section
from mtrl_transfer.agents.runs.errors import InputError, did_you_mean
from mtrl_transfer.agents.runs.torch_settings import torch_settings
from mtrl_transfer.gradients import TaskGradients
from mtrl_transfer.update import Update

OBSERVATION, ACTION, STORED = 39, 4, 1_000
"""Widths of Meta-World's observations and actions; vector steps of random transitions to draw from."""


class Timing(NamedTuple):
    """Milliseconds of one update, its ratio to the plain update's (medians over rounds), and its memory.

    ``ratio`` and its quartiles come from the rounds' own ratios: each round runs all cases one after the other.
    ``megabytes`` is the most that an update's tensors take beyond what is there between updates.
    """

    name: str
    milliseconds: float
    ratio: float
    low: float
    high: float
    megabytes: float


class UpdateOptions(Section):
    """Options of the benchmark of updates."""

    tasks: Count = 10
    """Tasks."""
    rows: Count = 128
    """Rows of a task in an update."""
    hidden: tuple[Count, ...] = (400, 400, 400)
    """Widths of the trunk."""
    layer_norm: bool = False
    """LayerNorm in the trunk."""
    lookahead_rows: Count = 32
    """Held-out rows of a task."""
    matmul_precision: Literal["highest", "high", "medium"] = "medium"
    """Precision of torch's products, for all rows."""
    threads: Count | None = None
    """Threads of torch; null: torch's own choice."""
    rounds: Count = 15
    """Turns; medians are over them."""
    only: tuple[str, ...] | None = None
    """Names of rows to run beside the plain update; null: all."""


def run(overrides: Sequence[str], console: Console) -> None:
    """Print the table of updates: ratios to our own plain update, with quartiles over interleaved rounds."""
    options = section(UpdateOptions, overrides)
    with torch_settings(options.matmul_precision, options.threads):
        timings = benchmark_update(options)
        floor = 1e3 * plain_operations(options) / product_rate()
    console.print(table(timings, options))
    console.print(
        f"Floor of the plain update (its products at the best rate measured here): {floor:.1f} ms; "
        f"plain is {timings[0].milliseconds / floor:.2f} times that.",
        highlight=False,
    )


def benchmark_update(options: UpdateOptions) -> list[Timing]:
    """Time updates of MTSAC under combiners and measures, of SB3's SAC, and of other ways to task gradients.

    Transitions are random numbers of Meta-World's shapes. Each round runs every case once, in turn, so whatever else
    the machine does slows all equally.

    Raises:
        InputError: for a name in ``only`` that no row has.
    """
    makers = cases(options)
    for name in options.only or ():
        if name not in makers:
            raise InputError(f"only={name!r} is no row of the table{did_you_mean(name, makers)}")
    wanted = makers if options.only is None else ("plain", *options.only)
    updates = {name: make() for name, make in makers.items() if name in wanted}
    for update in updates.values():
        update()
    peaks = {name: peak_megabytes(update) for name, update in updates.items()}
    seconds: dict[str, list[float]] = {name: [] for name in updates}
    for _ in range(options.rounds):
        for name, update in updates.items():
            start = time.perf_counter()
            update()
            seconds[name].append(time.perf_counter() - start)
    return [_timing(name, seconds, peaks[name]) for name in updates]


def cases(options: UpdateOptions) -> dict[str, Callable[[], Callable[[], None]]]:
    """Makers of each row's update, by the row's name; the plain update comes first."""
    rows, half = options.lookahead_rows, max(options.lookahead_rows // 2, 1)
    measured: dict[str, dict[str, Any]] = {
        "first order, same rows": {"measure": {"name": "first_order", "held_out": False}},
        f"exact leave-one-out, {rows} held-out rows": {"measure": {"rows": rows}},
        f"exact leave-one-out, {half} held-out rows": {"measure": {"rows": half}},
        "exact leave-one-out, every 10": {"measure": {"rows": rows}, "every": 10},
        f"basis, best of all subsets, {rows} held-out rows": {
            "measure": {"name": "basis", "rows": rows},
            "candidates": "power_set",
        },
    }
    ours: dict[str, tuple[str, dict[str, Any]]] = {"plain": ("mean", {})}
    ours |= {name: (name, {}) for name in sorted(COMBINERS) if name not in ("mean", "transference")}
    ours |= {name: ("transference", settings) for name, settings in measured.items()}
    return {
        **{name: partial(_ours, options, *method) for name, method in ours.items()},
        "plain, aligned": partial(_ours, options, "mean", {}, alignment="joint"),
        "plain, affinity measured": partial(_ours, options, "mean", {}, affinity_every=1),
        "SB3's SAC, same sizes": partial(_sb3, options),
        "pcgrad, T autograd.grad calls": partial(_ours, options, "pcgrad", {}, SeparateCalls),
        "pcgrad, TorchJD's mtl_backward": partial(_ours, options, "pcgrad", {}, TorchJD),
    }


def peak_megabytes(update: Callable[[], None]) -> float:
    """Return the most memory that torch's tensors take during a call, beyond what they take before."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as watched:
        update()
    assert watched.profiler is not None
    events = [event for event in watched.profiler.kineto_results.events() if event.name() == "[memory]"]
    changes = [event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())]
    return float(np.cumsum([0, *changes]).max()) / 1e6


def product_rate(seconds: float = 2.0) -> float:
    """Measure the best rate of float32 matrix products at torch's current precision, in operations a second."""
    best, until = 0.0, time.perf_counter() + seconds
    squares = [torch.randn(size, size) for size in (1024, 2048)]
    while time.perf_counter() < until:
        for square in squares:
            start = time.perf_counter()
            square @ square
            best = max(best, 2 * len(square) ** 3 / (time.perf_counter() - start))
    return best


def plain_operations(options: UpdateOptions) -> int:
    """Count the floating-point operations of the plain update's matrix products."""
    update = _ours(options, "mean", {})
    update()
    with FlopCounterMode(display=False) as counter:
        update()
    return int(counter.get_total_flops())


def table(timings: Sequence[Timing], options: UpdateOptions) -> Table:
    """Return the timings as a table."""
    norm = " with LayerNorm" if options.layer_norm else ""
    shown = Table(
        title=f"{options.tasks} tasks, {options.rows} rows each, {list(options.hidden)}{norm}, "
        f"{options.threads or torch.get_num_threads()} threads, precision {options.matmul_precision}"
    )
    shown.add_column("update")
    for column in ("ms", "ratio to plain", "quartiles", "peak MB"):
        shown.add_column(column, justify="right")
    for row in timings:
        spread = f"{row.low:.2f} to {row.high:.2f}"
        shown.add_row(row.name, f"{row.milliseconds:.1f}", f"{row.ratio:.2f}", spread, f"{row.megabytes:.1f}")
    return shown


class SeparateCalls(Update[Any]):
    """Task gradients by T separate backward passes, as in most PCGrad code."""

    def _task_gradients(self, batch: Any) -> tuple[TaskGradients, Any]:
        loss: Any = self.model
        rows = loss(batch)
        losses = rows.losses.squeeze(0).mean(dim=-1)
        parameters = [*loss.trunk.values(), *loss.heads.values()]
        calls = [torch.autograd.grad(loss, parameters, retain_graph=True) for loss in losses]
        n_trunk = len(loss.trunk)
        shared = {name: torch.stack([call[i] for call in calls]) for i, name in enumerate(loss.trunk)}
        heads = {name: sum(call[n_trunk + i] for call in calls) for i, name in enumerate(loss.heads)}
        return TaskGradients(losses.detach(), shared, heads), detached(rows)


class TorchJD(Update[Any]):
    """Task gradients by TorchJD's engine."""

    def _task_gradients(self, batch: Any) -> tuple[TaskGradients, Any]:
        from torchjd.autojac import mtl_backward

        loss: Any = self.model
        own, features = loss.network.features, []
        loss.network.features = lambda *arguments: features.append(own(*arguments)) or features[-1]  # type: ignore[func-returns-value]
        rows = loss(batch)
        del loss.network.features
        losses = rows.losses.squeeze(0).mean(dim=-1)
        trunk, heads = dict(loss.trunk), dict(loss.heads)
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


def _timing(name: str, seconds: dict[str, list[float]], megabytes: float) -> Timing:
    own, plain = np.array(seconds[name]), np.array(seconds["plain"])
    low, ratio, high = np.quantile(own / plain, [0.25, 0.5, 0.75])
    return Timing(name, 1e3 * statistics.median(own), ratio, low, high, megabytes)


class _RandomTask(gym.Env[np.ndarray, np.ndarray]):
    """A task of Meta-World's shapes that is never stepped; only its spaces are used."""

    def __init__(self, n_tasks: int, task: int) -> None:
        self.observation_space = gym.spaces.Box(-np.inf, np.inf, (OBSERVATION + n_tasks,), np.float32)
        self.action_space = gym.spaces.Box(-1.0, 1.0, (ACTION,), np.float32)
        self.task_name = f"task-{task}"


def random_agent(
    options: UpdateOptions,
    combiner: str,
    settings: dict[str, Any],
    alignment: str | None = None,
    affinity_every: int | None = None,
    **arguments: Any,
) -> MTSAC:
    """Return an agent whose replay holds random transitions of Meta-World's shapes, two updates after its start.

    Args:
        options: sizes.
        combiner: name of a combiner.
        settings: of the combiner.
        alignment: of the policy.
        affinity_every: updates between measurements of affinity; None: none.
        **arguments: further arguments of `MTSAC`.
    """
    n_tasks = options.tasks
    env = DummyVecEnv([lambda task=task: _RandomTask(n_tasks, task) for task in range(n_tasks)])
    agent = MTSAC(
        "MultiTaskPolicy",
        env,
        combiner=combiner,
        combiner_kwargs=settings,
        buffer_size=STORED * n_tasks,
        batch_size=options.rows * n_tasks,
        policy_kwargs={
            "net_arch": list(options.hidden),
            "layer_norm": options.layer_norm,
            "alignment": alignment,
        },
        seed=0,
        **{"device": "cpu", **arguments},
    )
    agent.set_logger(Logger(None, []))
    random = np.random.default_rng(0)
    infos: list[dict[str, Any]] = [{} for _ in range(n_tasks)]
    for _ in range(STORED):
        observations = random.standard_normal((2, n_tasks, OBSERVATION + n_tasks))
        actions, rewards = random.uniform(-1, 1, (n_tasks, ACTION)), random.uniform(0, 10, n_tasks)
        before, after = observations
        agent.replay_buffer.add(before, after, actions, rewards, np.zeros(n_tasks, bool), infos)
    agent.measuring = MeasureTransference(affinity_every=affinity_every)
    agent.train(2, options.rows * n_tasks)  # past the first step, which has no length to match
    return agent


def _ours(
    options: UpdateOptions,
    combiner: str,
    settings: dict[str, Any],
    engine: type[Update[Any]] = Update,
    alignment: str | None = None,
    affinity_every: int | None = None,
) -> Callable[[], None]:
    """Return MTSAC's update under a combiner, with task gradients by an engine."""
    agent = random_agent(options, combiner, settings, alignment, affinity_every)
    for update in agent.updates.values():
        update.__class__ = engine
    return lambda: agent.train(1, options.rows * options.tasks)


def _sb3(options: UpdateOptions) -> Callable[[], None]:
    """Return the update of SB3's SAC with the same networks and total batch, the one-hot in its input."""
    env = DummyVecEnv([lambda: _RandomTask(options.tasks, 0)])
    agent = SAC(
        "MlpPolicy", env, policy_kwargs={"net_arch": list(options.hidden)}, buffer_size=STORED, device="cpu", seed=0
    )
    agent.set_logger(Logger(None, []))
    random, width = np.random.default_rng(0), OBSERVATION + options.tasks
    for _ in range(STORED):
        observations = random.standard_normal((2, 1, width))
        agent.replay_buffer.add(*observations, random.uniform(-1, 1, (1, ACTION)), np.ones(1), np.zeros(1), [{}])
    return lambda: agent.train(1, options.rows * options.tasks)
