"""The base class of all combiners."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

from mtrl_transfer.combiners.state import Stateful
from mtrl_transfer.context import Context
from mtrl_transfer.decision import Decision
from mtrl_transfer.generators import restore_generator
from mtrl_transfer.precision import float32_products

GENERATOR, SEED = "generator", "seed"


def live_tasks(gramian: Tensor) -> Tensor:
    """Return which tasks have a gradient, `[T]` bool: those with a positive squared norm in `gramian [T, T]`."""
    return gramian.diagonal() > 0


class Combiner(Stateful):
    """Turns T task gradients into one trunk gradient `Σ_t w_t g_t`, knowing only their Gramian and a context.

    `combiner(gramian [T, T], context=None) -> weights [T]`; subclasses implement `weigh`. All combiners share one
    scale: a Gramian equal to the identity gives weights `1/T`, so that learning rate and clipping mean the same for
    all of them. None waits for the device, unless its docstring says so.

    A task whose gradient is zero or not finite (one that was left out of the update) is not seen: its weight is 0. The
    method runs on the n remaining tasks, and its weights are multiplied by `n/T`: so each task weighs as much as under
    the mean, `1/T`, whatever the others do. A method sees zeros in such a task's row and column, and leaves out
    of sums and means what `live_tasks` does not name.

    Attributes:
        needs_gramian: False where the weights are always `1/T`: the caller may then leave the Gramian and the call out.
        needs_context: True where calling without a context is an error.
        looks_ahead: False where a combiner with `needs_context` never asks for the end of a step.
        needs_after_step: True where `after_step` must follow every call (it costs the caller a forward pass).
        sync_free: True where calls never wait for the device, and what they change is in `state`, in place.
        every: calls from one that looks anew to the next; in between the last result is applied again.
        calls: number of calls so far.
        default_seed: seed of the combiner's own generator until `seed` is called.
        renamed: arguments of earlier versions, with what to write instead.
    """

    needs_gramian: ClassVar[bool] = True
    needs_context: ClassVar[bool] = False
    looks_ahead: ClassVar[bool] = True
    needs_after_step: ClassVar[bool] = False
    sync_free: ClassVar[bool] = False
    default_seed: ClassVar[int] = 0
    renamed: ClassVar[Mapping[str, str]] = {}
    every: int = 1

    def __init__(self, generator: torch.Generator | None = None) -> None:
        super().__init__()
        if not isinstance(generator, torch.Generator | None):
            raise ValueError(f"generator={generator!r} must be a torch.Generator, or None")
        self._generator = generator
        self._seed = self.default_seed
        self._pending: Tensor | None = None
        self.calls = 0

    @property
    def last(self) -> Decision | None:
        """The last decision, of a combiner that chooses among candidates; None before it, and for all others."""
        return None

    @property
    def due(self) -> bool:
        """True if the next call looks anew; otherwise it applies the last result again."""
        return self.calls % self.every == 0

    @property
    def asked(self) -> list[Combiner]:
        """Other combiners that a call asks: its parts."""
        return [part for part in self.parts.values() if isinstance(part, Combiner)]

    def check(self, n_tasks: int, signed: bool) -> None:
        """Raise `ValueError` if it does not suit so many tasks, or losses that may be negative."""
        for one in self.asked:
            one.check(n_tasks, signed)

    @float32_products()
    def __call__(self, gramian: Tensor, context: Context | None = None) -> Tensor:
        """Return the weights `[T]` of task gradients with inner products `gramian [T, T]`; always finite."""
        if gramian.ndim != 2 or gramian.shape[0] != gramian.shape[1]:
            raise ValueError(f"gramian must be [T, T], got {list(gramian.shape)}")
        if self.needs_context and context is None:
            raise ValueError(f"{type(self).__name__} needs a context with the losses of the tasks; see `make_context`")
        self.move_to(gramian.device)
        finite = gramian.diagonal().isfinite()
        gramian = torch.where(gramian.isfinite() & finite & finite[:, None], gramian, 0)
        weights = self.weigh(gramian, context)
        # What overflows inside a method says nothing: then all tasks count alike.
        weights = torch.where(weights.isfinite().all(), weights, 1 / len(weights))
        self.calls += 1
        return torch.where(live_tasks(gramian), weights, 0)

    def weigh(self, gramian: Tensor, context: Context | None) -> Tensor:
        """Return the weights `[T]`; a combiner implements this."""
        raise NotImplementedError

    def reuse(self) -> Tensor | None:
        """Return the weights `[T]` of the next update if they do not depend on its gradients; this counts as the call.

        One backward pass of the weighted losses is then enough; None asks for a Gramian.
        """
        return None

    @property
    def needs_last_gradients(self) -> bool:
        """True if calls look at the task gradients of the update before: then the caller keeps these."""
        return any(one.needs_last_gradients for one in self.asked)

    @property
    def measures_next(self) -> bool:
        """True if the next call may look ahead: then the caller notes how long the step before it is."""
        own = self.needs_context and self.looks_ahead and self.due
        return own or any(one.measures_next for one in self.asked)

    def after_step(self, losses: Tensor) -> None:
        """Take the losses `[T]` on the same rows after the real step."""
        for one in self.asked:
            one.after_step(losses)

    def generators(self) -> list[torch.Generator]:
        """Return its random streams so far, and those of the combiners it asks."""
        own = [] if self._generator is None else [self._generator]
        return [*own, *(generator for one in self.asked for generator in one.generators())]

    def seed(self, seed: int) -> None:
        """Restart its own random stream, and those of the combiners it asks."""
        self._restart(seed)
        for place, one in enumerate(self.asked):
            one.seed(seed + 1 + place)

    def _restart(self, seed: int) -> None:
        self._seed, self._pending = int(seed) % 2**64, None
        if self._generator is not None:
            self._generator.manual_seed(self._seed)

    def generator(self, device: torch.device) -> torch.Generator:
        """Return the combiner's own generator, created on the device of the first Gramian."""
        if self._generator is None:
            self._generator = torch.Generator(device).manual_seed(self._seed)
        if self._pending is not None:
            restore_generator(self._generator, self._pending)
            self._pending = None
        return self._generator

    def state_dict(self) -> dict[str, Tensor]:
        """Return all that a bit-exact continuation needs, as flat named tensors (a generator's state as bytes)."""
        saved = super().state_dict()
        if self._pending is not None:
            saved[GENERATOR] = self._pending.clone()
        elif self._generator is not None:
            saved[GENERATOR] = self._generator.get_state().clone()
        else:  # nothing was drawn yet
            saved[SEED] = torch.tensor(list(self._seed.to_bytes(8, "little")), dtype=torch.uint8)
        return saved

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Continue from a `state_dict`."""
        super().load_state_dict({name: value for name, value in state.items() if name not in (GENERATOR, SEED)})
        if SEED in state:
            self._restart(int.from_bytes(bytes(state[SEED].tolist()), "little"))
        self._pending = state[GENERATOR].cpu().clone() if GENERATOR in state else None
