"""A small supervised multi-task problem in float64, given in all the forms the library takes."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field

import pytest
import torch
from torch import Tensor, nn

N_TASKS, ROWS, INPUTS, WIDTH = 4, 7, 5, 6


class MultiTaskModel(nn.Module):
    """The oracle: an ordinary module with a trunk and one linear head a task."""

    def __init__(self, n_tasks: int = N_TASKS) -> None:
        super().__init__()
        self.trunk = nn.Sequential(nn.Linear(INPUTS, WIDTH), nn.Tanh(), nn.Linear(WIDTH, WIDTH), nn.Tanh()).double()
        self.heads = nn.ModuleList(nn.Linear(WIDTH, 1) for _ in range(n_tasks)).double()

    def loss(self, task: int, x: Tensor, y: Tensor) -> Tensor:
        return (self.heads[task](self.trunk(x)).squeeze(-1) - y).square().mean()


def task_loss(shared, head, batch):
    """Per-row losses of one task."""
    x, y = batch
    for layer in ("0", "2"):
        x = torch.tanh(x @ shared[f"{layer}.weight"].mT + shared[f"{layer}.bias"])
    return ((x @ head["weight"].mT + head["bias"]).squeeze(-1) - y).square()


def losses(shared, heads, batch):
    """All tasks' losses at once; shared parameters come with a task axis."""
    x, y = batch
    for layer in ("0", "2"):
        x = torch.tanh(x @ shared[f"{layer}.weight"].mT + shared[f"{layer}.bias"].unsqueeze(-2))
    return ((x @ heads["weight"].mT + heads["bias"].unsqueeze(-2)).squeeze(-1) - y).square().mean(-1)


@dataclass
class Problem:
    model: MultiTaskModel
    batch: tuple[Tensor, Tensor]
    held_out: tuple[Tensor, Tensor]
    n_tasks: int = N_TASKS
    shared: dict[str, Tensor] = field(init=False)
    heads: dict[str, Tensor] = field(init=False)

    def __post_init__(self) -> None:
        self.shared = dict(self.model.trunk.named_parameters())
        rows = [dict(head.named_parameters()) for head in self.model.heads]
        self.heads = {name: torch.stack([row[name].detach() for row in rows]) for name in rows[0]}

    def losses(self, batch: tuple[Tensor, Tensor], model: MultiTaskModel | None = None) -> Tensor:
        x, y = batch
        return torch.stack([(model or self.model).loss(t, x[t], y[t]) for t in range(self.n_tasks)])

    def form(self, name: str) -> dict:
        """Arguments of the library's functions, in one of the forms it takes."""
        split = [{key: value[t] for key, value in self.heads.items()} for t in range(self.n_tasks)]
        forms = {
            "mapped": {"task_loss": task_loss, "heads": self.heads, "losses": None},
            "expanded": {"task_loss": None, "heads": self.heads, "losses": losses},
            "list of heads": {"task_loss": task_loss, "heads": split, "losses": None},
            "list of losses": {"task_loss": [task_loss] * self.n_tasks, "heads": self.heads, "losses": None},
        }
        return {"shared": self.shared, **forms[name]}

    def literal_gradients(self) -> Tensor:
        """`[T, P]` by T separate `autograd.grad` calls."""
        parameters = list(self.model.trunk.parameters())
        grads = [torch.autograd.grad(loss, parameters, retain_graph=True) for loss in self.losses(self.batch)]
        return torch.stack([torch.cat([g.flatten() for g in row]) for row in grads])

    def stepped(self, weights: Tensor, step_size: float) -> MultiTaskModel:
        """A deep copy whose trunk took the candidate's step by hand."""
        model = copy.deepcopy(self.model)
        total = sum(w * loss for w, loss in zip(weights, self.losses(self.batch, model), strict=True))
        for parameter, grad in zip(
            model.trunk.parameters(), torch.autograd.grad(total, list(model.trunk.parameters())), strict=True
        ):
            parameter.data.sub_(step_size * grad)
        return model


FORMS = ("mapped", "expanded", "list of heads", "list of losses")


@pytest.fixture
def problem() -> Problem:
    generator = torch.Generator().manual_seed(3)

    def draw() -> tuple[Tensor, Tensor]:
        x = torch.randn(N_TASKS, ROWS, INPUTS, generator=generator, dtype=torch.float64)
        return x, torch.randn(N_TASKS, ROWS, generator=generator, dtype=torch.float64)

    with torch.random.fork_rng():
        torch.manual_seed(1)
        return Problem(MultiTaskModel(), draw(), draw())


@pytest.fixture(params=FORMS)
def form(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def gradients():
    """`gradients(seed, T, P, dtype)`: conflicting random gradient vectors `[T, P]`."""

    def draw(seed: int = 0, n_tasks: int = 5, size: int = 8, dtype: torch.dtype = torch.float64) -> Tensor:
        return torch.randn(n_tasks, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)

    return draw
