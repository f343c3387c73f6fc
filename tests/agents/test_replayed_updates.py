"""Training by recorded updates is training.

A recording here does what a CUDA graph does, on the CPU: it repeats operations with the numbers and the memory of one
recorded update. What an update takes from Python, or rebinds, stays what it was at the recording.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import configure
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from mtrl_transfer import gradients, update
from mtrl_transfer.agents import MTSAC, MeasureTransference, ReweightTasks
from mtrl_transfer.agents.monitoring.training_log import record_training
from mtrl_transfer.agents.mtsac import cuda_graph as recorded_updates
from mtrl_transfer.agents.mtsac.cuda_graph import RecordedUpdates
from mtrl_transfer.agents.storage.agent_archive import agent_to_archive


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


REPLAYS: list[Callable[[], None]] = []


def record_on_cpu(work: Callable[[], None], generators: Sequence[torch.Generator]) -> Callable[[], None]:
    """Stands in for `mtrl_transfer.agents.mtsac.cuda_graph.recorded`, which needs a CUDA device."""
    with Tape() as tape:
        work()
    return tape.replay


def noting(record: Callable[..., Callable[[], None]]) -> Callable[..., Callable[[], None]]:
    """As ``record``, with all replays noted."""

    def recorded(*arguments: Any) -> Callable[[], None]:
        replay = record(*arguments)
        return lambda: (REPLAYS.append(replay), replay())[1]

    return recorded


def rate(remaining: float) -> float:
    """Falls, in numbers that float32 holds: recordings read it in such a tensor."""
    return float(np.float32(1e-3 * (0.1 + remaining)))


def trained(
    make_agent: Callable[..., MTSAC], by_recordings: bool, settings: dict[str, Any], callbacks: list[BaseCallback]
) -> tuple[MTSAC, list[dict[str, Any]]]:
    """An agent trained in two calls, with replay growing, rewards that reach further and logs, and what it told."""
    agent = make_agent(learning_rate=rate, **settings)
    told: list[dict[str, Any]] = []
    agent.set_logger(configure(None, []))
    if by_recordings:
        agent.cuda_graph = True
        if agent.device.type == "cpu":  # which the learner refuses
            learner = agent.learner
            make = lambda: RecordedUpdates(learner.batches.sample, learner.generators)  # noqa: E731
            learner.record = lambda on=True: setattr(learner, "_recorded", make())  # type: ignore[method-assign]
    for transitions in (90, 60):
        agent.learn(transitions, callbacks, reset_num_timesteps=False)
        record_training(agent)
        told.append(dict(agent.logger.name_to_value))
        agent.set_parameters(agent.get_parameters())  # optimizers then have new tensors
    return agent, told


def state(agent: MTSAC) -> dict[str, torch.Tensor]:
    """All that is stored of an agent, random streams included."""
    _, tensors = agent_to_archive(agent)
    return tensors


OTHERS = ["gradnorm", "pcgrad", "random_drop", "random_weights"]
SETTINGS: list[dict[str, Any]] = [
    {"reward_scaling": "max_reward", "clip_targets": True, "n_steps": 3, "callbacks": [ReweightTasks(1, 4)]},
    {"policy_kwargs": {"net_arch": [8], "alignment": "alternating", "alignment_period": 7, "actor_tau": 0.1}},
    {"policy_kwargs": {"net_arch": [8], "standardize_inputs": True}},
    {
        "combiner": "transference",
        "combiner_kwargs": {"every": 2},
        "policy_kwargs": {"net_arch": [8], "alignment": "alternating", "alignment_period": 5},
    },
    {"combiner": "famo", "callbacks": [MeasureTransference(5, 6)]},
    {"combiner": "transference", "combiner_kwargs": {"candidates": ["full", *OTHERS, "leave_one_out"]}},
    {
        "combiner": "transference",
        "combiner_kwargs": {
            "measure": {"step_size": "optimizer"},
            "selector": {"name": "significant", "max_absence": 2, "smoothing": 0.9, "z": 1.0},
        },
    },
    {"combiner": "transference", "combiner_kwargs": {"every": 4}, "callbacks": [MeasureTransference(3)]},
    {"combiner": "transference", "combiner_kwargs": {"every": 3, "inner": "pcgrad"}},
    {"combiner": "transference", "combiner_kwargs": {"critic": {"every": 2}, "actor": {"every": 3, "scale": "ema"}}},
    {"combiner": "transference", "combiner_kwargs": {"measure": "basis", "candidates": "power_set"}},
    {"combiner": "transference", "combiner_kwargs": {"measure": "lookahead_gradient", "candidates": "weights"}},
]


def label(settings: dict[str, Any]) -> str:
    """The same name in every process: without the addresses of objects."""
    return re.sub(r" object at 0x[0-9a-f]+", "", str(settings))


def compare(make_agent: Callable[..., MTSAC], settings: dict[str, Any], **tolerance: float) -> None:
    """Train one by one and by recordings: everything stored and told must be alike."""
    REPLAYS.clear()
    settings = dict(settings)
    callbacks = settings.pop("callbacks", [])
    both = (trained(make_agent, how, settings, callbacks) for how in (False, True))
    (one_by_one, told), (by_recordings, told_too) = both
    assert len(REPLAYS) > 3
    expected, found = state(one_by_one), state(by_recordings)
    assert expected.keys() == found.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, **tolerance, equal_nan=True, msg=name)
    for before, after in zip(told, told_too, strict=True):
        assert before.keys() == after.keys()
        for name in before:
            if not name.startswith("time/"):
                np.testing.assert_allclose(after[name], before[name], **tolerance, err_msg=name)


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorded_updates, "WARM_UP", 1)  # so that all kinds are replayed before long


@pytest.mark.parametrize("settings", SETTINGS, ids=label)
def test_training_by_recordings_is_training(
    make_agent: Callable[..., MTSAC], monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any]
) -> None:
    for module in (gradients, update):  # as on a GPU
        monkeypatch.setattr(module, "is_sync_free", lambda device: False)
    monkeypatch.setattr(recorded_updates, "recorded", noting(record_on_cpu))
    compare(make_agent, settings, rtol=0, atol=0)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("settings", SETTINGS, ids=label)
def test_training_by_cuda_graphs_is_training(
    make_agent: Callable[..., MTSAC], monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any]
) -> None:
    monkeypatch.setattr(recorded_updates, "recorded", noting(recorded_updates.recorded))
    compare(make_agent, {"device": "cuda", **settings}, rtol=1e-4, atol=1e-6)


def test_a_recording_needs_a_cuda_device(make_agent: Callable[..., MTSAC]) -> None:
    agent = make_agent(cuda_graph=True)
    with pytest.raises(ValueError, match="cuda_graph=True needs a CUDA device, and this agent is on cpu"):
        agent.learn(90)


def test_a_recording_needs_capturable_combiners(make_agent: Callable[..., MTSAC]) -> None:
    agent = make_agent(combiner="transference", combiner_kwargs={"critic": {"candidates": ["full", "upgrad"]}})
    agent.learner.device = torch.device("cuda")
    with pytest.raises(ValueError, match="the critic's combiner, Transference, cannot be captured"):
        agent.learner.record()
