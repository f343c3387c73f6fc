"""One step of one multi-task network: task gradients, combiner, clipping, optimizer."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor
from torch.nn.utils import clip_grads_with_norm_, get_total_norm
from torch.utils._pytree import tree_leaves

from mtrl_transfer.choices import check_positive
from mtrl_transfer.combiners import Combiner
from mtrl_transfer.context import Context
from mtrl_transfer.faults import Faults
from mtrl_transfer.generators import restore_generator
from mtrl_transfer.gradients import TaskGradients, combine, gramian, is_sync_free
from mtrl_transfer.lookahead import CLIP_EPSILON, RowsOf, StepLookahead
from mtrl_transfer.model import Model
from mtrl_transfer.precision import float32_products, products_are_rounded
from mtrl_transfer.probe import Measurement, effects_alone, effects_over_horizon
from mtrl_transfer.running_stats import RunningMeans
from mtrl_transfer.steps import step_norm
from mtrl_transfer.tasks import first_rows, is_frozen, n_rows

Given = TypeVar("Given", bound=Any)
Draw = Callable[[int, torch.Generator], Any]
"""`draw(rows, generator)`: a batch of that many other rows per task; everything random in it comes from `generator`."""
_OWN = ("step_norm", "kept", "weights", "gramian", "choices")
"""Attributes that are stored; None where there is none yet."""


class Update(Generic[Given]):
    """Combines the task gradients of one network and steps its optimizer.

    Heads take their own task's gradient times `1/T`, so with weights `1/T` for the trunk the step is that of plain
    backward of the mean of the task losses. Parameters with `requires_grad=False` stay as they are.

    Args:
        model: the network and its loss; `FunctionalModel` makes one of plain functions.
        optimizer: holds trunk and heads.
        combiner: chooses the trunk's weights.
        max_grad_norm: norm to which the whole gradient is clipped; None: it is not.
        seed: of the generators that draw the rows of lookahead and measurement.

    Raises:
        ValueError: for a combiner that is none or does not suit the model, or a norm that is not positive.

    Attributes:
        weights: `[T]`, the last step's; the same memory from step to step.
        gramian: `[T, T]`, the latest; the same memory from step to step. None before the first.
        last_gradients: the trunk's task gradients of the update before, if the combiner looks at them; otherwise None.
        kept: number of steps in which each task had a part in the trunk's gradient, `[T]`, of `n_combined []`.
    """

    def __init__(
        self,
        model: Model[Given],
        optimizer: torch.optim.Optimizer,
        combiner: Combiner,
        *,
        max_grad_norm: float | None = None,
        seed: int = 0,
    ) -> None:
        if not isinstance(combiner, Combiner):
            raise ValueError(
                f"combiner={combiner!r} must be a Combiner, such as Transference() or make_combiner('mean')"
            )
        if max_grad_norm is not None:
            check_positive("max_grad_norm", max_grad_norm)
        combiner.check(model.n_tasks, model.signed)
        self.model, self.optimizer, self.combiner = model, optimizer, combiner
        self.max_grad_norm = max_grad_norm
        n_tasks, device = model.n_tasks, self._all_parameters()[0].device
        self.generators = {
            "lookahead": torch.Generator(device).manual_seed(seed),
            "measurement": torch.Generator(device).manual_seed(seed + 1),
            "affinity": torch.Generator(device).manual_seed(seed + 2),
        }
        self.faults = Faults(n_tasks, device)
        self.means = RunningMeans()
        self.measurement = Measurement(n_tasks)
        self.step_norm = torch.zeros((), device=device)
        self._knows_step_norm = False  # step_norm > 0, but known without waiting for the device
        self.kept = torch.zeros(n_tasks, device=device)
        self.n_combined = torch.zeros((), dtype=torch.long, device=device)
        self.choices: Tensor | None = None
        self.weights = torch.zeros(n_tasks, device=device)
        self.gramian: Tensor | None = None
        self.last_gradients: dict[str, Tensor] | None = None
        self.transference_seconds = 0.0

    def step(
        self,
        batch: Any,
        draw: Draw | None = None,
        *,
        measure: bool = False,
        affinity: int | None = None,
        affinity_horizon: int = 1,
        note_step: bool = True,
    ) -> Given:
        """Take one optimizer step.

        While the whole trunk is frozen, only heads step: nothing is combined, measured or counted.

        Args:
            batch: rows of every task, as the model takes them.
            draw: gives other rows for lookahead and measurement; None: these look at the batch's own rows.
            measure: also measure transference, under any combiner; it changes nothing.
            affinity: also measure pairwise transference alone, on that many rows of each task; it changes nothing.
            affinity_horizon: optimizer steps along each task alone whose effect that is.
            note_step: note the length of the trunk's step, for a measurement in the next update.

        Returns:
            Result of the loss at the parameters before the step, detached.
        """
        combines = any(not is_frozen(value) for value in self.model.trunk.values())
        rows_of = partial(self._rows_of, batch, draw)
        gradients, norm, given, weights = self._gradients(batch, rows_of, combines)
        if not combines:
            self._apply(gradients, norm, note_step=False)
            return given
        self._count(weights)
        if measure:
            self._timed(self._predict, given, batch, partial(rows_of, "measurement"), weights)
        if affinity is not None:
            self._timed(self._measure_affinity, batch, partial(rows_of, "affinity"), affinity, affinity_horizon)
        self._apply(gradients, norm, note_step or self.combiner.measures_next)
        if measure:
            self._timed(self.measurement.after_step)
        if self.combiner.needs_after_step:
            self._timed(self._tell_losses, batch)
        return given

    def _gradients(
        self, batch: Any, rows_of: Callable[..., Any], combines: bool
    ) -> tuple[list[Tensor], Tensor | None, Given, Tensor]:
        """Gradients of all that trains, their norm if known, the result of the loss, and the weights `[T]`."""
        always_equal = not (combines and self.combiner.needs_gramian)
        weights = torch.full_like(self.weights, 1 / self.model.n_tasks) if always_equal else self.combiner.reuse()
        if weights is not None and is_sync_free(weights.device):
            plain = self.model.plain_gradients(batch, None if always_equal else weights)
            if plain is not None and (norm := get_total_norm(plain[0])).isfinite():
                self.faults.note_sound()
                return plain[0], norm, plain[1], weights
        # One backward pass of all tasks cannot tell whose gradient is not finite; task gradients can, without waiting.
        tasks, given = self._task_gradients(batch)
        if self.combiner.needs_after_step and products_are_rounded():
            tasks = tasks._replace(losses=self._losses(batch))
        if weights is not None:
            tasks, _ = self.faults.mask(tasks)
        else:
            gram = gramian(tasks.shared_grads)
            tasks, sound = self.faults.mask(tasks, gram)
            gram = torch.where(sound & sound[:, None], gram, 0)
            weights = self._combine(tasks, gram, given, partial(rows_of, "lookahead"))
        self.last_gradients = tasks.shared_grads if self.combiner.needs_last_gradients else None
        heads = [leaf / self.model.n_tasks for leaf in tree_leaves(tasks.head_grads) if leaf is not None]
        return [*combine(tasks.shared_grads, weights).values(), *heads], None, given, weights

    def _task_gradients(self, batch: Any) -> tuple[TaskGradients, Given]:
        return self.model.gradients(batch)

    @float32_products()
    def _combine(self, tasks: TaskGradients, gram: Tensor, given: Given, rows_of: RowsOf) -> Tensor:
        start = time.perf_counter()
        self._note_gramian(gram)
        context = Context(
            losses=tasks.losses,
            scales=self._scales(given),
            signed=self.model.signed,
            step_norm=self.step_norm,
            lookahead=self._lookahead(tasks, gram, rows_of),
        )
        weights = self.combiner(gram, context)
        self._count_choice()
        self.transference_seconds += time.perf_counter() - start
        return weights

    def _lookahead(self, tasks: TaskGradients, gram: Tensor, rows_of: RowsOf) -> StepLookahead:
        model, step_norm = self.model, self.step_norm
        optimizer, limit, last = self.optimizer, self.max_grad_norm, self.last_gradients
        return StepLookahead(model, tasks, gram, rows_of, step_norm, optimizer, limit, last)

    def _rows_of(self, batch: Any, draw: Draw | None, generator: str, rows: int | None, held_out: bool) -> Any:
        """Rows as `Lookahead.on` asks for them."""
        if draw is None or not held_out:
            return first_rows(batch, rows)
        return draw(n_rows(batch) if rows is None else rows, self.generators[generator])

    def _note_gramian(self, gram: Tensor) -> None:
        if self.gramian is None:
            self.gramian = torch.empty_like(gram)
        self.gramian.copy_(gram)
        self.means.add("grad_norm", gram.diagonal().sqrt())

    def _scales(self, given: Given) -> Tensor | None:
        """Magnitude of signed losses: their standard deviation over rows `[T]`; None where there is one row."""
        return given.losses.squeeze(0).std(dim=-1) if self.model.signed and given.losses.shape[-1] > 1 else None

    @float32_products()
    def _predict(self, given: Given, batch: Any, rows_of: RowsOf, weights: Tensor) -> None:
        # Task gradients apart: so the update is the same arithmetic with and without it.
        tasks, _ = self.model.gradients(batch)
        gram = gramian(tasks.shared_grads)
        self._note_gramian(gram)
        lookahead = self._lookahead(tasks, gram, rows_of)
        self.measurement.before_step(lookahead, weights, self._scales(given))

    def _measure_affinity(self, batch: Any, rows_of: RowsOf, rows: int, horizon: int) -> None:
        if horizon > 1:
            batches = [rows_of(None, True) for _ in range(horizon)]
            table = effects_over_horizon(self.model, batches, rows_of(rows, True), self.optimizer, self.max_grad_norm)
            scale = table[0].std(-1) if self.model.signed else None
            self.measurement.affinity(table[0].mean(-1), table[1:].mean(-1), scale)
            return
        if not self._knows_step_norm:  # before the first real step a matched one has no length
            return
        few, others = rows_of(rows, False), rows_of(rows, True)
        before, after, given = effects_alone(self.model, few, others, self.step_norm)
        self.measurement.affinity(before, after, self._scales(given))

    def _all_parameters(self) -> list[Tensor]:
        """Parameters as the model holds them now, the trunk's first."""
        return [*self.model.trunk.values(), *tree_leaves(self.model.heads)]

    def _apply(self, gradients: Sequence[Tensor], norm: Tensor | None, note_step: bool) -> None:
        parameters, rest = self._all_parameters(), iter(gradients)
        for parameter in parameters:  # without a gradient, an optimizer leaves it and its moments as they are
            parameter.grad = None if is_frozen(parameter) else next(rest)
        if self.max_grad_norm is not None:
            self._clip(parameters, self.max_grad_norm, get_total_norm(gradients) if norm is None else norm)
        trunk = {name: value for name, value in self.model.trunk.items() if not is_frozen(value)}
        before = {name: value.detach().clone() for name, value in trunk.items()} if note_step else None
        self.optimizer.step()
        if before is not None:
            self.step_norm.copy_(step_norm(before, trunk))
            self._knows_step_norm = True

    def _clip(self, parameters: list[Tensor], limit: float, norm: Tensor) -> None:
        if not (is_sync_free(norm.device) and norm + CLIP_EPSILON <= limit):  # then every factor would be 1
            clip_grads_with_norm_(parameters, limit, norm)

    def _count(self, weights: Tensor) -> None:
        kept = (weights != 0).float()
        self.weights.copy_(weights)
        self.kept += kept
        self.n_combined += 1
        self.means.add("kept", kept)

    def _tell_losses(self, batch: Any) -> None:
        self.combiner.after_step(self._losses(batch))

    @torch.no_grad()
    @float32_products()
    def _losses(self, batch: Any) -> Tensor:
        """Return the losses `[T]`, not rounded: their change in a step is small."""
        return self.model.losses(batch).squeeze(0)

    def _count_choice(self) -> None:
        """Count measured choices by candidate `[K]`; a reader that has shown them sets them to 0."""
        decision = self.combiner.last
        if decision is not None and decision.fresh:
            # Not by an index: a single number as one waits for the device.
            chosen = (torch.arange(len(decision.scores), device=decision.choice.device) == decision.choice).long()
            if self.choices is None:
                self.choices = torch.zeros_like(chosen)
            self.choices += chosen

    def _timed(self, function: Callable[..., None], *args: Any) -> None:
        start = time.perf_counter()
        function(*args)
        self.transference_seconds += time.perf_counter() - start

    def state_dict(self) -> dict[str, Tensor]:
        """Everything but network and optimizer, as flat named tensors."""
        parts: dict[str, dict[str, Tensor]] = {
            "combiner": self.combiner.state_dict(),
            "generator": {name: generator.get_state() for name, generator in self.generators.items()},
            "faults": self.faults.state_dict(),
            "means": self.means.state_dict(),
            "measurement": self.measurement.state_dict(),
            "own": {name: value for name in _OWN if (value := getattr(self, name)) is not None},
            "count": {"n_combined": self.n_combined},
            "last_gradients": self.last_gradients or {},
        }
        return {f"{part}.{name}": value for part, state in parts.items() for name, value in state.items()}

    def load_state_dict(self, state: dict[str, Tensor], same_combiner: bool = True) -> None:
        """Restore `state_dict`; without the combiner's part, if that was another."""
        parts: dict[str, dict[str, Tensor]] = {}
        for key, value in state.items():
            part, name = key.split(".", 1)
            parts.setdefault(part, {})[name] = value
        if same_combiner:
            self.combiner.load_state_dict(parts.get("combiner", {}))
        else:
            parts["own"].pop("choices", None)
        for name, value in parts["generator"].items():
            restore_generator(self.generators[name], value)
        self.faults.load_state_dict(parts["faults"])
        self.means.load_state_dict(parts.get("means", {}))
        self.measurement.load_state_dict(parts.get("measurement", {}))
        device = self.step_norm.device
        for name in _OWN:
            stored = parts["own"].get(name)
            setattr(self, name, None if stored is None else stored.to(device, copy=True))
        self.n_combined.copy_(parts["count"]["n_combined"])
        last = parts.get("last_gradients")
        self.last_gradients = (
            None if last is None else {name: value.to(device, copy=True) for name, value in last.items()}
        )
        self._knows_step_norm = bool(self.step_norm > 0)
