"""The soak reports what happened."""

from __future__ import annotations

import pytest

from benchmarks.soak import Sample, judge, train_for
from mtrl_transfer.agents.runs.config.loading import load_config


def test_the_slope_is_of_memory_after_warm_up():
    """A line of 12 MB an hour behind a steep warm-up."""
    samples = [Sample(60.0 * minute, 100 + 50 * min(minute, 10) + 0.2 * minute, 7, 1) for minute in range(41)]
    samples[-1] = samples[-1]._replace(files=9, children=3)
    slope, begin, end = judge(samples)
    assert slope == pytest.approx(12.0)
    assert (begin, end) == (samples[10], samples[40])


def test_a_short_soak_ends_in_time_and_leaves_no_process_behind():
    budget = ["total_timesteps=10", "agent.learning_starts=7"]
    config = load_config("point", [*budget, "log.progress=false", "combiner.name=mean", "combiner.kwargs={}"])
    transitions, samples = train_for(config, seconds=1.0)
    _, begin, end = judge(samples)
    assert transitions > 10  # the time counts, not the budget
    assert end.seconds >= 1.0
    assert begin.seconds >= 0.25 * end.seconds
    assert begin.megabytes > 50
    assert begin.children == end.children
