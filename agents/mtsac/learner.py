"""One update of multi-task SAC: critics, actor, temperatures, and the averages that follow them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from mtrl_transfer.agents.monitoring.measuring import MeasureTransference
from mtrl_transfer.agents.mtsac.buffers import Sample
from mtrl_transfer.agents.mtsac.compiling import CompiledGradients, compiled, compiler, has_compiler
from mtrl_transfer.agents.mtsac.cuda_graph import RecordedUpdates
from mtrl_transfer.agents.mtsac.losses import ActorLoss, ActorRows, CriticLoss, CriticRows, td_targets
from mtrl_transfer.agents.mtsac.minibatches import Minibatches
from mtrl_transfer.agents.mtsac.policies import MultiTaskPolicy
from mtrl_transfer.agents.mtsac.temperatures import Temperatures
from mtrl_transfer.combiners import Combiner
from mtrl_transfer.information.alignment import Trains
from mtrl_transfer.running_stats import RunningMeans
from mtrl_transfer.update import Update


class Learner:
    """Takes updates of the networks of a policy.

    Args:
        policy: the networks and their optimizers.
        temperatures: weights of the entropy.
        batches: draws rows of replay.
        combiners: of the critic and of the actor, by role.
        max_grad_norm: limit of each network's gradient norm; None: none.
        seeds: gives the seeds of the noise and of the two updates.

    Attributes:
        updates: the two networks' updates by role.
        means: of figures per task since the last log.
    """

    def __init__(
        self,
        policy: MultiTaskPolicy,
        temperatures: Temperatures,
        batches: Minibatches,
        combiners: dict[str, Combiner],
        max_grad_norm: float | None,
        seeds: Iterator[int],
    ) -> None:
        self.policy, self.temperatures, self.batches = policy, temperatures, batches
        self.n_tasks, self.device = policy.n_tasks, policy.device
        self.noise_generator = torch.Generator(self.device).manual_seed(next(seeds))
        self.losses: dict[str, Any] = {
            "critic": CriticLoss(policy.critic),
            "actor": ActorLoss(policy.actor, policy.critic),
        }
        self.updates: dict[str, Update[Any]] = {
            role: Update(
                loss,
                getattr(policy, f"{role}_optimizer"),
                combiners[role],
                max_grad_norm=max_grad_norm,
                seed=next(seeds),
            )
            for role, loss in self.losses.items()
        }
        self.means = RunningMeans()
        self.compiled_rows: int | None = None
        self.td_targets: Callable[..., Tensor] = td_targets
        self._recorded: RecordedUpdates | None = None

    def take(self, update: int, batch_size: int, tau: float, measuring: MeasureTransference) -> None:
        """Take update ``n``, or replay a recorded one of its kind.

        Args:
            update: ``n``, from 0.
            batch_size: rows over all tasks.
            tau: share of the critics that moves into their targets afterwards.
            measuring: says what is measured.
        """
        schedule = self.policy.alignment_schedule
        measures, affinity = measuring.measures(update), measuring.rows_for_affinity(update, batch_size // self.n_tasks)
        # The next measurement may come after a turn in which the trunk stood still.
        note = schedule is not None or measuring.needs_step_before(update)
        trains = Trains(True, True) if schedule is None else schedule.trains(update)
        if schedule is not None:
            self.policy.train_in_turn(trains)
        asked = {"measure": measures, "affinity": affinity, "note_step": note}
        asked["affinity_horizon"] = measuring.affinity_horizon
        work = functools.partial(self._step, batch_size, tau, asked)
        if self._recorded is None or measures or affinity is not None:
            work(self.batches.sample)
        else:
            self._recorded.take(work, self._combiners() if trains.trunk else [], batch_size, trains, note, tau)

    def _step(self, batch_size: int, tau: float, asked: dict[str, Any], sample: Sample) -> None:
        """All that an update does to tensors, on rows that ``sample`` gives."""
        batches, noise = self.batches, self.noise_generator
        rows = sample(batch_size, None)
        critic = self.updates["critic"].step(
            batches.critic(rows, noise, self.td_targets), batches.drawing(batches.critic, sample), **asked
        )
        actor = self.updates["actor"].step(batches.actor(rows, noise), batches.drawing(batches.actor, sample), **asked)
        self.temperatures.update(actor.log_probs.squeeze(0))
        self.policy.move_averages(tau)
        self._count(critic, actor)

    def _count(self, critic: CriticRows, actor: ActorRows) -> None:
        weights: Tensor | float = 1.0
        if self.task_weights is not None:
            weights = self.task_weights.squeeze(1)
            self.means.add("task_weight", weights)
        self.means.add("critic_loss", critic.losses.squeeze(0).mean(dim=-1) / weights)
        self.means.add("q", critic.values.squeeze(0).mean(dim=-1))
        self.means.add("actor_loss", actor.losses.squeeze(0).mean(dim=-1) / weights)
        self.means.add("entropy", -actor.log_probs.squeeze(0).mean(dim=-1))
        self.means.add("alpha", self.temperatures.alphas.squeeze(1))

    @property
    def task_weights(self) -> Tensor | None:
        """Factors ``[T, 1]`` of the tasks' losses; None: all 1."""
        return self.losses["critic"].weights

    def set_task_weights(self, weights: Tensor) -> None:
        """Multiply the tasks' losses, of critics and actor, by ``weights [T, 1]`` from the next update on."""
        if self.task_weights is None:
            own = weights.to(self.device, copy=True)
            for loss in self.losses.values():
                loss.weights = own
        else:
            self.task_weights.copy_(weights)  # recorded updates read this memory

    @property
    def transference_seconds(self) -> float:
        """Seconds that lookahead and measurement have taken."""
        return sum(update.transference_seconds for update in self.updates.values())

    @property
    def records(self) -> bool:
        """True if updates are captured as CUDA graphs."""
        return self._recorded is not None

    def record(self, on: bool = True) -> None:
        """Record updates as CUDA graphs from now on, anew if some are recorded; or take all of them as they are.

        Raises:
            ValueError: without a CUDA device, or with a combiner that cannot be recorded.
        """
        if on and self.device.type != "cuda":
            raise ValueError(f"cuda_graph=True needs a CUDA device, and this agent is on {self.device}: leave it False")
        for role, update in self.updates.items():
            if on and not update.combiner.sync_free:
                name = type(update.combiner).__name__
                raise ValueError(f"the {role}'s combiner, {name}, cannot be captured: leave cuda_graph False")
        self._recorded = RecordedUpdates(self.batches.sample, self.generators) if on else None

    def compile(self, rows: int | None) -> None:
        """Compile plain gradients and TD targets of updates on that many rows a task; None: take them as they are.

        Raises:
            ValueError: without a C++ compiler.
        """
        if rows is not None and self.device.type == "cpu" and not has_compiler():
            raise ValueError(
                f"compile=True needs a C++ compiler, and {compiler()} is not there: install it, name another in the "
                "environment variable CXX, or leave compile False"
            )
        if rows != self.compiled_rows:
            self.compiled_rows = rows
            for loss in self.losses.values():
                loss.compiled = None if rows is None else CompiledGradients(loss, rows)
            self.td_targets = td_targets if rows is None else compiled(td_targets)

    def generators(self) -> list[torch.Generator]:
        """Random streams that updates draw from, rows of the batch excepted."""
        lookaheads = [update.generators["lookahead"] for update in self.updates.values()]
        return [self.noise_generator, *lookaheads, *(one for each in self._combiners() for one in each.generators())]

    def _combiners(self) -> list[Combiner]:
        return [update.combiner for update in self.updates.values()]
