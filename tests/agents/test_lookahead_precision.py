"""An agent's lookahead and measurement compute in float32; its updates as the caller set it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from stable_baselines3.common.callbacks import BaseCallback

from mtrl_transfer import precision
from mtrl_transfer.agents import MTSAC, MeasureTransference
from mtrl_transfer.agents.mtsac.losses import CriticLoss


@pytest.fixture(autouse=True)
def _medium(monkeypatch) -> Iterator[None]:
    monkeypatch.setattr(precision, "_cpu_rounds", lambda setting: True)
    torch.set_float32_matmul_precision("medium")
    yield
    torch.set_float32_matmul_precision("highest")


def precisions(agent: MTSAC, monkeypatch: pytest.MonkeyPatch, callback: BaseCallback | None = None) -> list[str]:
    """The setting at each call of the critic's loss in one update after warm-up."""
    agent.learn(100, callback)
    seen: list[str] = []

    def noted(self: CriticLoss, *args: Any, **kwargs: Any) -> Any:
        seen.append(torch.get_float32_matmul_precision())
        return loss(self, *args, **kwargs)

    loss = CriticLoss.__call__
    monkeypatch.setattr(CriticLoss, "__call__", noted)
    agent._take_updates(1, agent.batch_size)
    return seen


@pytest.mark.parametrize("measure", ["exact", "first_order"])
def test_only_the_gradient_is_rounded(make_agent: Callable[..., MTSAC], measure: str, monkeypatch: pytest.MonkeyPatch):
    agent = make_agent(combiner="transference", combiner_kwargs={"measure": measure})
    seen = precisions(agent, monkeypatch)
    assert seen[0] == "medium"
    assert set(seen[1:]) == {"highest"}
    assert torch.get_float32_matmul_precision() == "medium"


def test_losses_around_a_step_are_not_rounded(make_agent: Callable[..., MTSAC], monkeypatch: pytest.MonkeyPatch):
    """FAMO compares them."""
    assert precisions(make_agent(combiner="famo"), monkeypatch) == ["medium", "highest", "highest"]


def test_measurements_are_not_rounded(make_agent: Callable[..., MTSAC], monkeypatch: pytest.MonkeyPatch):
    seen = precisions(make_agent(combiner="mean"), monkeypatch, MeasureTransference(1, 1))
    assert seen.count("medium") == 1
    assert len(seen) > 5
