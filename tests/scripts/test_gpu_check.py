"""The check of a GPU, as far as a CPU can run it."""

from __future__ import annotations

import json
from pathlib import Path

import gpu_check
import pytest

from benchmarks.rows import UpdateOptions


def test_every_part_is_written_on_a_cpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    small = UpdateOptions(tasks=3, rows=8, hidden=(8,))
    monkeypatch.setattr(gpu_check, "SIZES", dict.fromkeys(gpu_check.SIZES, small))
    monkeypatch.setattr(gpu_check, "COMPILED", ())  # it takes half a minute
    monkeypatch.setattr(gpu_check, "METHODS", {"plain": ("mean", {}), "PCGrad": ("pcgrad", {})})
    for part in ("tests", "training"):  # a whole test session and a whole run
        monkeypatch.setattr(gpu_check, part, lambda options: {"left out": "here"})
    assert gpu_check.gpu_check(["device=cpu", f"out={tmp_path}", "rounds=2"]) == 0
    found = json.loads((tmp_path / "gpu.json").read_text())
    assert found["moved"]["cpu to cpu"] is True
    assert all(row["ms"] > 0 for size in gpu_check.SIZES for row in found["updates"][size].values())
    assert "| PCGrad, eager |" in (tmp_path / "gpu.md").read_text()


def test_a_part_that_fails_is_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def broken(options: gpu_check.Options) -> None:
        raise RuntimeError("no such device")

    for part in ("tests", "moved", "synchronisation", "updates", "training"):
        monkeypatch.setattr(gpu_check, part, broken)
    assert gpu_check.gpu_check(["device=cpu", f"out={tmp_path}"]) == 0
    assert json.loads((tmp_path / "gpu.json").read_text())["updates"]["error"] == "RuntimeError: no such device"
