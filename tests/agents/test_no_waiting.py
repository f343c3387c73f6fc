"""An update asks the device for nothing: on a GPU each answer would stop the queue of work."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from stable_baselines3.common.callbacks import BaseCallback
from torch.utils._python_dispatch import TorchDispatchMode

from mtrl_transfer import COMBINERS, candidates, gradients, update
from mtrl_transfer.agents import MTSAC, MeasureTransference
from mtrl_transfer.agents.monitoring import training_log
from mtrl_transfer.choosing import combiner as choosing
from mtrl_transfer.combiners.torchjd import TorchJDWeighting

WAIT_FOR_NOTHING = sorted(name for name, kind in COMBINERS.items() if not issubclass(kind, TorchJDWeighting))
WAITING = {"_local_scalar_dense", "item", "nonzero", "is_nonzero", "masked_select", "unique", "_unique2", "equal"}
"""Operations whose result the host has to know: a number, or a shape."""


class Guard(TorchDispatchMode):
    """Raises on any operation that would wait for a GPU."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.__name__.split(".")[0]
        if name in WAITING or (name.startswith("index") and self._by_mask(args)):
            raise AssertionError(f"{func} waits for the device")
        return func(*args, **(kwargs or {}))

    @staticmethod
    def _by_mask(args: Any) -> bool:
        indices = args[1] if len(args) > 1 and isinstance(args[1], list | tuple) else ()
        return any(isinstance(index, torch.Tensor) and index.dtype == torch.bool for index in indices)


@contextmanager
def no_waiting() -> Iterator[None]:
    """Also without what leaves the device past the dispatcher."""

    def refuse(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("values leave the device")

    with pytest.MonkeyPatch.context() as patch, Guard():
        for name in ("cpu", "numpy", "tolist"):
            patch.setattr(torch.Tensor, name, refuse)
        for family in candidates.FAMILIES:  # made on the CPU, to be brought over once
            patch.setattr(candidates, family, refuse)
        for module in (gradients, training_log, update, choosing):  # as on a GPU
            patch.setattr(module, "is_sync_free", lambda device: False)
        yield


def trained(make_agent: Callable[..., MTSAC], callback: BaseCallback | None = None, **kwargs: Any) -> MTSAC:
    """Past the first update, which makes running tensors."""
    agent = make_agent(**kwargs)
    agent.learn(69, callback)
    assert agent._n_updates > 1
    return agent


@pytest.mark.parametrize("statement", ["x.item()", "bool(x > 0)", "y[y > 0]", "y[x.long()]", "y.cpu()", "y.tolist()"])
def test_the_guard_sees_it(statement: str) -> None:
    names = {"x": torch.ones(()), "y": torch.ones(3)}
    with pytest.raises(AssertionError, match="device"), no_waiting():
        eval(statement, names)


@pytest.mark.parametrize(
    "combiner", sorted(name for name, kind in COMBINERS.items() if not issubclass(kind, TorchJDWeighting))
)
def test_no_combiner_waits(make_agent: Callable[..., MTSAC], combiner: str) -> None:
    agent = trained(make_agent, combiner=combiner)
    with no_waiting():
        agent.train(2, agent.batch_size)


@pytest.mark.parametrize(
    "settings",
    [
        {"measure": "first_order"},
        {"measure": "basis", "candidates": "power_set"},
        {"measure": "lookahead_gradient"},
        {"measure": "hindsight"},
        {"measure": "lookahead_gradient", "candidates": "weights"},
        {"measure": {"name": "lookahead_gradient", "step_size": "optimizer"}, "selector": "significant"},
        {"measure": "basis", "candidates": "weights"},
        {"measure": {"step_size": "optimizer"}},
        {"inner": "pcgrad"},
        {
            "every": 2,
            "measure": {"held_out": False},
            "selector": {"name": "significant", "max_absence": 4, "smoothing": 0.9, "z": 1.0},
        },
        {"candidates": ["leave_one_out", "pcgrad", "gradnorm"]},
    ],
    ids=str,
)
def test_no_measure_waits(make_agent: Callable[..., MTSAC], settings: dict[str, Any]) -> None:
    agent = trained(make_agent, combiner="transference", combiner_kwargs=settings)
    with no_waiting():
        agent.train(3, agent.batch_size)


def test_measuring_does_not_wait(make_agent: Callable[..., MTSAC]) -> None:
    agent = trained(make_agent, MeasureTransference(1, 1))
    with no_waiting():
        agent.train(2, agent.batch_size)
