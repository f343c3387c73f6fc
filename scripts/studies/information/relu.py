"""ReLU multi-task models whose trunk has a narrow output; many independent trials train side by side."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mtrl_transfer import AlignmentSchedule
from mtrl_transfer.information.alignment import Trains, identities
from studies.information.rotated_tasks import Function, Task

LEARNING_RATE = 1e-2
PLAIN = Trains(trunk=True, alignment=False)


def teacher(trials: int, width: int, neurons: int, generator: torch.Generator) -> Function:
    """Draw a function `Σ_k a_k relu(w_k · x)` per trial, with labels of variance about 1."""
    weight = torch.randn(trials, width, neurons, generator=generator, dtype=torch.float64)
    sign = torch.ones(neurons, dtype=torch.float64)
    sign[::2] = -1
    return lambda x: (x @ weight).relu() @ sign / (width * neurons / 4) ** 0.5


class ReluModel(nn.Module):
    """`relu(X_t R_t B) C a_t` for S trials and T tasks, with biases; `R_t` begins as the identity.

    Args:
        trials: `S`.
        tasks: `T`.
        width: `d`.
        hidden: neurons of the trunk.
        features: width of the trunk's output, which the tasks have to share.
        generator: draws the parameters, the same for every number of tasks.
    """

    def __init__(
        self, trials: int, tasks: int, width: int, hidden: int, features: int, generator: torch.Generator
    ) -> None:
        super().__init__()

        def uniform(*shape: int, fan_in: int) -> Tensor:
            return (torch.rand(*shape, generator=generator) * 2 - 1) / fan_in**0.5

        self.weight = nn.Parameter(uniform(trials, width, hidden, fan_in=width))
        self.bias = nn.Parameter(uniform(trials, 1, hidden, fan_in=width))
        self.out = nn.Parameter(uniform(trials, hidden, features, fan_in=hidden))
        self.head = nn.Parameter(torch.ones(tasks, trials, features, 1) / features)
        self.head_bias = nn.Parameter(torch.zeros(tasks, trials, 1, 1))
        self.alignment = nn.Parameter(identities(tasks, trials, width=width))

    def forward(self, x: Tensor, task: int) -> Tensor:
        """Predictions `[S, m]` of one task for `x [S, m, d]`."""
        features = torch.baddbmm(self.bias, x @ self.alignment[task], self.weight).relu() @ self.out
        return torch.baddbmm(self.head_bias[task], features, self.head[task]).squeeze(-1)


def train(model: ReluModel, tasks: Sequence[Task], schedule: AlignmentSchedule | None, steps: int) -> None:
    """Minimise the squared error over all tasks' rows in each trial by full batches of Adam.

    Args:
        model: trained in place.
        tasks: its tasks in order.
        schedule: turns of trunk and alignment; None: no alignment.
        steps: steps of Adam.
    """
    optimizer = torch.optim.Adam(model.parameters(), LEARNING_RATE)
    rows = [Task(task.x.float(), task.y.float()) for task in tasks]
    n_rows = sum(task.y.shape[1] for task in tasks)
    for step in range(steps):
        loss = torch.stack([(model(task.x, t) - task.y).square().sum() for t, task in enumerate(rows)]).sum() / n_rows
        optimizer.zero_grad()
        loss.backward()
        trains = PLAIN if schedule is None else schedule.trains(step)
        if not trains.trunk:
            model.weight.grad = model.bias.grad = model.out.grad = None
        if not trains.alignment:
            model.alignment.grad = None
        optimizer.step()


@torch.no_grad()
def test_error(model: ReluModel, test: Task) -> Tensor:
    """Return the mean squared error `[S]` of the first task on noiseless rows."""
    return (model(test.x.float(), 0) - test.y.float()).square().mean(1)
