"""Predicted against realised improvement, and pairwise transference. Measuring changes nothing."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from mtrl_transfer import candidates
from mtrl_transfer.gradients import expand_over_tasks, gradients_of, gramian
from mtrl_transfer.horizon import Optimizer, trunks_after
from mtrl_transfer.lookahead import StepLookahead
from mtrl_transfer.low_rank import SteppedWeight, TappedWeight, low_rank_gramian
from mtrl_transfer.model import Model
from mtrl_transfer.precision import float32_products
from mtrl_transfer.running_stats import Correlation, RunningMeans
from mtrl_transfer.scales import divide
from mtrl_transfer.steps import match_norms, matched_step_size
from mtrl_transfer.tasks import is_frozen, n_rows

REMEMBERED = 200
"""Measurements kept for the figure of predicted against realised improvement."""
FEW = 4
"""A task has few rows where the widest layer is that many times wider: then products with its two thin factors take
less than its gradient's matrix does.
"""
_STATISTICS = ("means", "maps", "history", "correlation", "correlation_step", "correlation_first_order")


class Measurement:
    """Measures transference around an update, under any combiner and without changing anything.

    Improvements are divided by the task's loss, or by its standard deviation over rows if losses are signed.

    Attributes:
        means: running means of `predicted`, `realised` (trunk's real step, heads as they were), `realised_step`
            (heads stepped too) and `given` (the effect of a task's own step on all tasks), each `[T]`, and of
            `agreement` of exact and first order.
        maps: running means of `pairwise` transference (giver, receiver) and `cosine` of task gradients, `[T, T]`.
        history: for records, running means of `pairwise`, and of what `affinity` measures: `decrease`
            `[T, T]` and `scale` `[T]`.
        pairs: the latest `predicted` and `realised`, `[2, T]` each.
        correlation: of predicted with realised.
        correlation_step: of predicted with the whole step's effect.
        correlation_first_order: of what first order predicts, from inner products of gradients, with realised.
    """

    def __init__(self, n_tasks: int) -> None:
        self.n_tasks = n_tasks
        self.means, self.maps, self.history = RunningMeans(), RunningMeans(), RunningMeans()
        self.pairs: deque[Tensor] = deque(maxlen=REMEMBERED)
        self.correlation, self.correlation_step = Correlation(), Correlation()
        self.correlation_first_order = Correlation()
        self._made: tuple[Tensor, Tensor] | None = None

    def state_dict(self) -> dict[str, Tensor]:
        """All statistics, those since the last flush included, as flat named tensors."""
        parts = {name: getattr(self, name).state_dict() for name in _STATISTICS}
        saved = {f"{part}.{name}": value for part, state in parts.items() for name, value in state.items()}
        return {**saved, "pairs": torch.stack(list(self.pairs))} if self.pairs else saved

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restore `state_dict`."""
        for part in _STATISTICS:
            prefix = f"{part}."
            own = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
            getattr(self, part).load_state_dict(own)
        self.pairs.clear()
        self.pairs.extend(state["pairs"].clone() if "pairs" in state else ())

    def _families(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """Singletons and leave-one-out as rows; made once, for bringing them to a device waits for it."""
        if self._made is None:
            rows = candidates.singletons(self.n_tasks), candidates.leave_one_out(self.n_tasks)
            self._made = rows[0].to(like), rows[1].to(like)
        return self._made

    @torch.no_grad()
    def affinity(self, before: Tensor, after: Tensor, scales: Tensor | None) -> None:
        """Note the effect of each task's own step on all tasks, and nothing else.

        Means are taken before dividing: on few rows a single loss is too noisy to divide by.

        Args:
            before: losses `[T]`.
            after: losses `[T giver, T]`.
            scales: divisors `[T]`; None: the losses before the step.
        """
        self.history.add("decrease", before - after)
        self.history.add("scale", before if scales is None else scales)

    @float32_products()
    @torch.no_grad()
    def before_step(self, lookahead: StepLookahead, weights: Tensor, scales: Tensor | None) -> None:
        """Predict the effect of the step with `weights [T]`.

        Args:
            lookahead: of this update.
            weights: about to be applied.
            scales: divisors `[T]`; None: the losses before the step.
        """
        assert lookahead.step_norm is not None
        gram = lookahead.gramian
        alone, left_out = self._families(gram)
        subsets = match_norms(left_out, gram, alone.sum(dim=0), max_factor=2.0)
        step_size = matched_step_size(gram, lookahead.step_norm)
        table = lookahead(torch.cat([torch.zeros_like(alone[:1]), weights[None], alone, subsets]), step_size)
        before, improvements = table[0], table[0] - table[1:]
        divisor = before if scales is None else scales
        exact = divide(improvements, divisor)
        slopes = step_size * lookahead.held_out_gramian()
        first_order = divide(torch.cat([weights[None], subsets]) @ slopes, divisor)
        agree = exact[1 + self.n_tasks :].sum(dim=1).argmax() == first_order[1:].sum(dim=1).argmax()
        pairwise, norms = exact[1 : 1 + self.n_tasks], gram.diagonal().sqrt()
        self.maps.add("pairwise", pairwise)
        self.history.add("pairwise", pairwise)
        self.maps.add("cosine", divide(gram, norms[:, None] * norms))
        self.means.add("given", pairwise.sum(dim=1))
        self.means.add("predicted", exact[0])
        self.means.add("agreement", agree.float())
        known = lookahead.step_norm > 0  # before the first real step the matched one has no length
        own_heads = tree_map(torch.clone, lookahead.model.heads)
        self._pending = (lookahead, before, divisor, exact[0], first_order[0], known, own_heads)

    @float32_products()
    @torch.no_grad()
    def after_step(self) -> None:
        """Compare with the real step, on the same rows."""
        lookahead, before, divisor, predicted, by_first_order, known, heads = self._pending
        del self._pending
        by_trunk, by_step = (
            divide(before - lookahead.model.losses(lookahead.batch, heads=own).squeeze(0), divisor)
            for own in (heads, None)
        )
        self.pairs.append(torch.stack([predicted, by_trunk]))
        self.correlation_first_order.add(by_first_order, by_trunk, valid=known)
        self.correlation.add(predicted, by_trunk, valid=known)
        self.correlation_step.add(predicted, by_step, valid=known)
        self.means.add("realised", by_trunk)
        self.means.add("realised_step", by_step)


@float32_products()
def effects_alone(model: Model[Any], batch: Any, others: Any, step_norm: Tensor) -> tuple[Tensor, Tensor, Any]:
    """Losses on other rows, before and after a step along each task's gradient alone.

    Args:
        model: whose trunk would step; task `t` alone weighs `1/T`.
        batch: rows of every task, for the gradients.
        others: the rows to look ahead on.
        step_norm: norm `[]` of a step along the mean gradient; the tasks' own are in proportion.

    Returns:
        Losses `[T]` before, `[T giver, T]` after, and the result of the loss on `batch`.
    """
    widest = max(value.shape[-1] for value in model.trunk.values() if value.ndim)
    if model.linear and n_rows(batch) * FEW <= widest:
        trunks, given = steps_alone(model, batch, step_norm)
        with torch.no_grad():
            return model.losses(others).squeeze(0), model.losses(others, trunks), given
    tasks, given = model.gradients(batch)
    gram = gramian(tasks.shared_grads)
    alone = candidates.singletons(model.n_tasks).to(gram)
    table = StepLookahead(model, tasks, gram, lambda *_: others, step_norm)(torch.cat([0 * alone[:1], alone]))
    return table[0], table[1:], given


@float32_products()
def effects_over_horizon(
    model: Model[Any], batches: Sequence[Any], others: Any, optimizer: Optimizer, max_grad_norm: float | None
) -> Tensor:
    """Losses of single other rows `[1 + T giver, T, rows]`, before and after an optimizer step on each batch.

    Args:
        model: whose trunk would step, along each task alone with weight `1/T`.
        batches: rows of every task, one batch a step.
        others: the rows to compare losses on.
        optimizer: of the trunk; a copy of it takes the steps.
        max_grad_norm: norm to which each gradient of the trunk is clipped; None: it is not.
    """
    alone = candidates.singletons(model.n_tasks).to(next(iter(model.trunk.values())))
    with torch.no_grad():
        trunks = trunks_after(model, batches, alone, optimizer, max_grad_norm=max_grad_norm)
        return torch.cat([model.row_losses(others), model.row_losses(others, trunks)])


@float32_products()
def steps_alone(model: Model[Any], batch: Any, step_norm: Tensor) -> tuple[dict[str, Any], Any]:
    """Return the trunks after a step along each task's gradient alone, without copies of the linear weights.

    Arguments are those of `effects_alone`.

    Returns:
        Trunks `[T, *shape]`, as `model.losses` takes them, and the result of the loss before the step.
    """
    trunk, n_tasks = model.trunk, model.n_tasks
    expanded = expand_over_tasks(trunk, n_tasks)
    trained = [name for name, value in trunk.items() if not is_frozen(value)]
    weights = {name: TappedWeight(trunk[name], n_tasks) for name in trained if name in model.linear}
    leaves = {name: expanded[name].requires_grad_() for name in trained if name not in weights}
    with torch.enable_grad():
        given = model.tapped(batch, {**expanded, **weights})
        outputs = [weight.outputs for weight in weights.values()]
        found = gradients_of(given.losses.mean(dim=-1).sum(), [*outputs, *leaves.values()])
    deltas, gradients = dict(zip(weights, found, strict=False)), dict(zip(leaves, found[len(weights) :], strict=True))
    gram = found[0].new_zeros(n_tasks, n_tasks) + (gramian(gradients) if gradients else 0)
    for name, weight in weights.items():
        gram += low_rank_gramian(weight.inputs, deltas[name])
    step = matched_step_size(gram, step_norm) / n_tasks
    stepped: dict[str, Any] = {
        name: SteppedWeight(trunk[name], weight.inputs, deltas[name], step) for name, weight in weights.items()
    }
    for name, gradient in gradients.items():
        stepped[name] = trunk[name].detach() - step * gradient
    return {**expanded, **stepped}, given._make(value.detach() for value in given)
