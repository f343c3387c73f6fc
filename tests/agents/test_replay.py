from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces

from mtrl_transfer.agents import MultiTaskReplayBuffer
from mtrl_transfer.agents.mtsac.reward_scaling import LARGEST_RETURN, MaxReturnScaling, MaxRewardScaling

T, D, A = 3, 2, 1


def make_buffer(size: int = 5 * T, seed: int = 0, **kwargs: Any) -> MultiTaskReplayBuffer:
    observations = spaces.Box(-np.inf, np.inf, (D + T,), np.float32)
    return MultiTaskReplayBuffer(size, observations, spaces.Box(-1, 1, (A,)), "cpu", n_envs=T, seed=seed, **kwargs)


def add(buffer: MultiTaskReplayBuffer, step: int, done: bool = False, truncated: bool = False) -> None:
    """Every stored number says its task and step: 100 task + step."""
    values = 100.0 * np.arange(T) + step
    observations = np.concatenate([np.tile(values[:, None], D), np.eye(T)], axis=1)
    infos: list[dict[str, Any]] = [{"TimeLimit.truncated": truncated} for _ in range(T)]
    buffer.add(observations, observations + 0.5, values[:, None] / 1000, values, np.full(T, done), infos)


def test_every_task_gets_equally_many_rows() -> None:
    buffer = make_buffer()
    for step in range(4):
        add(buffer, step)
    batch = buffer.sample(T * 50)
    assert batch.observations.shape == (T, 50, D)
    for task in range(T):
        assert set(batch.rewards[task].tolist()) == {100.0 * task + step for step in range(4)}
    # The parts of a row belong together.
    torch.testing.assert_close(batch.observations[..., 0], batch.rewards)
    torch.testing.assert_close(batch.next_observations[..., 1], batch.rewards + 0.5)
    torch.testing.assert_close(batch.actions[..., 0], batch.rewards / 1000)


def test_the_ring_forgets_the_oldest() -> None:
    buffer = make_buffer()
    for step in range(7):
        add(buffer, step)
    assert set(buffer.sample(T * 100).rewards[0].tolist()) == {2.0, 3.0, 4.0, 5.0, 6.0}


@pytest.mark.parametrize(("truncated", "discount"), [(True, 0.5), (False, 0.0)])
def test_truncation_is_not_termination(truncated: bool, discount: float) -> None:
    buffer = make_buffer(gamma=0.5)
    add(buffer, 0, done=True, truncated=truncated)
    assert set(buffer.sample(T * 4).discounts.flatten().tolist()) == {discount}


@pytest.mark.parametrize("steps", [4, 10, 23])
def test_returns_of_several_steps_equal_a_literal_sum(steps: int) -> None:
    """Up to the episode's end, or to the newest step, wherever in the ring that lies; three kinds of ends."""
    gamma, n_steps, size = 0.5, 3, 10
    buffer = make_buffer(size * T, gamma=gamma, n_steps=n_steps)
    ends = {2: True, 7: False, 8: True, 15: False, 21: True}  # step: truncated
    for step in range(steps):
        add(buffer, step, done=step in ends, truncated=ends.get(step, False))
    batch = buffer.sample(T * 300)
    seen = set()
    for task in range(T):
        for row in range(300):
            first = last = int(batch.observations[task, row, 0]) - 100 * task
            total = 100.0 * task + first
            while last + 1 < steps and last not in ends and last + 1 < first + n_steps:
                last += 1
                total += gamma ** (last - first) * (100.0 * task + last)
            discount = 0.0 if ends.get(last) is False else gamma ** (last - first + 1)
            assert batch.rewards[task, row].item() == total
            assert batch.discounts[task, row].item() == discount
            assert batch.next_observations[task, row, 1].item() == 100.0 * task + last + 0.5
            seen.add(first)
    assert seen == set(range(max(steps - size, 0), steps))


def test_a_foreign_generator_leaves_the_own_stream_alone() -> None:
    buffers = make_buffer(), make_buffer()
    for buffer in buffers:
        for step in range(5):
            add(buffer, step)
    buffers[0].sample(T * 8, generator=torch.Generator().manual_seed(9))
    assert torch.equal(buffers[0].sample(T * 8).rewards, buffers[1].sample(T * 8).rewards)


@pytest.mark.parametrize("steps", [3, 5, 7])
def test_save_and_load(tmp_path: Path, steps: int) -> None:
    buffer, other = make_buffer(), make_buffer(seed=1)
    for step in range(steps):
        add(buffer, step)
    buffer.sample(T)
    buffer.save(tmp_path / "replay.safetensors")
    other.load(tmp_path / "replay.safetensors")
    for one in (buffer, other):
        add(one, steps)
    assert (other.pos, other.full) == (buffer.pos, buffer.full)
    assert torch.equal(other.sample(T * 8).rewards, buffer.sample(T * 8).rewards)


def test_a_file_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    buffer = make_buffer()
    for step in range(5):
        add(buffer, step)
    buffer.save(tmp_path / "replay.safetensors")
    with pytest.raises(ValueError, match="smaller buffer_size"):
        make_buffer(size=4 * T).load(tmp_path / "replay.safetensors")


def test_a_full_one_goes_into_a_larger_one(tmp_path: Path) -> None:
    buffer, larger = make_buffer(), make_buffer(size=9 * T)
    for step in range(7):
        add(buffer, step)
    buffer.save(tmp_path / "replay.safetensors")
    larger.load(tmp_path / "replay.safetensors")
    assert larger.size() == 5
    assert larger.storage.rewards[:6, 0].tolist() == [2.0, 3.0, 4.0, 5.0, 6.0, 0.0]


@pytest.mark.parametrize(
    "content", [b"", b"x" * 50, bytes([0x80, 5]) + bytes(50), bytes([2, 0, 0, 0, 0, 0, 0, 0]) + b"{}"]
)
def test_a_file_of_something_else_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "replay").write_bytes(content)
    with pytest.raises(ValueError, match="is no replay saved by MTSAC"):
        make_buffer().load(tmp_path / "replay")
    with pytest.raises(FileNotFoundError):
        make_buffer().load(tmp_path / "nothing")


def test_max_return_scaling_equals_a_literal_computation() -> None:
    generator = np.random.default_rng(0)
    rewards, dones = generator.normal(size=(40, T)), generator.random((40, T)) < 0.1
    rewards[:, 2] = 0.0
    scaling = MaxReturnScaling(T, 0.9, torch.device("cpu"))
    for row, done in zip(rewards, dones, strict=True):
        scaling.update(row, done)
    largest = np.zeros(T)
    for task in range(T):
        start = 0
        for end in range(40):
            value = sum(0.9 ** (end - step) * rewards[step, task] for step in range(start, end + 1))
            largest[task] = max(largest[task], abs(value))
            start = end + 1 if dones[end, task] else start
    factors = scaling.factors.numpy()
    np.testing.assert_allclose(factors[:2], LARGEST_RETURN / largest[:2], rtol=1e-6)
    assert factors[2] == 1.0


def test_max_reward_scaling_fixes_the_return_of_largest_reward() -> None:
    scaling = MaxRewardScaling(2, 0.9, torch.device("cpu"))
    before = scaling.factors
    for rewards in ([0.5, 0.0], [-2.0, 0.0], [1.0, 0.0]):
        scaling.update(np.array(rewards), np.array([True, False]))
    assert scaling.factors is before  # recorded updates read them there
    factors = scaling.factors.numpy()
    forever = sum(0.9**step * 2.0 * factors[0] for step in range(400))
    np.testing.assert_allclose(forever, LARGEST_RETURN, rtol=1e-6)
    assert factors[1] == 1.0
