"""Compiled updates are the same mathematics, repeat bit for bit, and are chosen where they are faster."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import shaped_tasks
import torch

from mtrl_transfer.agents import MTSAC, ResetNetworks
from mtrl_transfer.agents.mtsac import compiling
from mtrl_transfer.agents.storage.agent_archive import agent_to_archive

SETTINGS: list[dict[str, Any]] = [
    {"combiner": "mean", "max_grad_norm": 0.1},
    {"combiner": {"critic": {"name": "transference", "every": 3}, "actor": "pcgrad"}},
    {"policy_kwargs": {"net_arch": [8], "alignment": "alternating", "alignment_period": 3}},
]


def trained(make_agent: Callable[..., MTSAC], **settings: Any) -> dict[str, torch.Tensor]:
    """All that is stored of an agent after a few updates, random streams included."""
    agent = make_agent(**settings)
    agent.learn(90)
    return agent_to_archive(agent)[1]


def same_up_to_rounding(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> bool:
    return all(torch.allclose(found[name].double(), expected[name].double(), atol=1e-4) for name in expected)


@pytest.mark.parametrize("settings", SETTINGS, ids=["mean", "weights", "aligned"])
def test_functions_to_compile_give_the_same_update(
    settings: dict[str, Any], make_agent: Callable[..., MTSAC], monkeypatch: pytest.MonkeyPatch
):
    called: list[str] = []

    def as_it_is(function: Any, dynamic: bool) -> Any:
        return lambda *arguments: (called.append(function.__code__.co_name), function(*arguments))[1]

    eager = trained(make_agent, **settings)
    monkeypatch.setattr(torch, "compile", as_it_is)
    monkeypatch.setattr("mtrl_transfer.agents.mtsac.learner.has_compiler", lambda: True)
    assert same_up_to_rounding(trained(make_agent, compile=True, **settings), eager)
    assert {"td_targets", "_mean_gradients"} <= set(called)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's compiler calls old functions
@pytest.mark.skipif(not compiling.has_compiler(), reason="needs a C++ compiler")
@pytest.mark.parametrize("settings", SETTINGS[:2], ids=["mean", "weights"])
def test_compiled_training_repeats_itself(settings: dict[str, Any], make_agent: Callable[..., MTSAC]):
    eager, first, second = (trained(make_agent, compile=one, **settings) for one in (False, True, True))
    assert same_up_to_rounding(first, eager)
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.skipif(not compiling.has_compiler(), reason="needs a C++ compiler")
def test_compiled_updates_see_networks_that_were_reset():
    """With FAMO and tasks of different shapes."""
    eager, compiled = (
        shaped_tasks.make(combiner="famo", compile=one).learn(90, ResetNetworks([45], updates=5))
        for one in (False, True)
    )
    assert eager._n_updates == compiled._n_updates > 30
    torch.testing.assert_close(compiled.policy.state_dict(), eager.policy.state_dict())


def test_compile_auto_takes_only_small_silu_networks(make_agent: Callable[..., MTSAC], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(compiling, "has_compiler", lambda: True)
    nets: list[dict[str, Any]] = [
        {"activation_fn": name, "net_arch": [w]} for name, w in (("silu", 8), ("silu", 4_000), ("relu", 8))
    ]
    assert [make_agent(compile="auto", policy_kwargs=each).compile for each in nets] == [True, False, False]


def test_compile_needs_a_compiler(make_agent: Callable[..., MTSAC], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert make_agent(compile="auto").compile is False
    with pytest.raises(ValueError, match="no-such-compiler is not there"):
        make_agent(compile=True).learn(90)
