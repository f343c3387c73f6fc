"""The theory of information transfer on synthetic tasks, and the parts of the study."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from information_transfer import information_transfer
from torch import Tensor

from mtrl_transfer import AlignmentSchedule, TaskAlignment, covariance_similarity
from studies.information import sweeps
from studies.information.linear import shared_inputs, shared_trunk, single_task
from studies.information.rotated_tasks import rotated_problem, rotation, similarity_at
from studies.information.sweeps import Settings

FEW = Settings(trials=12, angles=3)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# --- the claims -------------------------------------------------------------------------------------------------------


def test_wide_trunk_permits_no_transfer():
    (curve,) = sweeps.capacity(Settings(trials=3))
    narrow, wide = curve.values[: sweeps.CAPACITY_TASKS - 1], curve.values[sweeps.CAPACITY_TASKS - 1 :]
    assert curve.points == (1, 2, 3, 4, 5, 6, 7)
    assert (narrow < -0.5).all()
    np.testing.assert_allclose(wide, 0, atol=1e-6)
    assert (np.diff(curve.values.mean(axis=1)) > -1e-6).all()  # the wider, the less harm


def test_linear_transfer_falls_with_similarity():
    by_noise = [curve.values.mean(axis=1) for curve in sweeps.similarity_linear(FEW)]
    for means in by_noise:
        assert (np.diff(means) < 0).all()
        # Ten times the rows: a ratio of errors near ln(11) where the tasks are the same.
        assert means[0] == pytest.approx(math.log(11), abs=0.5)
    little, some, much = by_noise
    assert little[1] < -1 < 0 < much[1]
    assert some[2] < -0.5
    assert (little[1:] < some[1:]).all()
    assert (some[1:] < much[1:]).all()


def test_alignment_restores_transfer_of_relu_networks():
    shared, alternating, joint = sweeps.similarity_relu(Settings(trials=4, angles=2, steps=500))
    assert shared.values[0].mean() > 1.2
    assert shared.values[1].mean() < -0.2
    for aligned in (alternating, joint):
        assert aligned.values[1].mean() > 0.4


def test_reweighting_gains_only_under_label_noise():
    equal, weighted = (curve.values.mean(axis=1) for curve in sweeps.reweighting(Settings(trials=30)))
    gain = dict(zip(sweeps.LABEL_NOISES, weighted - equal, strict=True))
    assert abs(gain[0.3]) < 0.05
    assert gain[1.0] > 0.05
    assert min(gain[noise] for noise in (2.0, 4.0, 8.0)) > 0.2


def test_alignment_of_a_linear_task_reaches_least_squares():
    """With the trunk fixed at another task's model; hence it can undo harm in a linear model, and no more."""
    x, alignment = normal(40, 4), TaskAlignment(1, 4).double()
    y = x @ normal(4, seed=1) + 0.1 * normal(40, seed=2)
    trunk, head = normal(4, 1, seed=3), torch.nn.Parameter(torch.ones(1, dtype=torch.float64))
    schedule = AlignmentSchedule("alternating", period=1)
    optimizer = torch.optim.LBFGS([*alignment.parameters(), head], max_iter=300, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = (alignment(x, 0) @ trunk @ head - y).square().mean()
        value.backward()
        return value

    assert schedule.trains(1) == (False, True)
    optimizer.step(loss)
    torch.testing.assert_close(alignment.weight[0] @ trunk @ head, single_task(x, y), rtol=1e-3, atol=1e-3)


# --- the parts -------------------------------------------------------------------------------------------------------


def test_rotation_turns_planes_and_gives_the_similarity():
    angles = torch.tensor([0.0, 0.4, math.pi / 2], dtype=torch.float64)
    turns = rotation(angles, 6)
    torch.testing.assert_close(turns @ turns.mT, torch.eye(6).double().expand(3, 6, 6))
    torch.testing.assert_close(turns[2] @ torch.eye(6).double()[0], torch.eye(6).double()[1])
    problem = rotated_problem(lambda x: x[..., 0], angles, (1, 6), (20_000, 20_000), 0.0, torch.Generator())
    for index, angle in enumerate(angles.tolist()):
        found = covariance_similarity(problem.target.x[0], problem.source.x[index, 0], share=1.0)
        assert found.item() == pytest.approx(similarity_at(angle, 6), rel=0.02)
        # The function sees unturned inputs: turning back gives the labels.
        torch.testing.assert_close((problem.source.x[index] @ turns[index])[..., 0], problem.source.y[index])


def test_closed_form_equals_alternating_least_squares():
    x, y = normal(50, 6), normal(50, 4, seed=1)
    for width in (1, 2, 3):
        closed = shared_inputs(x, y, width)
        searched = shared_trunk([x] * 4, list(y.T), width).T
        torch.testing.assert_close(
            (x @ searched - y).square().sum(), (x @ closed - y).square().sum(), rtol=1e-6, atol=0
        )
        assert torch.linalg.matrix_rank(closed) == width
    torch.testing.assert_close(shared_inputs(x, y, 4), torch.linalg.lstsq(x, y).solution)


def test_weights_decide_the_tasks_of_a_narrow_trunk():
    x, y = normal(50, 6), normal(50, 3, seed=1)
    alone = torch.linalg.lstsq(x, y).solution
    favoured = shared_inputs(x, y, 1, torch.tensor([0.0, 1.0, 0.0], dtype=torch.float64))
    torch.testing.assert_close(favoured[:, 1], alone[:, 1])
    assert (favoured[:, 0] - alone[:, 0]).norm() > 1e-2
    equal = torch.ones(3, dtype=torch.float64)
    torch.testing.assert_close(shared_inputs(x, y, 1, equal), shared_inputs(x, y, 1))


def test_shared_trunk_is_a_stationary_point():
    """No small change of the shared direction, heads refitted, lowers the loss."""
    xs, ys = [normal(30, 3), normal(50, 3, seed=1)], [normal(30, seed=2), normal(50, seed=3)]
    models = shared_trunk(xs, ys, 1)
    assert torch.linalg.matrix_rank(models) == 1
    direction = torch.nn.functional.normalize(models[0], dim=0)

    def loss(direction: Tensor) -> Tensor:
        residuals = []
        for x, y in zip(xs, ys, strict=True):
            seen = x @ direction
            residuals.append((seen * (seen @ y) / (seen @ seen) - y).square().sum())
        return torch.stack(residuals).sum()

    for change in normal(20, 3, seed=4):
        assert loss(direction + 1e-3 * change) >= loss(direction) - 1e-9


# --- the report -------------------------------------------------------------------------------------------------------


def test_report_holds_every_sweep(tmp_path: Path):
    assert information_transfer(["trials=2", "angles=2", "steps=1", f"out={tmp_path}/report"]) == 0
    folder = tmp_path / "report"
    names = ["capacity", "reweighting", "similarity_linear", "similarity_relu"]
    assert sorted(path.stem for path in folder.glob("figures/*.svg")) == names
    assert (folder / "report.html").read_text(encoding="utf-8").count("<figure>") == len(names)
    text = (folder / "report.md").read_text(encoding="utf-8")
    results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    assert sorted(results) == names
    for name, by_method in results.items():
        assert f"](figures/{name}.svg)" in text
        for curve in by_method.values():
            assert np.shape(curve["transfer"]) == (len(curve["points"]), 2)
            assert f"| {np.mean(curve['transfer'][0]):.2f} [" in text


def test_bad_setting_is_named(capsys: pytest.CaptureFixture[str]):
    assert information_transfer(["trails=3"]) == 2
    assert "unknown key trails; did you mean trials?" in capsys.readouterr().err
    assert information_transfer(["trials=2", f"out={__file__}"]) == 2
    assert "is a file, expected a folder" in capsys.readouterr().err
