"""One network for all tasks under any combiner, measured on the way."""

from __future__ import annotations

import time
from typing import NamedTuple

import torch
from torch import Tensor

from mtrl_transfer import (
    Combiner,
    candidates,
    combine,
    gramian,
    make_context,
    per_task_gradients,
    step_norm,
    transference,
)
from mtrl_transfer.steps import matched_step_size
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
    order = batches(suite, seed, settings.steps, settings.batch)
    apart = torch.Generator().manual_seed(2_000 + seed)
    last_step, measured, seconds, start = torch.zeros(()), [], 0.0, time.perf_counter()

    def held_out() -> Batch:
        return _by_task(take(suite.train, torch.randint(len(suite.train.x), (settings.batch,), generator=apart)))

    for step in range(settings.steps):
        batch = _by_task(take(suite.train, order[step]))
        grads = per_task_gradients(None, trunk, heads, batch, losses=_losses)
        gram = gramian(grads.shared_grads)
        if every is not None and step % every == 0 and last_step > 0:
            begun, arguments = time.perf_counter(), (trunk, heads, batch, candidates.singletons(suite.n_tasks))
            size = matched_step_size(gram, last_step)
            measured.append(
                transference(
                    None, *arguments, size, shared_grads=grads.shared_grads, lookahead_batch=held_out(), losses=_losses
                )
            )
            seconds += time.perf_counter() - begun
        context = None
        if combiner.needs_context:
            context = make_context(
                None, trunk, heads, batch, grads, lookahead_batch=held_out(), step_norm=last_step, losses=_losses
            )
        weights = combiner(gram, context)
        last_step = _step(optimizer, trunk, heads, combine(grads.shared_grads, weights), grads.head_grads)
    overhead = seconds / (time.perf_counter() - start - seconds)
    with torch.no_grad():
        losses = task_losses(trunk, heads, suite.test)
    return Joint(losses, torch.stack(measured) if measured else torch.zeros(0, *gram.shape), overhead)


def _step(
    optimizer: torch.optim.Optimizer, trunk: Parameters, heads: Parameters, shared: Parameters, own: Parameters
) -> Tensor:
    """Take the optimizer's step; returns how far the trunk went."""
    n_tasks = len(heads["bias"])
    for name, gradient in shared.items():
        trunk[name].grad = gradient
    for name, gradient in own.items():
        heads[name].grad = gradient / n_tasks
    before = {name: value.detach().clone() for name, value in trunk.items()}
    optimizer.step()
    return step_norm(before, trunk)


def _by_task(rows: Rows) -> Batch:
    """As the library takes it, tasks first: `x [T, n, d]`, `y [T, n]`."""
    n_tasks = rows.y.shape[1]
    return rows.x.expand(n_tasks, *rows.x.shape), rows.y.mT


def _losses(trunk: Parameters, heads: Parameters, batch: Batch) -> Tensor:
    """All tasks at once, each through its own slice of the trunk."""
    one_each = {name: value.unsqueeze(1) for name, value in heads.items()}
    return task_losses(trunk, one_each, Rows(batch[0], batch[1].unsqueeze(-1))).squeeze(-1)
