"""Every task's loss at the end of a candidate's step: `L_j(θ − η Σ_t w_t g_t, φ_j)`; and transference."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from mtrl_transfer import scales
from mtrl_transfer.candidates import check_weights
from mtrl_transfer.choices import check_choice
from mtrl_transfer.context import Context, Expansion
from mtrl_transfer.gradients import TaskGradients, combine, gramian
from mtrl_transfer.horizon import trunks_after
from mtrl_transfer.model import FunctionalModel, Model
from mtrl_transfer.optimizer_step import functional_step, functional_step_and_slope, optimizer_slope
from mtrl_transfer.precision import float32_products
from mtrl_transfer.steps import matched_step_size
from mtrl_transfer.tasks import AllLosses, Shared, TaskLoss, Tree, count_tasks, first_rows, n_rows

CLIP_EPSILON = 1e-6
"""That of torch's `clip_grad_norm_`."""
CHUNK = 64
"""Candidates whose trunks are made at once; bounds memory."""
CPU_UNITS = 256_000
"""Rows (candidates times tasks times rows a task) times width at once on a CPU: their activations stay in its cache,
which made exact lookahead 1.5 times as fast as all candidates at once; fewer would leave small networks to overhead.
"""
RowsOf = Callable[[int | None, bool], Any]
"""`rows_of(rows, held_out)`: a batch, as `Lookahead.on` asks for it."""


class StepLookahead:
    """The `Lookahead` of one update: see `context.Lookahead` for what it answers.

    Args:
        model: whose trunk would step.
        tasks: task gradients of this update.
        gram: their Gramian `[T, T]`.
        rows_of: gives rows; called once for each kind of rows asked for.
        step_norm: norm `[]` of the trunk's last real step, for the matched step.
        optimizer: of the trunk, for `after_optimizer`.
        max_grad_norm: the norm to which the real step is clipped; None: it is not.
        last: the shared gradients of the update before; None: it was the first, or they were not kept.
    """

    def __init__(
        self,
        model: Model[Any],
        tasks: TaskGradients,
        gram: Tensor,
        rows_of: RowsOf,
        step_norm: Tensor | None = None,
        optimizer: torch.optim.Optimizer | None = None,
        max_grad_norm: float | None = None,
        last: Shared | None = None,
    ) -> None:
        self.model, self.tasks, self.gramian, self.step_norm = model, tasks, gram, step_norm
        self.optimizer, self.max_grad_norm, self.last = optimizer, max_grad_norm, last
        self._rows_of = rows_of
        self._asked: tuple[int | None, bool] = (None, True)
        self._batches: dict[tuple[int | None, bool], Any] = {}
        self._loss_functions: dict[tuple[int | None, bool], Callable[[Tensor], Tensor]] = {}

    def on(self, rows: int | None = None, held_out: bool = True) -> StepLookahead:
        """Return the same lookahead on other rows."""
        other = copy.copy(self)
        other._asked = (rows, held_out)
        return other

    @property
    def batch(self) -> Any:
        """The lookahead's rows, drawn at first use."""
        if self._asked not in self._batches:
            self._batches[self._asked] = self._rows_of(*self._asked)
        return self._batches[self._asked]

    @float32_products()
    @torch.no_grad()
    def __call__(self, weights: Tensor, step_size: Tensor | float | None = None) -> Tensor:
        """Losses `[K, T]` at the ends of the steps."""
        return torch.cat([self.model.losses(self.batch, trunks) for trunks in self._trunks(weights, step_size)])

    @float32_products()
    @torch.no_grad()
    def row_losses(self, weights: Tensor, step_size: Tensor | float | None = None) -> Tensor:
        """Losses of single rows `[K, T, rows]`."""
        return torch.cat([self.model.row_losses(self.batch, trunks) for trunks in self._trunks(weights, step_size)])

    @float32_products()
    @torch.no_grad()
    def predictions(self, weights: Tensor, step_size: Tensor | float | None = None) -> Tensor:
        """Predictions `[K, T, ...]`."""
        return torch.cat([self.model.predictions(self.batch, trunks) for trunks in self._trunks(weights, step_size)])

    @float32_products()
    def loss_of(self, predictions: Tensor) -> Tensor:
        """Losses `[T]` of predictions `[T, ...]` on the lookahead's rows."""
        if self._asked not in self._loss_functions:
            self._loss_functions[self._asked] = self.model.loss_of(self.batch)
        return self._loss_functions[self._asked](predictions)

    @float32_products()
    def gradients_at(self, weights: Tensor, step_size: Tensor | float | None = None) -> TaskGradients:
        """Losses and task gradients on the lookahead's rows at the end of one step, `weights [T]`."""
        (trunks,) = self._trunks(weights[None], step_size)
        stepped = {name: trunks[name][0] for name in self.tasks.shared_grads}
        return self.model.gradients(self.batch, {**self.model.trunk, **stepped})[0]

    @float32_products()
    def expand(self, weights: Tensor, step_size: Tensor | float | None = None) -> Expansion:
        """First order of the losses about the end of one step, `weights [T]`."""
        eta = matched_step_size(self.gramian, self.step_norm) if step_size is None else step_size
        there = self.gradients_at(weights, eta)
        slopes = -eta * gramian(self.tasks.shared_grads, there.shared_grads).mT
        shares = scales.divide(self.gramian @ weights, scales.squared_norms(self.gramian, weights))
        return Expansion(self._before(), there.losses, slopes, slopes @ weights, shares)

    @float32_products()
    def expand_after_optimizer(self, weights: Tensor) -> Expansion:
        """First order of the losses about where the optimizer would bring the trunk with `weights [T]`.

        The factor by which the gradient is clipped is held fixed.
        """
        optimizer, grads = self._trunk_optimizer(), self.tasks.shared_grads
        factor = self.clipping(weights[None])[0]
        own = {name: self.model.trunk[name] for name in grads}
        moved, slope = functional_step_and_slope(optimizer, own, combine(grads, weights * factor))
        there = self.model.gradients(self.batch, {**self.model.trunk, **moved})[0]
        steps = {name: (moved[name] - value.detach())[None] for name, value in own.items()}
        bent_steps = {name: step * slope[name] for name, step in steps.items()}
        bent_grads = {name: there.shared_grads[name] * slope[name] for name in grads}
        slopes = factor * gramian(grads, bent_grads).mT
        shares = scales.divide(factor * gramian(grads, bent_steps)[:, 0], gramian(steps)[0, 0])
        return Expansion(self._before(), there.losses, slopes, gramian(there.shared_grads, steps)[:, 0], shares)

    @torch.no_grad()
    def _before(self) -> Tensor:
        """Losses `[T]` at `θ`."""
        return self.model.losses(self.batch)[0]

    @float32_products()
    def held_out_gramian(self) -> Tensor:
        """Inner products `[T giver, T receiver]` of the task gradients with those on the lookahead's rows."""
        return gramian(self.tasks.shared_grads, self.model.gradients(self.batch)[0].shared_grads)

    @float32_products()
    @torch.no_grad()
    def slopes_of_last_step(self, step_size: Tensor | None) -> Tensor | None:
        """Derivatives `[T receiver, T giver]` of the losses by the weights of the step before; no rows are drawn."""
        grads = self.tasks.shared_grads
        if self.last is None or self.last.keys() != grads.keys():
            return None
        if step_size is not None:
            return -step_size * gramian(grads, self.last)
        slope = optimizer_slope(self._trunk_optimizer(), {name: self.model.trunk[name] for name in grads})
        return gramian({name: grad * slope[name] for name, grad in grads.items()}, self.last)

    @float32_products()
    @torch.no_grad()
    def after_optimizer(self, weights: Tensor) -> Tensor:
        """Losses `[1 + K, T]`: as they are, and where the optimizer would bring the trunk with each candidate."""
        return self._after_optimizer(weights, self.model.losses)

    @float32_products()
    @torch.no_grad()
    def rows_after_optimizer(self, weights: Tensor) -> Tensor:
        """Losses of single rows `[1 + K, T, rows]`, as `after_optimizer`."""
        return self._after_optimizer(weights, self.model.row_losses)

    @float32_products()
    @torch.no_grad()
    def after_horizon(self, weights: Tensor, steps: int) -> Tensor:
        """Losses of single rows `[1 + K, T, rows]`: as they are, and after `steps` steps along each candidate.

        All candidates take their steps on the same batches. The trunk's gradient alone is clipped.
        """
        optimizer, batches = self._trunk_optimizer(), [self._rows_of(None, True) for _ in range(steps)]
        tables = [self.model.row_losses(self.batch)]
        for part in self._parts(len(weights)):
            trunks = trunks_after(self.model, batches, weights[part], optimizer, max_grad_norm=self.max_grad_norm)
            tables.append(self.model.row_losses(self.batch, trunks))
        return torch.cat(tables)

    def _after_optimizer(self, weights: Tensor, losses_of: Callable[..., Tensor]) -> Tensor:
        optimizer, rows = self._trunk_optimizer(), weights * self.clipping(weights)
        own = {name: self.model.trunk[name] for name in self.tasks.shared_grads}
        losses = [losses_of(self.batch)]
        for some in rows.split(CHUNK):
            steps = combine(self.tasks.shared_grads, some)
            for part in self._parts(len(some)):
                moved = functional_step(optimizer, own, {name: step[part] for name, step in steps.items()})
                losses.append(losses_of(self.batch, self._whole(moved)))
        return torch.cat(losses)

    def _trunk_optimizer(self) -> torch.optim.Optimizer:
        if self.optimizer is None:
            raise ValueError("step_size='optimizer' needs the trunk's optimizer; see `make_context`")
        return self.optimizer

    def clipping(self, weights: Tensor) -> Tensor:
        """Factor `[K, 1]` by which the real step would clip each candidate's gradient, heads included."""
        if self.max_grad_norm is None:
            return torch.ones_like(weights[:, :1])
        heads = [grad for grad in tree_leaves(self.tasks.head_grads) if grad is not None]
        squares = sum((grad / self.model.n_tasks).square().sum() for grad in heads)
        norms = (scales.squared_norms(self.gramian, weights) + squares).sqrt()
        return (self.max_grad_norm / (norms + CLIP_EPSILON)).clamp(max=1.0).unsqueeze(1)

    def _trunks(self, weights: Tensor, step_size: Tensor | float | None) -> Iterator[dict[str, Tensor]]:
        """Trunks `θ − η Σ_t w_t g_t` of `weights [K, T]`, as many at a time as are evaluated at once."""
        check_weights(weights, self.model.n_tasks)
        if step_size is None:
            step_size = matched_step_size(self.gramian, self.step_norm)
        for some in weights.split(CHUNK):
            steps = combine(self.tasks.shared_grads, some * -step_size)
            for part in self._parts(len(some)):
                yield self._whole({name: step[part] + self.model.trunk[name] for name, step in steps.items()})

    def _whole(self, moved: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Trunks with the parameters that do not train, too."""
        n_trunks = len(next(iter(moved.values())))
        fixed = {name: value for name, value in self.model.trunk.items() if name not in moved}
        return {**moved, **{name: value.expand(n_trunks, *value.shape) for name, value in fixed.items()}}

    def _parts(self, n_candidates: int) -> list[slice]:
        """Candidates that are evaluated at once."""
        width = max((value.shape[-1] for value in self.model.trunk.values() if value.ndim), default=1)
        units = self.model.n_tasks * n_rows(self.batch) * width
        size = max(CPU_UNITS // units, 1) if self.gramian.device.type == "cpu" else n_candidates
        return [slice(first, first + size) for first in range(0, n_candidates, size)]


def make_context(
    task_loss: TaskLoss | Sequence[TaskLoss] | None,
    shared: Shared,
    heads: Tree,
    batch: Tree,
    grads: TaskGradients,
    *,
    lookahead_batch: Tree | Callable[[int | None], Tree] | None = None,
    step_norm: Tensor | None = None,
    scales: Tensor | None = None,
    signed: bool = False,
    losses: AllLosses | None = None,
    optimizer: torch.optim.Optimizer | None = None,
    last: Mapping[str, Tensor] | None = None,
    predict: Callable[[dict[str, Tensor], Any, Any], Tensor] | None = None,
    loss_of: Callable[[Tensor, Any], Tensor] | None = None,
) -> Context:
    """Return the context of one update of any multi-task model, for a training loop of your own.

    Args:
        task_loss: loss of one task, as in `per_task_gradients`.
        shared: shared parameters by name.
        heads: heads of all tasks.
        batch: rows of all tasks.
        grads: result of `per_task_gradients` for `batch`.
        lookahead_batch: held-out rows for the lookahead, in the same form as `batch`; or a function that draws that
            many a task (None: as many as you like). The lookahead uses `batch` itself if not given.
        step_norm: see `Context`.
        scales: see `Context`.
        signed: see `Context`.
        losses: losses of all tasks at once, as in `per_task_gradients`.
        optimizer: for `step_size='optimizer'`: it holds the shared parameters; SGD, Adam or AdamW.
        last: for `measure='hindsight'`: `shared_grads` of the update before, on other rows.
        predict: for `measure='basis'`, see `FunctionalModel`.
        loss_of: for `measure='basis'`, see `FunctionalModel`.
    """
    model = FunctionalModel(
        task_loss,
        shared,
        heads,
        losses=losses,
        signed=signed,
        predict=predict,
        loss_of=loss_of,
        n_tasks=len(grads.losses),
    )

    def rows_of(rows: int | None, held_out: bool) -> Tree:
        if not held_out or lookahead_batch is None:
            return first_rows(batch, rows)
        return lookahead_batch(rows) if callable(lookahead_batch) else first_rows(lookahead_batch, rows)

    lookahead = StepLookahead(model, grads, gramian(grads.shared_grads), rows_of, step_norm, optimizer, last=last)
    return Context(losses=grads.losses, scales=scales, signed=signed, step_norm=step_norm, lookahead=lookahead)


@float32_products()
def transference(
    task_loss: TaskLoss | Sequence[TaskLoss] | None,
    shared: Shared,
    heads: Tree,
    batch: Tree,
    weights: Tensor,
    step_size: Tensor | float,
    *,
    shared_grads: Mapping[str, Tensor] | None = None,
    lookahead_batch: Tree | None = None,
    scale: str | Tensor = "ratio",
    losses: AllLosses | None = None,
) -> Tensor:
    """Transference of K candidates on T tasks: the relative improvement of each task's loss by a step along each.

    `Z_{w→j} = 1 − L_j(θ − η Σ_t w_t g_t, φ_j) / L_j(θ, φ_j)` with the `ratio` scale (Fifty et al., 2020, section 3).
    Weights are applied exactly as given. Nothing is changed: no parameter, gradient or random stream.

    Args:
        task_loss: loss of one task, as in `per_task_gradients`.
        shared: shared parameters by name.
        heads: heads of all tasks.
        batch: rows of all tasks, on which the gradients are taken.
        weights: candidates `[K, T]`, for example `candidates.singletons(T)` for pairwise transference.
        step_size: `η`, a number or a `[]` tensor.
        shared_grads: task gradients on `batch`; computed if not given.
        lookahead_batch: rows on which the lookahead losses are taken; `batch` if not given.
        scale: divisor of the improvement: `ratio`, the loss before the step, or a tensor `[T]`. Running scales belong
            to the `Transference` combiner.
        losses: losses of all tasks at once, as in `per_task_gradients`.

    Returns:
        `[K, T]`: positive where the candidate helps the task, negative where it harms.
    """
    if not isinstance(scale, Tensor):
        check_choice("scale", scale, ("ratio",))
    n_tasks = count_tasks(task_loss, heads, batch)
    check_weights(weights, n_tasks)
    model = FunctionalModel(task_loss, shared, heads, losses=losses, n_tasks=n_tasks)
    tasks = model.gradients(batch)[0] if shared_grads is None else TaskGradients(weights, dict(shared_grads), {})
    rows = batch if lookahead_batch is None else lookahead_batch
    lookahead = StepLookahead(model, tasks, gramian(tasks.shared_grads), lambda *_: rows)
    table = lookahead(torch.cat([weights.new_zeros(1, n_tasks), weights]), step_size)
    return scales.divide(table[0] - table[1:], scale if isinstance(scale, Tensor) else table[0])
