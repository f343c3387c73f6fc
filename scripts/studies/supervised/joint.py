"""One network for all tasks under any combiner, measured on the way."""

from __future__ import annotations

import time
from typing import NamedTuple

import torch
from torch import Tensor

from mtrl_transfer import Combiner, FunctionalModel, Update
from mtrl_transfer.scales import divide
from studies.supervised.networks import Parameters, batches, initial, take, task_losses
from studies.supervised.settings import Settings
from studies.supervised.suites import Rows, Suite

Batch = tuple[Tensor, Tensor]


class Joint(NamedTuple):
    """Test losses `[T]`, affinity of each measurement `[n, T giver, T receiver]`, and the share of time it took."""

    losses: Tensor
    affinity: Tensor
    overhead: float


def train_joint(suite: Suite, settings: Settings, seed: int, combiner: Combiner, every: int | None) -> Joint:
    """Train all tasks together, from the start and on the rows that `train_every_group` takes for this seed.

    Args:
        suite: the tasks.
        settings: of the study.
        seed: of the start, the rows and the combiner.
        combiner: of the trunk's task gradients; heads take their own task's, over T.
        every: updates between measurements of pairwise transference on rows apart; None: none. It changes nothing.
    """
    trunk, heads = ({name: value.requires_grad_() for name, value in part.items()} for part in initial(suite, seed))
    optimizer = torch.optim.Adam([*trunk.values(), *heads.values()], lr=settings.learning_rate)
    update = Update(FunctionalModel(None, trunk, heads, losses=_losses), optimizer, combiner)
    order = batches(suite, seed, settings.steps, settings.batch)
    apart = torch.Generator().manual_seed(2_000 + seed)
    measured, start = [], time.perf_counter()

    def held_out(rows: int, generator: torch.Generator) -> Batch:
        return _by_task(take(suite.train, torch.randint(len(suite.train.x), (rows,), generator=apart)))

    for step in range(settings.steps):
        due = every is not None and step % every == 0
        update.step(_by_task(take(suite.train, order[step])), held_out, affinity=settings.batch if due else None)
        if found := update.measurement.history.flush():
            measured.append(divide(found["decrease"], found["scale"]))
    seconds = update.transference_seconds
    overhead = seconds / (time.perf_counter() - start - seconds)
    with torch.no_grad():
        losses = task_losses(trunk, heads, suite.test)
    affinity = torch.stack(measured) if measured else torch.zeros(0, suite.n_tasks, suite.n_tasks)
    return Joint(losses, affinity, overhead)


def _by_task(rows: Rows) -> Batch:
    """As the library takes it, tasks first: `x [T, n, d]`, `y [T, n]`."""
    n_tasks = rows.y.shape[1]
    return rows.x.expand(n_tasks, *rows.x.shape), rows.y.mT


def _losses(trunk: Parameters, heads: Parameters, batch: Batch) -> Tensor:
    """All tasks at once, each through its own slice of the trunk."""
    one_each = {name: value.unsqueeze(1) for name, value in heads.items()}
    return task_losses(trunk, one_each, Rows(batch[0], batch[1].unsqueeze(-1))).squeeze(-1)
