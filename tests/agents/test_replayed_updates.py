"""An update replayed operation by operation, in the memory of the first, is the update.

That is what a CUDA graph does: operations, their numbers and the addresses of their tensors are those of one recorded
update. What an update takes from Python, or rebinds, would stay what it was at the recording.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from agents import MTSAC, faults, trunk_update
from agents.replay import TaskBatch

UPDATES = 3


class Tape(TorchDispatchMode):
    """Remembers all operations with their arguments and results."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, ...]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        results = func(*args, **(kwargs or {}))
        self.calls.append((func, args, kwargs or {}, results))
        return results

    @torch.no_grad()
    def replay(self) -> None:
        """Do them again, with results in the same memory."""
        for func, args, kwargs, results in self.calls:
            for new, old in zip(tree_leaves(func(*args, **kwargs)), tree_leaves(results), strict=True):
                if isinstance(new, torch.Tensor) and new.data_ptr() != old.data_ptr():
                    old.detach().view(new.shape).copy_(new)


class FixedRows:
    """Stands in for an agent's sampling: rows in memory of their own, which ``refill`` draws anew."""

    def __init__(self, agent: MTSAC) -> None:
        self._draw, self._generator = agent._sample, torch.Generator().manual_seed(5)
        self._rows: dict[Any, TaskBatch] = {}

    def __call__(self, size: int, generator: torch.Generator | None) -> TaskBatch:
        return self._rows.setdefault((size, id(generator)), self._draw(size, self._generator))

    def refill(self) -> None:
        for (size, _), rows in self._rows.items():
            for column, new in zip(rows, self._draw(size, self._generator), strict=True):
                column.copy_(new)


def updated(agent: MTSAC, replayed: bool) -> MTSAC:
    """``agent`` after some updates on rows drawn alike, one by one or by replaying the first of them."""
    agent.learn(69)
    rows = FixedRows(agent)
    agent._sample = rows  # type: ignore[method-assign, assignment]
    agent.train(2, 24)  # past what the first updates make
    agent._record_all()  # logging starts statistics anew
    rows.refill()
    with Tape() as tape:
        agent.train(1, 24)
    for _ in range(UPDATES):
        rows.refill()
        if replayed:
            tape.replay()
        else:
            agent.train(1, 24)
    return agent


def state(agent: MTSAC) -> dict[str, torch.Tensor]:
    """All that updates change but what the host counts and lists."""
    found = {**agent.policy.state_dict(), "log_alpha": agent.log_alpha, **agent._statistics.state_dict()}
    for role, update in agent.updates.items():
        found.update({f"{role}.{name}": value for name, value in update.state_dict().items()})
    on_host = ("count", "calls", "pairs")
    return {name: value for name, value in found.items() if not any(word in name for word in on_host)}


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"combiner": "pcgrad"},
        {"combiner": "gradnorm"},
        {"combiner": "transference"},
        {"combiner": "transference", "combiner_kwargs": {"step_size": "optimizer", "max_absence": 2}},
        {"combiner": "transference", "combiner_kwargs": {"measure": "basis", "candidates": "power_set"}},
        {"combiner": "pcgrad", "measure_every": 1, "affinity_every": 1},
    ],
    ids=str,
)
def test_replaying_an_update_is_updating(
    make_agent: Callable[..., MTSAC], monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any]
) -> None:
    for module in (faults, trunk_update):  # as on a GPU
        monkeypatch.setattr(module, "looking_is_free", lambda device: False)
    expected, found = (state(updated(make_agent(**settings), replayed)) for replayed in (False, True))
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=0, atol=0, equal_nan=True, msg=name)
