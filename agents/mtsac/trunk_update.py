"""One update of one network: task gradients, combiner, clipping, optimizer. The critics and the actor share it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from mtrl_transfer.agents.mtsac.measurement import Measurement
from mtrl_transfer.agents.mtsac.networks import MultiTaskMLP
from mtrl_transfer.agents.mtsac.steps_alone import effects_alone
from mtrl_transfer.agents.mtsac.trunk_lookahead import CLIP_EPSILON, Loss, TrunkLookahead, detached, task_gradients
from mtrl_transfer.combiners import Combiner, Transference
from mtrl_transfer.context import Context
from mtrl_transfer.decision import Decision
from mtrl_transfer.faults import Faults
from mtrl_transfer.generators import restore_generator
from mtrl_transfer.gradients import TaskGradients, combine, gramian, looking_is_free
from mtrl_transfer.information.alignment import Trains
from mtrl_transfer.precision import float32_products
from mtrl_transfer.running_stats import RunningMeans
from mtrl_transfer.steps import step_norm

Rows = TypeVar("Rows", bound=Any)
Draw = Callable[[int, torch.Generator], Any]
"""``draw(rows, generator)``: a batch of ``rows`` other rows per task, everything random in it by ``generator``."""
EVERYTHING = Trains(trunk=True, alignment=True)
_OWN = ("step_norm", "kept", "weights", "gramian", "choices")
"""Attributes that are stored; None where there is none yet."""


class TrunkUpdate(Generic[Rows]):
    """Combines the task gradients of one network and steps its optimizer.

    Heads take their own task's gradient scaled by ``1/T``: so with weights ``1/T`` for the trunk the step is that of
    plain backward of the mean of the task losses.

    Args:
        network: the network whose trunk is shared.
        optimizer: over the network's trunk and heads.
        loss: the network's loss.
        combiner: chooses the trunk's weights.
        max_grad_norm: the whole gradient's norm is clipped to it; None leaves it.
        signed: whether losses may be negative (the actor's).
        seed: of the generators that draw the lookahead's and the measurement's rows.

    Attributes:
        weights: ``[T]``, the last step's, in the same memory from step to step.
        gramian: ``[T, T]``, the latest, likewise; None before the first.
        kept: in how many steps each task had a part in the trunk's gradient ``[T]``, of ``n_combined []``.
    """

    def __init__(
        self,
        network: MultiTaskMLP,
        optimizer: torch.optim.Optimizer,
        loss: Loss,
        combiner: Combiner,
        max_grad_norm: float | None,
        signed: bool,
        seed: int,
    ) -> None:
        self.network, self.optimizer, self.loss = network, optimizer, loss
        self.combiner, self.max_grad_norm, self.signed = combiner, max_grad_norm, signed
        self._parameters = [*network.trunk.values(), *network.heads.values()]
        device = network.heads["weight"].device
        self.generators = {
            "lookahead": torch.Generator(device).manual_seed(seed),
            "measurement": torch.Generator(device).manual_seed(seed + 1),
            "affinity": torch.Generator(device).manual_seed(seed + 2),
        }
        self.faults = Faults(network.n_tasks, device)
        self.means = RunningMeans()
        self.measurement = Measurement(network.n_tasks)
        self.step_norm = torch.zeros((), device=device)
        self._knows_step_norm = False  # step_norm > 0, but known without waiting for the device
        self.kept = torch.zeros(network.n_tasks, device=device)
        self.n_combined = torch.zeros((), dtype=torch.long, device=device)
        self.choices: Tensor | None = None
        self.weights = torch.zeros(network.n_tasks, device=device)
        self.gramian: Tensor | None = None
        self.transference_seconds = 0.0

    def step(
        self,
        batch: Any,
        draw: Draw,
        measure: bool = False,
        trains: Trains = EVERYTHING,
        affinity: int | None = None,
        note_step: bool = True,
    ) -> Rows:
        """Take one optimizer step.

        While the trunk is held fixed there are no task gradients to combine: nothing is asked, measured or counted.

        Args:
            batch: rows of every task, as ``loss`` takes them.
            draw: gives other rows for lookahead.
            measure: also measure transference, whatever the combiner; it changes nothing.
            trains: whether trunk and alignment do; heads always do.
            affinity: also measure pairwise transference alone, on so many rows of each task; it changes nothing.
            note_step: note the length of the trunk's step, for a measurement in the next update that trains the trunk.

        Returns:
            What ``loss`` gave at the parameters before the step, detached.
        """
        if not trains.trunk:
            return self._step_heads(batch)
        gradients, norm, rows, weights = self._gradients(batch, draw, trains)
        self._count(weights)
        if measure:
            self._timed(self._predict, rows, batch, draw, weights)
        if affinity is not None:
            self._timed(self._measure_affinity, batch, draw, affinity)
        self._apply(gradients, norm, trains, note_step or self.combiner.measures_next)
        if measure:
            self._timed(self.measurement.after_step)
        if self.combiner.needs_after_step:
            self._timed(self._tell_losses, batch)
        return rows

    def _gradients(self, batch: Any, draw: Draw, trains: Trains) -> tuple[list[Tensor], Tensor | None, Rows, Tensor]:
        """Gradients of trunk and heads, their norm where known, rows, and the tasks' weights ``[T]`` in the trunk's."""
        weights = self._known_weights()
        if weights is not None and looking_is_free(weights.device) and not self._weights_would_reach_alignment():
            gradients, rows = self._plain(batch, weights)
            norm = get_total_norm(gradients)
            if norm.isfinite():
                self.faults.note_sound()
                return gradients, norm if trains.alignment else None, rows, weights
        # One backward pass of all tasks cannot tell whose gradient is not finite; task gradients can, without waiting.
        tasks, rows = self._task_gradients(batch)
        tasks = self.faults.mask(tasks)
        if not trains.alignment and self.network.aligned:
            tasks.head_grads["alignment"].zero_()
        weights = self._combine(tasks, rows, batch, draw) if weights is None else weights
        return self._weighted(tasks, weights), None, rows, weights

    def _step_heads(self, batch: Any) -> Rows:
        """Heads and alignment alone, by the mean of the task losses."""
        rows = self.loss(batch)
        gradients = torch.autograd.grad(rows.losses.mean(), list(self.network.heads.values()))
        self._apply([*([None] * len(self.network.trunk)), *gradients], None, EVERYTHING, note_step=False)
        return detached(rows)

    def _weights_would_reach_alignment(self) -> bool:
        """Whether one weighted backward pass, which weighs all that a task sends back, would weigh alignment too."""
        return self.network.aligned and self.combiner.needs_gramian

    def _task_gradients(self, batch: Any) -> tuple[TaskGradients, Rows]:
        return task_gradients(self.network, self.loss, batch)

    @float32_products()
    def _combine(self, tasks: TaskGradients, rows: Any, batch: Any, draw: Draw) -> Tensor:
        start = time.perf_counter()
        gram = self._gramian(tasks)
        lookahead = self._lookahead(tasks, gram, batch, draw)
        context = Context(
            losses=tasks.losses,
            scales=self._scales(rows),
            signed=self.signed,
            step_norm=self.step_norm,
            lookahead=lookahead,
            held_out_gramian=lookahead.held_out_gramian,
            optimizer_lookahead=lambda rows: lookahead.after_optimizer(rows, self.optimizer, self.max_grad_norm),
            predict=lookahead.predictions,
            loss_of=lookahead.loss_of,
        )
        weights = self.combiner(gram, context)
        self._count_choice()
        self.transference_seconds += time.perf_counter() - start
        return weights

    def _lookahead(self, tasks: TaskGradients, gram: Tensor, batch: Any, draw: Draw) -> TrunkLookahead:
        """The combiner's lookahead, on the rows that it asks for."""
        asks = self.combiner if isinstance(self.combiner, Transference) else None
        n_rows = batch[0].shape[1] if asks is None or asks.lookahead_rows is None else asks.lookahead_rows

        def make_batch() -> Any:
            if asks is not None and asks.lookahead_batch == "same":
                return _first_rows(batch, n_rows)
            return draw(n_rows, self.generators["lookahead"])

        return TrunkLookahead(self.network, self.loss, tasks, gram, self.step_norm, make_batch)

    def _gramian(self, tasks: TaskGradients) -> Tensor:
        gram = gramian(tasks.shared_grads)
        if self.gramian is None:
            self.gramian = torch.empty_like(gram)
        self.gramian.copy_(gram)
        self.means.add("grad_norm", gram.diagonal().sqrt())
        return gram

    def _scales(self, rows: Any) -> Tensor | None:
        """Magnitude of signed losses: their standard deviation over rows ``[T]``."""
        return rows.losses.squeeze(0).std(dim=-1) if self.signed else None

    @float32_products()
    def _predict(self, rows: Any, batch: Any, draw: Draw, weights: Tensor) -> None:
        # Task gradients of its own: so the update is the same arithmetic with and without it.
        tasks, _ = task_gradients(self.network, self.loss, batch)
        gram = self._gramian(tasks)
        n_rows, generator = batch[0].shape[1], self.generators["measurement"]
        lookahead = TrunkLookahead(
            self.network, self.loss, tasks, gram, self.step_norm, lambda: draw(n_rows, generator)
        )
        self.measurement.before_step(lookahead, weights, self._scales(rows), dict(self.network.heads.items()))

    def _measure_affinity(self, batch: Any, draw: Draw, n_rows: int) -> None:
        if not self._knows_step_norm:  # before the first real step a matched one has no length
            return
        few, others = _first_rows(batch, n_rows), draw(n_rows, self.generators["affinity"])
        before, after, rows = effects_alone(self.network, self.loss, few, others, self.step_norm)
        self.measurement.affinity(before, after, self._scales(rows))

    def _known_weights(self) -> Tensor | None:
        """Weights that do not depend on this update's gradients: then one plain backward is enough."""
        if self.combiner.needs_gramian:
            return self.combiner.reuse()
        return self.combiner(torch.eye(self.network.n_tasks, device=self.step_norm.device))

    def _plain(self, batch: Any, weights: Tensor) -> tuple[list[Tensor], Rows]:
        """Weighted gradient by one backward of the mean of the task losses, trunk first."""
        shares = weights * self.network.n_tasks if self.combiner.needs_gramian else None
        rows = self.loss(batch, trunk_shares=shares)
        gradients = torch.autograd.grad(rows.losses.mean(), self._parameters)
        return list(gradients), detached(rows)

    def _weighted(self, tasks: TaskGradients, weights: Tensor) -> list[Tensor]:
        trunk = combine(tasks.shared_grads, weights)
        return [*trunk.values(), *(head / self.network.n_tasks for head in tasks.head_grads.values())]

    def _apply(self, gradients: Sequence[Tensor | None], norm: Tensor | None, trains: Trains, note_step: bool) -> None:
        for parameter, gradient in zip(self._parameters, gradients, strict=True):
            parameter.grad = gradient
        if not trains.alignment and self.network.aligned:
            self.network.heads["alignment"].grad = None  # Adam leaves it, and its moments, as they are
        if self.max_grad_norm is not None:
            self._clip(self.max_grad_norm, norm)
        before = {name: value.detach().clone() for name, value in self.network.trunk.items()} if note_step else None
        self.optimizer.step()
        if before is not None:
            self.step_norm.copy_(step_norm(before, dict(self.network.trunk.items())))
            self._knows_step_norm = True

    def _clip(self, limit: float, norm: Tensor | None) -> None:
        if norm is None:
            norm = get_total_norm([one.grad for one in self._parameters if one.grad is not None])
        if not (looking_is_free(norm.device) and norm + CLIP_EPSILON <= limit):  # then every factor would be 1
            clip_grads_with_norm_(self._parameters, limit, norm)

    def _count(self, weights: Tensor) -> None:
        kept = (weights != 0).float()
        self.weights.copy_(weights)
        self.kept += kept
        self.n_combined += 1
        self.means.add("kept", kept)

    @torch.no_grad()
    def _tell_losses(self, batch: Any) -> None:
        self.combiner.after_step(self.loss(batch).losses.squeeze(0).mean(dim=-1))

    def _count_choice(self) -> None:
        """Count measured choices by candidate ``[K]``; whoever shows them sets them to 0."""
        decision = getattr(self.combiner, "last", None)
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
        decision: Decision | None = getattr(self.combiner, "last", None)
        parts: dict[str, dict[str, Tensor]] = {
            "combiner": self.combiner.state_dict(),
            "decision": {} if decision is None else _decision_state(decision),
            "generator": {name: generator.get_state() for name, generator in self.generators.items()},
            "faults": self.faults.state_dict(),
            "means": self.means.state_dict(),
            "measurement": self.measurement.state_dict(),
            "own": {name: value for name in _OWN if (value := getattr(self, name)) is not None},
            "count": {"n_combined": self.n_combined},
        }
        return {f"{part}.{name}": value for part, state in parts.items() for name, value in state.items()}

    def load_state_dict(self, state: dict[str, Tensor], same_combiner: bool = True) -> None:
        """Restore :meth:`state_dict`; all but what is the combiner's own, where it was another."""
        parts: dict[str, dict[str, Tensor]] = {}
        for key, value in state.items():
            part, name = key.split(".", 1)
            parts.setdefault(part, {})[name] = value
        if same_combiner:
            self._load_combiner(parts.get("combiner", {}), parts.get("decision"))
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
        self._knows_step_norm = bool(self.step_norm > 0)

    def _load_combiner(self, state: dict[str, Tensor], decision: dict[str, Tensor] | None) -> None:
        self.combiner.load_state_dict(state)
        if decision is not None:
            fresh = bool(decision["fresh"])
            self.combiner.last = Decision(**{**decision, "fresh": fresh})  # type: ignore[attr-defined, arg-type]


def _decision_state(decision: Decision) -> dict[str, Tensor]:
    return {**decision._asdict(), "fresh": torch.tensor(decision.fresh)}


def _first_rows(batch: Any, n_rows: int) -> Any:
    """The first rows of each task; what is one per task (temperatures) stays."""
    return batch._make(part[:, :n_rows] if part.shape[1] > 1 else part for part in batch)
