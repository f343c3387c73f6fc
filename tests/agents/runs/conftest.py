"""Shared by the tests of runs."""

from __future__ import annotations

import pytest

from mtrl_transfer.agents.runs import estimate


@pytest.fixture(autouse=True)
def quick_estimate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(estimate, "ENOUGH_SECONDS", 0.02)
