"""The benchmark of stepping runs and leaves Meta-World as it was."""

from __future__ import annotations

import json

import metaworld
import pytest

from benchmarks.environments import benchmark_envs


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning")  # gymnasium on Meta-World's spaces and on async with shared memory
def test_the_benchmark_reports_all_contenders():
    before = metaworld._N_GOALS
    report = json.loads(json.dumps(benchmark_envs("MT10", n_goals=2, rounds=1, steps=2)))
    assert before == metaworld._N_GOALS
    assert len(report["transitions_per_second"]) == len(report["creation_seconds"]) == 4
    assert all(rate > 0 for rate in report["transitions_per_second"].values())
    assert all(ratio > 0 for ratio in report["step_ratios"].values())
