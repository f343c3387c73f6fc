"""Covariance similarity, alignment and task weights against closed forms."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from mtrl_transfer import (
    AlignmentSchedule,
    TaskAlignment,
    covariance_similarity,
    pairwise_covariance_similarity,
    svd_task_weights,
)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def orthogonal(size: int, seed: int = 0) -> Tensor:
    return torch.linalg.qr(normal(size, size, seed=seed))[0]


def with_second_moment(moment: Tensor, rows: int, seed: int) -> Tensor:
    """Inputs `X [rows, d]` with exactly `XᵀX = rows · moment`."""
    columns = torch.linalg.qr(normal(rows, len(moment), seed=seed))[0]
    values, vectors = torch.linalg.eigh(moment)
    return math.sqrt(rows) * columns @ (vectors * values.clamp(min=0).sqrt()) @ vectors.T


def plane_rotation(angle: float, size: int) -> Tensor:
    turn, (c, s) = torch.eye(size, dtype=torch.float64), (math.cos(angle), math.sin(angle))
    turn[:2, :2] = torch.tensor([[c, -s], [s, c]], dtype=torch.float64)
    return turn


@pytest.mark.parametrize("angle", [0.0, 0.3, 1.0, math.pi / 2])
def test_similarity_falls_with_the_angle_as_in_closed_form(angle: float):
    """`tr(Σ_i Σ_j)^{1/2} / (tr Σ_i tr Σ_j)^{1/2}`, for a plane with variances a and b turned by the angle."""
    a, b = 4.0, 0.25
    moment, turn = torch.diag(torch.tensor([a, b], dtype=torch.float64)), plane_rotation(angle, 2)
    x_i = with_second_moment(moment, 50, seed=1)
    x_j = with_second_moment(turn @ moment @ turn.T, 30, seed=2)
    overlap = (a * a + b * b) * math.cos(angle) ** 2 + 2 * a * b * math.sin(angle) ** 2
    found = covariance_similarity(x_i, x_j, share=1.0)
    assert found.item() == pytest.approx(math.sqrt(overlap) / (a + b), rel=1e-9)


def test_only_the_leading_share_of_the_spectrum_counts():
    moment = torch.diag(torch.tensor([6.0, 3.0, 1.0], dtype=torch.float64))
    x_i = with_second_moment(moment, 40, seed=1)
    x_j = with_second_moment(moment.flip(0, 1), 40, seed=2)
    # Of shares 0.6, 0.3, 0.1: one direction holds 0.5, two hold 0.9, all three hold 1.
    assert covariance_similarity(x_i, x_j, share=0.5).item() == pytest.approx(0.0, abs=1e-7)
    assert covariance_similarity(x_i, x_j, share=0.8).item() == pytest.approx(3 / 9, rel=1e-9)
    assert covariance_similarity(x_i, x_j, share=1.0).item() == pytest.approx(math.sqrt(6 + 9 + 6) / 10, rel=1e-9)


def test_equal_tasks_score_by_how_many_directions_hold_them():
    assert covariance_similarity(orthogonal(5), orthogonal(5, seed=1)).item() == pytest.approx(1 / math.sqrt(5))
    one = torch.outer(normal(6), normal(3, seed=1))
    assert covariance_similarity(one, one[:2]).item() == pytest.approx(1.0)


def test_similarity_does_not_see_a_common_rotation_scale_or_repeated_rows():
    x_i, x_j, turn = normal(20, 4), normal(9, 4, seed=1) @ torch.diag(normal(4, seed=2)), orthogonal(4)
    expected = covariance_similarity(x_i, x_j)
    for changed in ((x_i @ turn, x_j @ turn), (7 * x_i, 0.1 * x_j), (x_i, torch.cat([x_j, x_j]))):
        torch.testing.assert_close(covariance_similarity(*changed), expected)
    assert not torch.isclose(covariance_similarity(x_i @ torch.diag(normal(4, seed=2)), x_j @ turn), expected)


def test_pairwise_is_every_pair_with_any_number_of_rows():
    inputs = [normal(8, 3), normal(5, 3, seed=1), torch.zeros(4, 3, dtype=torch.float64), normal(2, 3, seed=2)]
    found = pairwise_covariance_similarity(inputs, share=0.9)
    for i, x_i in enumerate(inputs):
        for j, x_j in enumerate(inputs):
            torch.testing.assert_close(found[i, j], covariance_similarity(x_i, x_j, share=0.9))
    assert (found[2] == 0).all()
    stacked = torch.stack([normal(6, 3), normal(6, 3, seed=1)])
    torch.testing.assert_close(pairwise_covariance_similarity(stacked), pairwise_covariance_similarity([*stacked]))


@pytest.mark.parametrize(
    ("x_j", "share", "message"),
    [
        (torch.ones(3, 5), 0.99, r"one width for all tasks, got \[\[3, 4\], \[3, 5\]\]"),
        (torch.ones(4), 0.99, r"must be \[rows, width\]"),
        (torch.ones(3, 4), 0.0, "share=0.0 must be above 0"),
        (torch.ones(3, 4), 1.5, "share=1.5"),
    ],
)
def test_bad_inputs_of_similarity(x_j: Tensor, share: float, message: str):
    with pytest.raises(ValueError, match=message):
        covariance_similarity(torch.ones(3, 4), x_j, share)


def test_alignment_begins_as_the_identity_and_each_task_has_its_own():
    alignment = TaskAlignment(3, 4).double()
    x = normal(3, 5, 4)
    torch.testing.assert_close(alignment(x), x, rtol=0, atol=0)
    with torch.no_grad():
        alignment.weight.copy_(normal(3, 4, 4, seed=1))
    for task in range(3):
        expected = torch.stack([row @ alignment.weight[task] for row in x[task]])
        torch.testing.assert_close(alignment(x)[task], expected)
        torch.testing.assert_close(alignment(x[task], task), expected)
    (gradient,) = torch.autograd.grad(alignment(x)[1].square().sum(), alignment.weight)
    assert gradient[1].abs().min() > 0
    assert (gradient[[0, 2]] == 0).all()


def test_turns_of_trunk_and_alignment():
    schedule = AlignmentSchedule("alternating", period=3)
    assert "".join("TA"[schedule.trains(step).alignment] for step in range(8)) == "TTTAAATT"
    assert all(schedule.trains(step).trunk != schedule.trains(step).alignment for step in range(8))
    assert all(AlignmentSchedule("joint", period=3).trains(step) == (True, True) for step in range(8))
    with pytest.raises(ValueError, match=r"unknown alignment: 'jont'.*did you mean joint"):
        AlignmentSchedule("jont")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="period=0 must be at least 1"):
        AlignmentSchedule(period=0)


def test_weights_are_the_lengths_inside_the_shared_directions():
    """Models with known singular directions: two tasks along e_1 and e_2 mixed, one along e_3, isotropic inputs."""
    x = math.sqrt(10) * torch.linalg.qr(normal(10, 4))[0]
    models = torch.tensor([[3.0, 1.0, 0.0], [1.0, 3.0, 0.0], [0.0, 0.0, 1.0], [0.0, 0.0, 0.0]], dtype=torch.float64)
    y = x @ models
    # [3 1; 1 3] has singular values 4 along (1, 1) and 2 along (1, -1); the third task has 1 of its own.
    torch.testing.assert_close(svd_task_weights(x, y, 1), 10 * torch.tensor([8.0, 8.0, 0.0]).double().sqrt())
    torch.testing.assert_close(svd_task_weights(x, y, 2), 10 * torch.tensor([10.0, 10.0, 0.0]).double().sqrt())
    torch.testing.assert_close(svd_task_weights(x, y, 3), 10 * torch.tensor([10.0, 10.0, 1.0]).double().sqrt())


def test_weights_follow_the_tasks_and_not_the_coordinates():
    x, y, turn = normal(30, 6), normal(30, 4, seed=1), orthogonal(6)
    expected = svd_task_weights(x, y, 2)
    order = [2, 0, 3, 1]
    torch.testing.assert_close(svd_task_weights(x, y[:, order], 2), expected[order])
    torch.testing.assert_close(svd_task_weights(x @ turn, y, 2), expected)
    # Full rank leaves nothing out: the lengths of the models themselves.
    torch.testing.assert_close(svd_task_weights(x, y, 4), (x.T @ y).norm(dim=0))


@pytest.mark.parametrize(
    ("y", "rank", "message"),
    [
        (torch.ones(5, 2), 1, r"got \[4, 3\] and \[5, 2\]"),
        (torch.ones(4, 2), 3, "rank=3 must be from 1 to 2"),
        (torch.ones(4, 2), 0, "rank=0"),
    ],
)
def test_bad_inputs_of_weights(y: Tensor, rank: int, message: str):
    with pytest.raises(ValueError, match=message):
        svd_task_weights(torch.ones(4, 3), y, rank)
