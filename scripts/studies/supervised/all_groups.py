"""Training of every group of tasks, all networks of all seeds in one batched product."""

from __future__ import annotations

import torch
from torch import Tensor

from mtrl_transfer import candidates
from studies.supervised.networks import Parameters, batches, initial, take, task_losses
from studies.supervised.settings import Settings
from studies.supervised.suites import Rows, Suite


def every_group(n_tasks: int) -> Tensor:
    """Members of all `2^T - 1` groups, `[S, T]` bool; group `s` holds task `t` if bit `t` of `s + 1` is set."""
    return candidates.power_set(n_tasks) > 0


def train_every_group(suite: Suite, settings: Settings) -> Tensor:
    """Train every group and return the test loss of each task, `[seeds, S, T]`; nan where the task is no member.

    A network minimises the mean loss of its members. All take the same number of steps on the same rows, so every task
    sees equally many rows in any group. A group's compute is its size.
    """
    members = every_group(suite.n_tasks)
    starts = [initial(suite, seed) for seed in range(settings.seeds)]
    trunk, heads = (_for_each([start[part] for start in starts], len(members)) for part in (0, 1))
    order = torch.stack([batches(suite, seed, settings.steps, settings.batch) for seed in range(settings.seeds)])
    optimizer = torch.optim.Adam([*trunk.values(), *heads.values()], lr=settings.learning_rate)
    shares = members / members.sum(dim=1, keepdim=True)
    for step in range(settings.steps):
        rows = take(suite.train, order[:, step].unsqueeze(1))
        optimizer.zero_grad()
        (task_losses(trunk, heads, rows) * shares).sum().backward()
        optimizer.step()
    with torch.no_grad():
        # Group by group: the test rows of all networks at once would fill the memory.
        found = [_tested(trunk, heads, suite.test, group) for group in range(len(members))]
    return torch.where(members, torch.stack(found, dim=1), torch.nan)


def _for_each(parts: list[Parameters], n_groups: int) -> Parameters:
    """Copy each seed's start to leaves `[seeds, groups, ...]`: the networks of a seed differ only in their tasks."""
    stacked = {name: torch.stack([part[name] for part in parts]) for name in parts[0]}
    return {
        name: value.unsqueeze(1).expand(-1, n_groups, *value.shape[1:]).clone().requires_grad_()
        for name, value in stacked.items()
    }


def _tested(trunk: Parameters, heads: Parameters, test: Rows, group: int) -> Tensor:
    own_trunk, own_heads = ({name: value[:, group] for name, value in part.items()} for part in (trunk, heads))
    return task_losses(own_trunk, own_heads, test)
