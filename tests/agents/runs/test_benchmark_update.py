"""The contenders of the benchmark do the same work: equal task gradients, whoever computes them."""

from __future__ import annotations

import pytest
import torch

from agents.runs.benchmark_update import SeparateCalls, Sizes, TorchJD, _agent, benchmark_update, plain_operations
from agents.trunk_update import TrunkUpdate

SMALL = Sizes(n_tasks=3, rows=4, hidden=(8, 6), lookahead_rows=2)


@pytest.mark.parametrize("engine", [SeparateCalls, TorchJD])
def test_other_engines_find_the_same_gradients(engine: type[TrunkUpdate]):
    agent = _agent(SMALL, "pcgrad", {})
    draws = {"critic": agent._critic_batch, "actor": agent._actor_batch}
    for role, update in agent.updates.items():
        batch = draws[role](agent._sample(12, None), agent.noise_generator)
        ours, _ = update._task_gradients(batch)
        update.__class__ = engine
        theirs, _ = update._task_gradients(batch)
        torch.testing.assert_close(theirs.losses, ours.losses)
        for name, gradient in ours.shared_grads.items():
            torch.testing.assert_close(theirs.shared_grads[name], gradient, rtol=1e-4, atol=1e-6)
        for name, gradient in ours.head_grads.items():
            torch.testing.assert_close(theirs.head_grads[name], gradient, rtol=1e-4, atol=1e-6)


def test_one_row_a_case_with_ratios_to_the_plain_update():
    timings = benchmark_update(SMALL, rounds=1)
    assert timings[0].name == "plain"
    assert timings[0].ratio == 1.0
    assert len({timing.name for timing in timings}) == len(timings) == 10
    for timing in timings:
        assert timing.ratio == pytest.approx(timing.milliseconds / timings[0].milliseconds)


def test_operations_are_those_of_the_products():
    """Forward 2 flops a weight and row; backward twice that, without the input's gradient in the first layer."""
    rows, layers = 12, [(39, 8), (8, 6), (6, 8)]
    actor_forward = sum(2 * rows * a * b for a, b in layers)
    critic = [(43, 8), (8, 6), (6, 1)]
    critic_forward = 2 * sum(2 * rows * a * b for a, b in critic)
    first_actor, first_critic = 2 * rows * 39 * 8, 2 * 2 * rows * 43 * 8
    target = actor_forward + critic_forward
    critic_update = 3 * critic_forward - first_critic
    actor_update = 3 * actor_forward - first_actor + 2 * critic_forward
    assert plain_operations(SMALL) == target + critic_update + actor_update
