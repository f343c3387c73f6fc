"""Claims of the theory, each as a sweep of one condition over many draws of synthetic tasks.

Transfer is `ln(single-task error / multi-task error)` on noiseless rows: above 0 the tasks help each other, below they
harm; 0.69 halves the error.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Annotated, NamedTuple

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from mtrl_transfer import AlignmentSchedule, svd_task_weights
from mtrl_transfer.agents.declarations import Count, Section, Seed
from studies.information.linear import shared_inputs, shared_trunk, single_task
from studies.information.relu import ReluModel, teacher, test_error, train
from studies.information.rotated_tasks import Problem, Task, rotated_problem, similarity_at

LINEAR_WIDTH, LINEAR_ROWS, LINEAR_NOISES = 10, (30, 300), (0.25, 0.5, 1.0)
RELU_WIDTH, RELU_ROWS, RELU_NOISE, RELU_HIDDEN, RELU_NEURONS = 4, (150, 600), 0.3, 16, 4
CAPACITY_TASKS, CAPACITY_WIDTH, CAPACITY_ROWS, CAPACITY_NOISE = 5, 8, 40, 0.5
LABEL_TASKS, LABEL_NOISY, LABEL_WIDTH, LABEL_ROWS, LABEL_RANK = 8, 4, 30, 100, 2
LABEL_NOISES, CLEAN_NOISE = (0.3, 0.5, 1.0, 2.0, 4.0, 8.0), 0.3


class Settings(Section):
    """Settings of the synthetic study; every number is a mean over independent draws of tasks and rows."""

    trials: Annotated[int, Field(ge=2)] = 20
    """Independent draws."""
    angles: Annotated[int, Field(ge=2)] = 7
    """Angles between 0 and 90 degrees."""
    steps: Count = 1_200
    """Updates of each ReLU network; a turn of alternating alignment is a twelfth of it."""
    seed: Seed = 0
    """Seed of all draws."""
    out: str = "runs/information_transfer"
    """Folder of the report."""


class Curve(NamedTuple):
    """Transfer `values [points, trials]` of one method at the points of a sweep."""

    name: str
    points: tuple[float, ...]
    values: np.ndarray


def angles_of(settings: Settings) -> Tensor:
    """Angles `[A]` from 0 to 90 degrees, in radians."""
    return torch.linspace(0, math.pi / 2, settings.angles, dtype=torch.float64)


def similarities(settings: Settings, width: int) -> tuple[float, ...]:
    """Covariance similarity at each angle, in closed form."""
    return tuple(similarity_at(float(angle), width) for angle in angles_of(settings))


def capacity(settings: Settings) -> list[Curve]:
    """Linear tasks with nothing in common, over the width of their trunk: at the number of tasks transfer ends."""
    generator = torch.Generator().manual_seed(settings.seed)
    shape = (settings.trials, CAPACITY_ROWS)
    truths = _normal(generator, CAPACITY_TASKS, settings.trials, CAPACITY_WIDTH)
    xs = [_normal(generator, *shape, CAPACITY_WIDTH) for _ in truths]
    ys = [_times(x, truth) + CAPACITY_NOISE * _normal(generator, *shape) for x, truth in zip(xs, truths, strict=True)]
    own = torch.stack([single_task(x, y) for x, y in zip(xs, ys, strict=True)], dim=1)
    error = lambda models: (models - truths.transpose(0, 1)).square().mean(dim=(1, 2))  # noqa: E731
    widths = range(1, CAPACITY_TASKS + 3)
    values = [_transfer(error(own), error(shared_trunk(xs, ys, width))) for width in widths]
    return [Curve("linear", tuple(widths), np.stack(values))]


def similarity_linear(settings: Settings) -> list[Curve]:
    """Transfer to a linear task from a rotated one, over the angle, by label noise; the trunk has one feature."""
    angles, curves = angles_of(settings), []
    for noise in LINEAR_NOISES:
        generator = torch.Generator().manual_seed(settings.seed)
        truth = torch.nn.functional.normalize(_normal(generator, settings.trials, LINEAR_WIDTH), dim=1)
        shape = (settings.trials, LINEAR_WIDTH)
        problem = rotated_problem(partial(_times, model=truth), angles, shape, LINEAR_ROWS, noise, generator)
        target = Task(*(part.expand(len(angles), *part.shape) for part in problem.target))
        shared = shared_trunk([target.x, problem.source.x], [target.y, problem.source.y], 1)[..., 0, :]
        single, multi = (_error(problem.test, model) for model in (single_task(*problem.target), shared))
        values = _transfer(single, multi)
        curves.append(Curve(f"label noise {noise:g}", tuple(angles.rad2deg().tolist()), values))
    return curves


def similarity_relu(settings: Settings) -> list[Curve]:
    """Transfer of ReLU networks whose trunk ends in one feature, without alignment and with both modes of it."""
    angles = angles_of(settings)
    generator = torch.Generator().manual_seed(settings.seed)
    function = teacher(settings.trials, RELU_WIDTH, RELU_NEURONS, generator)
    shape = (settings.trials, RELU_WIDTH)
    problem = rotated_problem(function, angles, shape, RELU_ROWS, RELU_NOISE, generator)
    single = _relu_error([problem.target], problem.test, None, settings)[0]
    schedules = {
        "shared trunk": None,
        "aligned, alternating": AlignmentSchedule("alternating", max(settings.steps // 12, 1)),
        "aligned, joint": AlignmentSchedule("joint"),
    }
    tasks, test = _all_angles(problem, len(angles))
    degrees = tuple(angles.rad2deg().tolist())
    return [
        Curve(name, degrees, _transfer(single, _relu_error(tasks, test, schedule, settings)))
        for name, schedule in schedules.items()
    ]


def reweighting(settings: Settings) -> list[Curve]:
    """Linear tasks with the same inputs and two common features, some with noisier labels: transfer to the others.

    Labels are of unit variance, as classes would be: noise leaves less of the signal. Both methods get the same labels.
    """
    found = []
    for noise in LABEL_NOISES:
        generator = torch.Generator().manual_seed(settings.seed)
        found.append([_reweighted(noise, generator) for _ in range(settings.trials)])
    values = np.moveaxis(np.array(found), -1, 0)  # [method, noise, trial]
    names = ("equal weights", "SVD weights")
    return [Curve(name, LABEL_NOISES, of) for name, of in zip(names, values, strict=True)]


def _reweighted(noise: float, generator: torch.Generator) -> np.ndarray:
    """Transfer to the clean tasks of one draw, with equal and with SVD weights."""
    basis = torch.linalg.qr(_normal(generator, LABEL_WIDTH, LABEL_RANK))[0]
    truths = basis @ torch.nn.functional.normalize(_normal(generator, LABEL_RANK, LABEL_TASKS), dim=0)
    deviation = torch.full((LABEL_TASKS,), CLEAN_NOISE, dtype=torch.float64)
    deviation[-LABEL_NOISY:] = noise
    x = _normal(generator, LABEL_ROWS, LABEL_WIDTH)
    scale = (1 + deviation.square()).sqrt()
    y = (x @ truths + deviation * _normal(generator, LABEL_ROWS, LABEL_TASKS)) / scale
    clean = slice(LABEL_TASKS - LABEL_NOISY)
    error = lambda models: (models * scale - truths)[:, clean].square().sum(0).mean()  # noqa: E731
    multi = [shared_inputs(x, y, LABEL_RANK, weights) for weights in (None, svd_task_weights(x, y, LABEL_RANK))]
    return _transfer(error(torch.linalg.lstsq(x, y).solution), torch.stack([error(models) for models in multi]))


def _all_angles(problem: Problem, n_angles: int) -> tuple[list[Task], Task]:
    """Return target, source and test rows with angles and trials as one axis."""
    repeated = lambda task: Task(task.x.repeat(n_angles, 1, 1), task.y.repeat(n_angles, 1))  # noqa: E731
    source = Task(problem.source.x.flatten(0, 1), problem.source.y.flatten(0, 1))
    return [repeated(problem.target), source], repeated(problem.test)


def _relu_error(tasks: list[Task], test: Task, schedule: AlignmentSchedule | None, settings: Settings) -> Tensor:
    """Return the error `[A, S]` on the first task (`A` is 1 without angles)."""
    generator = torch.Generator().manual_seed(settings.seed)
    model = ReluModel(len(test.y), len(tasks), RELU_WIDTH, RELU_HIDDEN, 1, generator)
    train(model, tasks, schedule, settings.steps)
    return test_error(model, test).view(-1, settings.trials)


def _error(test: Task, model: Tensor) -> Tensor:
    """Return the mean squared error `[..., S]` of linear models `[..., S, d]`."""
    return (_times(test.x, model) - test.y).square().mean(-1)


def _transfer(single: Tensor, multi: Tensor) -> np.ndarray:
    return np.log((single / multi).numpy())


def _normal(generator: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def _times(x: Tensor, model: Tensor) -> Tensor:
    """Multiply `[..., m, d]` by `[..., d]` to `[..., m]`."""
    return (x @ model.unsqueeze(-1)).squeeze(-1)
