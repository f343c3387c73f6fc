"""The benchmark of stepping runs and leaves Meta-World as it was."""

from __future__ import annotations

import io

import metaworld
import pytest
from rich.console import Console

from benchmarks import envs


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning")  # gymnasium on Meta-World's spaces and on async with shared memory
def test_the_benchmark_reports_all_contenders():
    before, printed = metaworld._N_GOALS, io.StringIO()
    envs.run(["n_goals=2", "rounds=1", "steps=2"], Console(file=printed, width=120))
    assert before == metaworld._N_GOALS
    rows = [line.split("│")[1:-1] for line in printed.getvalue().splitlines() if line.startswith("│")]
    assert [row[0].strip() for row in rows] == [
        *("ours, one process", "ours, one per core", "metaworld sync", "metaworld async")
    ]
    assert all(float(cell.replace(",", "")) > 0 for row in rows for cell in row[1:])
