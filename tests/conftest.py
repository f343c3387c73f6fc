"""Global state: each test begins with the same and must leave it as it was."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest
import torch


def global_state() -> dict[str, Any]:
    return {
        "matmul precision": torch.get_float32_matmul_precision(),
        "threads": torch.get_num_threads(),
        "dtype": torch.get_default_dtype(),
        "gradients": torch.is_grad_enabled(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "folder": os.getcwd(),
    }


@pytest.fixture(scope="session", autouse=True)
def _float32_and_one_thread() -> Iterator[None]:
    """Run all tests, fixtures of modules included, with float32 products and one thread, whatever the caller set."""
    callers = torch.get_float32_matmul_precision(), torch.get_num_threads()
    torch.set_float32_matmul_precision("highest")
    torch.set_num_threads(1)
    yield
    torch.set_float32_matmul_precision(callers[0])
    torch.set_num_threads(callers[1])


@pytest.fixture(autouse=True)
def _same_global_state(_float32_and_one_thread: None) -> Iterator[None]:
    """Fail a test that leaves another state than it found, and put that back for the next."""
    before = global_state()
    yield
    after = global_state()
    torch.set_float32_matmul_precision(before["matmul precision"])
    torch.set_num_threads(before["threads"])
    assert after == before
