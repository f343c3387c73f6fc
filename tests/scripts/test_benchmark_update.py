"""The benchmark of updates: all engines compute equal task gradients."""

from __future__ import annotations

import pytest
import torch

from benchmarks.rows import SeparateCalls, TorchJD, UpdateOptions, random_agent, table_rows
from benchmarks.update import benchmark_update, peak_megabytes, plain_operations
from mtrl_transfer import COMBINERS, Update
from mtrl_transfer.agents.runs.errors import InputError

SMALL = UpdateOptions(tasks=3, rows=4, hidden=(8, 6), lookahead_rows=2, rounds=1)


@pytest.mark.parametrize("engine", [SeparateCalls, TorchJD])
def test_other_engines_find_the_same_gradients(engine: type[Update]):
    agent = random_agent(SMALL, "pcgrad", {})
    draws = {"critic": agent.minibatches.critic, "actor": agent.minibatches.actor}
    for role, update in agent.updates.items():
        batch = draws[role](agent.minibatches.sample(12, None), agent.learner.noise_generator)
        ours, _ = update._task_gradients(batch)
        update.__class__ = engine
        theirs, _ = update._task_gradients(batch)
        torch.testing.assert_close(theirs.losses, ours.losses)
        for name, gradient in ours.shared_grads.items():
            torch.testing.assert_close(theirs.shared_grads[name], gradient, rtol=1e-4, atol=1e-6)
        for name, gradient in ours.head_grads.items():
            torch.testing.assert_close(theirs.head_grads[name], gradient, rtol=1e-4, atol=1e-6)


COMPILED = tuple(name for name in table_rows(SMALL) if "compiled" in name)


def test_table_has_one_row_per_case():
    timings = benchmark_update(SMALL.model_copy(update={"only": tuple(table_rows(SMALL).keys() - COMPILED)}))
    assert timings[0].name == "plain"
    assert timings[0].ratio == 1.0
    assert len({timing.name for timing in timings}) == len(timings)
    assert {timing.name for timing in timings} >= COMBINERS.keys() - {"mean", "transference"}
    for timing in timings:
        assert timing.ratio == pytest.approx(timing.milliseconds / timings[0].milliseconds)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's compiler calls old functions
def test_compiled_rows_are_timed():
    timings = benchmark_update(SMALL.model_copy(update={"only": COMPILED}))
    assert [timing.name for timing in timings] == ["plain", *COMPILED]


def test_rows_can_be_chosen():
    timings = benchmark_update(SMALL.model_copy(update={"only": ("upgrad",)}))
    assert [timing.name for timing in timings] == ["plain", "upgrad"]
    with pytest.raises(InputError, match="only='upgrd' is no row of the table; did you mean upgrad"):
        benchmark_update(SMALL.model_copy(update={"only": ("upgrd",)}))


def test_peak_memory_is_of_tensors_alive_at_once():
    def work() -> None:
        first = torch.ones(1000, 1000)  # 4 MB
        second = first * 2  # 8 MB
        del first
        third = second + 1  # 8 MB again
        del second, third
        torch.ones(500, 1000)  # 2 MB

    assert peak_megabytes(work) == pytest.approx(8.0, rel=1e-3)


def test_more_tasks_take_more_memory():
    """Task gradients are T times as large as the trunk's gradient; the plain update has none of them."""
    wide = SMALL.model_copy(update={"hidden": (200, 200), "only": ("pcgrad",)})
    plain, pcgrad = benchmark_update(wide)
    one = 4 * (43 * 200 + 200 * 200 + 400) * 2 / 1e6  # the larger of the two trunks, of both critics
    assert pcgrad.megabytes > plain.megabytes + 1.5 * one


def test_operations_are_counted_from_the_products():
    """Forward 2 flops a weight and row; backward twice that, without the input's gradient in the first layer."""
    rows, layers = 12, [(39 + 3, 8), (8, 6), (6, 8)]  # the trunk sees the one-hot
    actor_forward = sum(2 * rows * a * b for a, b in layers)
    critic = [(39 + 3 + 4, 8), (8, 6), (6, 1)]
    critic_forward = 2 * sum(2 * rows * a * b for a, b in critic)
    first_actor, first_critic = 2 * rows * 42 * 8, 2 * 2 * rows * 46 * 8
    target = actor_forward + critic_forward
    critic_update = 3 * critic_forward - first_critic
    actor_update = 3 * actor_forward - first_actor + 2 * critic_forward
    assert plain_operations(SMALL) == target + critic_update + actor_update
