"""Updates captured once and replayed: in a small network, operations take longer to launch than to run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from mtrl_transfer.agents.mtsac.buffers import Sample, TaskBatch
from mtrl_transfer.combiners import Combiner

Replay = Callable[[], None]
WARM_UP = 3
"""Updates of a kind before it is captured; the first allocates the running statistics."""


class KeptRows:
    """Rows of replay that stay in the same memory.

    What is drawn depends on how much replay holds, so a captured update must not draw: it reads rows drawn before.

    Args:
        sample: draws.
    """

    def __init__(self, sample: Sample) -> None:
        self._sample = sample
        self._kept: dict[tuple[int, torch.Generator | None], TaskBatch] = {}

    def __call__(self, batch_size: int, generator: torch.Generator | None) -> TaskBatch:
        """The rows kept for these arguments; drawn when asked for the first time."""
        key = (batch_size, generator)
        if key not in self._kept:
            self._kept[key] = self._sample(*key)
        return self._kept[key]

    def refill(self) -> None:
        """Draw new rows for everything that was ever asked for."""
        for key, rows in self._kept.items():
            for kept, drawn in zip(rows, self._sample(*key), strict=True):
                kept.copy_(drawn)


@dataclass
class _Kind:
    """Updates that do the same to tensors."""

    rows: KeptRows
    taken: int = 0
    replay: Replay | None = None


def phase(combiner: Combiner) -> tuple[bool, bool]:
    """Return what the host decides about a combiner's next call: if it looks anew, and if the one after it does."""
    return combiner.due, (combiner.calls + 1) % combiner.every == 0


def _count_call(combiner: Combiner) -> None:
    """Count a replayed call: the only thing that a call changes on the host."""
    combiner.calls += 1
    for one in combiner.asked:
        _count_call(one)


class RecordedUpdates:
    """Takes updates; one of each kind is captured as a CUDA graph, and replayed from then on.

    Args:
        sample: draws rows.
        generators: gives the random streams that the updates draw from, rows excepted; all on one CUDA device.
    """

    def __init__(self, sample: Sample, generators: Callable[[], list[torch.Generator]]) -> None:
        self._sample, self._generators = sample, generators
        self._kinds: dict[Any, _Kind] = {}

    def take(self, work: Callable[[Sample], None], combiners: Sequence[Combiner], *kind: Any) -> None:
        """Take an update.

        Args:
            work: does to tensors what the update does, on rows that its argument gives.
            combiners: those that the work calls, once each.
            *kind: what else the work depends on besides tensors.
        """
        key = (*kind, *map(phase, combiners))
        one = self._kinds.setdefault(key, _Kind(KeptRows(self._sample)))
        one.rows.refill()
        if one.replay is not None:
            one.replay()
            for combiner in combiners:
                _count_call(combiner)
        elif one.taken < WARM_UP:
            work(one.rows)
            one.taken += 1
        else:
            one.replay = recorded(partial(work, one.rows), self._generators())


def recorded(work: Callable[[], None], generators: Sequence[torch.Generator]) -> Replay:
    """Capture `work` as a CUDA graph, replay it once, and return the function that replays it.

    Args:
        work: on a CUDA device; it may neither wait for it nor bring anything over.
        generators: of that device, at least one: those from which the work draws.

    Raises:
        ValueError: if the work cannot be captured.
    """
    graph = torch.cuda.CUDAGraph()
    try:
        for generator in generators:
            graph.register_generator_state(generator)
        # Without this stream, work on any device but the first is silently not captured.
        with torch.cuda.device(generators[0].device), torch.cuda.graph(graph, stream=torch.cuda.Stream()):
            work()
    except RuntimeError as error:
        raise ValueError(f"this update cannot be captured as a CUDA graph; leave cuda_graph False: {error}") from error
    graph.replay()  # capturing does nothing yet
    return graph.replay


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the learning rate in a tensor, where captured updates read it."""
    for group in optimizer.param_groups:
        device = group["params"][0].device
        if not isinstance(group["lr"], torch.Tensor):
            group["lr"] = torch.zeros((), device=device)
            group["capturable"] = device.type == "cuda"
        group["lr"].fill_(rate)
