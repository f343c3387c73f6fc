"""Rows of the benchmark of updates: MTSAC under combiners and measures, and other libraries."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import gymnasium as gym
import numpy as np
import torch
from stable_baselines3 import SAC
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.vec_env import DummyVecEnv

from mtrl_transfer import COMBINERS
from mtrl_transfer.agents import MTSAC, MeasureTransference
from mtrl_transfer.agents.declarations import Count, Section
from mtrl_transfer.agents.mtsac.losses import detached
from mtrl_transfer.agents.mtsac.networks import Activation
from mtrl_transfer.gradients import TaskGradients
from mtrl_transfer.update import Update

OBSERVATION, ACTION, STORED = 39, 4, 1_000
"""Widths of Meta-World's observations and actions; vector steps of random transitions to draw from."""


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
    activation: Activation = "relu"
    """Activation of the trunk."""
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


class Row(Protocol):
    """A row of the table."""

    def update(self, options: UpdateOptions) -> Callable[[], object]:
        """Make a function that takes one update."""


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


@dataclass(frozen=True)
class Ours:
    """MTSAC's update.

    Args:
        combiner: name of the combiner.
        settings: arguments of the combiner.
        engine: computes the task gradients.
        alignment: mode of alignment.
        affinity_every: updates between measurements of affinity.
        compile: take compiled updates.
    """

    combiner: str = "mean"
    settings: Mapping[str, Any] = field(default_factory=dict)
    engine: type[Update[Any]] = Update
    alignment: str | None = None
    affinity_every: int | None = None
    compile: bool = False

    def update(self, options: UpdateOptions) -> Callable[[], object]:
        """Make a function that takes one update."""
        agent = random_agent(options, self.combiner, self.settings, self.alignment)
        agent.measuring = MeasureTransference(affinity_every=self.affinity_every)
        agent.learner.compile(options.rows if self.compile else None)
        for update in agent.updates.values():
            update.__class__ = self.engine
        return lambda: agent.train(1, options.rows * options.tasks)


def random_agent(
    options: UpdateOptions, combiner: str, settings: Mapping[str, Any], alignment: str | None = None, **arguments: Any
) -> MTSAC:
    """Make an agent whose replay holds random transitions of Meta-World's shapes, two updates after its start.

    The first update has no step whose length a lookahead could match.

    Args:
        options: sizes.
        combiner: name of a combiner.
        settings: arguments of the combiner.
        alignment: mode of alignment of the policy.
        **arguments: further arguments of `MTSAC`.
    """
    n_tasks = options.tasks
    agent = MTSAC(
        "MultiTaskPolicy",
        DummyVecEnv([lambda task=task: _RandomTask(n_tasks, task) for task in range(n_tasks)]),
        combiner=combiner,
        combiner_kwargs=dict(settings),
        buffer_size=STORED * n_tasks,
        batch_size=options.rows * n_tasks,
        policy_kwargs={"net_arch": list(options.hidden), "layer_norm": options.layer_norm, "alignment": alignment}
        | {"activation_fn": options.activation},
        seed=0,
        **{"device": "cpu", **arguments},
    )
    agent.set_logger(Logger(None, []))
    random = np.random.default_rng(0)
    infos: list[dict[str, Any]] = [{} for _ in range(n_tasks)]
    for _ in range(STORED):
        before, after = random.standard_normal((2, n_tasks, OBSERVATION + n_tasks))
        actions, rewards = random.uniform(-1, 1, (n_tasks, ACTION)), random.uniform(0, 10, n_tasks)
        agent.replay_buffer.add(before, after, actions, rewards, np.zeros(n_tasks, bool), infos)
    agent.train(2, options.rows * n_tasks)
    return agent


class SB3:
    """The update of SB3's SAC with the same networks and total batch, the one-hot in its input."""

    def update(self, options: UpdateOptions) -> Callable[[], object]:
        """Make a function that takes one update."""
        env, arch = DummyVecEnv([lambda: _RandomTask(options.tasks, 0)]), {"net_arch": list(options.hidden)}
        agent = SAC("MlpPolicy", env, policy_kwargs=arch, buffer_size=STORED, device="cpu", seed=0)
        agent.set_logger(Logger(None, []))
        random = np.random.default_rng(0)
        for _ in range(STORED):
            observations = random.standard_normal((2, 1, OBSERVATION + options.tasks))
            agent.replay_buffer.add(*observations, random.uniform(-1, 1, (1, ACTION)), np.ones(1), np.zeros(1), [{}])
        return lambda: agent.train(1, options.rows * options.tasks)


def table_rows(options: UpdateOptions) -> dict[str, Row]:
    """Return the rows by name; the plain update comes first."""
    rows, half = options.lookahead_rows, max(options.lookahead_rows // 2, 1)
    gradient = {"measure": {"name": "lookahead_gradient", "rows": rows}}
    by_optimizer = {"measure": {"name": "lookahead_gradient", "rows": rows, "step_size": "optimizer"}}
    basis = {"measure": {"name": "basis", "rows": rows}, "candidates": "power_set"}
    return {
        "plain": Ours(),
        **{name: Ours(name) for name in sorted(COMBINERS) if name not in ("mean", "transference")},
        "first order, same rows": _transference(measure={"name": "first_order", "held_out": False}),
        f"exact leave-one-out, {rows} held-out rows": _transference(measure={"rows": rows}),
        f"exact leave-one-out, {half} held-out rows": _transference(measure={"rows": half}),
        "exact leave-one-out, every 10": _transference(measure={"rows": rows}, every=10),
        f"lookahead gradient, leave-one-out, {rows} held-out rows": _transference(**gradient),
        f"lookahead gradient, best weights, {rows} held-out rows": _transference(**gradient, candidates="weights"),
        f"lookahead gradient, optimizer's step, {rows} held-out rows": _transference(**by_optimizer),
        f"lookahead gradient, significant, {rows} held-out rows": _transference(**gradient, selector="significant"),
        "hindsight, leave-one-out": _transference(measure={"name": "hindsight", "step_size": "matched"}),
        "hindsight, optimizer's step": _transference(measure="hindsight"),
        "hindsight, best weights": _transference(
            measure={"name": "hindsight", "step_size": "matched"}, candidates="weights"
        ),
        f"basis, best of all subsets, {rows} held-out rows": _transference(**basis),
        "plain, compiled": Ours(compile=True),
        "exact leave-one-out, every 10, compiled": Ours(
            "transference", {"measure": {"rows": rows}, "every": 10}, compile=True
        ),
        "plain, aligned": Ours(alignment="joint"),
        "plain, affinity measured": Ours(affinity_every=1),
        "SB3's SAC, same sizes": SB3(),
        "pcgrad, T autograd.grad calls": Ours("pcgrad", engine=SeparateCalls),
        "pcgrad, TorchJD's mtl_backward": Ours("pcgrad", engine=TorchJD),
    }


def _transference(**settings: Any) -> Ours:
    return Ours("transference", settings)


class _RandomTask(gym.Env[np.ndarray, np.ndarray]):
    """A task of Meta-World's shapes that is never stepped; only its spaces are used."""

    def __init__(self, n_tasks: int, task: int) -> None:
        self.observation_space = gym.spaces.Box(-np.inf, np.inf, (OBSERVATION + n_tasks,), np.float32)
        self.action_space = gym.spaces.Box(-1.0, 1.0, (ACTION,), np.float32)
        self.task_name = f"task-{task}"
