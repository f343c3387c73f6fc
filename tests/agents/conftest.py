from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from mtrl_transfer.agents import MTSAC
from mtrl_transfer.envs import make_vec_env


@pytest.fixture
def make_agent() -> Callable[..., MTSAC]:
    """A small agent on real Point tasks; keyword arguments go to MTSAC."""

    def make(spec: str = "Point-3", **kwargs: Any) -> MTSAC:
        arguments: dict[str, Any] = {
            "combiner": "mean",
            "batch_size": 24,
            "learning_starts": 60,
            "buffer_size": 3_000,
            "policy_kwargs": {"net_arch": [16, 16], "layer_norm": True},
            "seed": 0,
        }
        return MTSAC("MultiTaskPolicy", make_vec_env(spec, seed=0), **{**arguments, **kwargs})

    return make
