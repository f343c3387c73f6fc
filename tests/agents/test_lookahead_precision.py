"""An agent's lookahead and measurement compute in float32; its updates as the caller set it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from mtrl_transfer import precision
from mtrl_transfer.agents import MTSAC


@pytest.fixture(autouse=True)
def _medium(monkeypatch) -> Iterator[None]:
    monkeypatch.setattr(precision, "_cpu_rounds", lambda setting: True)
    torch.set_float32_matmul_precision("medium")
    yield
    torch.set_float32_matmul_precision("highest")


class Recorded:
    """A loss that notes the precision at each call, and whether gradients are on."""

    def __init__(self, loss: Any, seen: list[str]) -> None:
        self.loss, self.seen = loss, seen

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self.seen.append(torch.get_float32_matmul_precision())
        return self.loss(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.loss, name)


def precisions(agent: MTSAC) -> list[str]:
    """Of all calls of the critic's loss in one update after warm-up."""
    agent.learn(100)
    seen: list[str] = []
    agent.critic_update.loss = Recorded(agent.critic_update.loss, seen)
    agent._take_updates(1, agent.batch_size)
    return seen


@pytest.mark.parametrize("measure", ["exact", "first_order"])
def test_only_the_gradient_is_rounded(make_agent: Callable[..., MTSAC], measure: str):
    seen = precisions(make_agent(combiner="transference", combiner_kwargs={"measure": measure}))
    assert seen[0] == "medium"
    assert set(seen[1:]) == {"highest"}
    assert torch.get_float32_matmul_precision() == "medium"


def test_measurements_are_not_rounded(make_agent: Callable[..., MTSAC]):
    seen = precisions(make_agent(combiner="mean", measure_every=1, affinity_every=1))
    assert seen.count("medium") == 1
    assert len(seen) > 5
