"""The losses of multi-task SAC (Haarnoja et al., arXiv 1812.05905), per task and row.

Each loss is a function of the parameters it is given and of a batch that already holds everything random (noise, TD
target, temperature). So the same function serves the update, its task gradients and any lookahead. ``K`` candidate
trunks are evaluated at once: parameters ``[N * K, ...]`` give losses ``[K, T, B]``. ``predictions`` and ``loss_of``
take the loss apart for `mtrl_transfer.choosing.quadratic`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from mtrl_transfer.agents.mtsac.compiling import CompiledGradients
from mtrl_transfer.agents.mtsac.distributions import squashed_sample
from mtrl_transfer.agents.mtsac.networks import MultiTaskMLP
from mtrl_transfer.gradients import TaskGradients, gradients_of, per_task_gradients
from mtrl_transfer.shared_linear import SharedWeight
from mtrl_transfer.tasks import n_rows

Parameters = Mapping[str, Tensor]


class CriticBatch(NamedTuple):
    """Rows for the critic: ``observations [T, B, D]``, ``actions [T, B, A]``, ``targets [T, B]``."""

    observations: Tensor
    actions: Tensor
    targets: Tensor


class ActorBatch(NamedTuple):
    """Rows for the actor: ``observations [T, B, D]``, ``noise [T, B, A]``, ``alphas [T, 1]``."""

    observations: Tensor
    noise: Tensor
    alphas: Tensor


class CriticRows(NamedTuple):
    """Results of the critic loss, each ``[K, T, B]``: ``losses`` and ``values``, the mean over the critics."""

    losses: Tensor
    values: Tensor


class ActorRows(NamedTuple):
    """Results of the actor loss, each ``[K, T, B]``: ``losses``, ``log_probs`` and the smallest critic's ``values``."""

    losses: Tensor
    log_probs: Tensor
    values: Tensor


def action_values(critic: MultiTaskMLP, observations: Tensor, actions: Tensor) -> Tensor:
    """Values of all critics: ``observations [T, B, D]``, ``actions [T, B, A]`` -> ``[N, T, B]``."""
    return critic(torch.cat([observations, actions], dim=-1)).squeeze(-1)


def weighted(losses: Tensor, weights: Tensor | None) -> Tensor:
    """Losses ``[..., T, B]`` times the tasks' weights ``[T, 1]``, or unchanged for None."""
    return losses if weights is None else losses * weights


class NetworkLoss(ABC):
    """A network with its loss: a `mtrl_transfer.model.Model`.

    Args:
        network: network whose trunk the tasks share.
        weights: task weights ``[T, 1]``, read at every call; None: all 1.
    """

    signed: ClassVar[bool]
    compiled: CompiledGradients | None = None
    """Takes the gradients on batches of its number of rows; None: they are not compiled."""

    def __init__(self, network: MultiTaskMLP, weights: Tensor | None = None) -> None:
        self.network, self.weights = network, weights

    @abstractmethod
    def __call__(
        self,
        batch: Any,
        trunk: Parameters | None = None,
        heads: Parameters | None = None,
        trunk_shares: Tensor | None = None,
    ) -> Any:
        """Losses at given parameters; parameters and shares as for `MultiTaskMLP`."""

    @abstractmethod
    def predictions(self, batch: Any, trunks: Parameters) -> Tensor:
        """Predictions ``[K, T, B, outputs]`` at trunks ``[K, N, ...]``."""

    @abstractmethod
    def loss_of(self, batch: Any) -> Callable[[Tensor], Tensor]:
        """Losses ``[T]`` as a function of predictions ``[T, B, outputs]``."""

    @property
    def trunk(self) -> dict[str, Tensor]:
        """The trunk's parameters by name."""
        return self.network.own_trunk

    @property
    def heads(self) -> dict[str, Tensor]:
        """The heads' parameters by name; alignment belongs to them."""
        return self.network.own_heads

    @property
    def n_tasks(self) -> int:
        """T."""
        return self.network.n_tasks

    @property
    def linear(self) -> list[str]:
        """Names of the layers' weights."""
        return [name for name in self.trunk if name.startswith("weight")]

    def gradients(self, batch: Any, trunk: Parameters | None = None) -> tuple[TaskGradients, Any]:
        """Task gradients in one backward pass, and the detached result of the loss."""
        rows: list[Any] = []

        def losses(trunk: Parameters, heads: Parameters, batch: Any) -> Tensor:
            rows.append(self(batch, trunk, heads))
            return rows[0].losses.squeeze(0).mean(dim=-1)

        shared = self.trunk if trunk is None else trunk
        tasks = per_task_gradients(None, shared, self.heads, batch, losses=losses)
        return tasks, detached(rows[0])

    def plain_gradients(self, batch: Any, weights: Tensor | None) -> tuple[list[Tensor], Any] | None:
        """Gradients of the mean of the task losses, the trunk's with the tasks weighted.

        Not with alignment and weights: it lies before the trunk, so the weights would reach it too.
        """
        if weights is not None and self.network.aligned:
            return None
        shares = None if weights is None else weights * self.n_tasks
        if self.compiled is not None and self.compiled.rows == n_rows(batch):
            return self.compiled.mean(batch, shares)
        rows = self(batch, trunk_shares=shares)
        parameters = (*self.trunk.values(), *self.heads.values())
        gradients = gradients_of(rows.losses.mean(), [one for one in parameters if one.requires_grad])
        return gradients, detached(rows)

    def losses(self, batch: Any, trunks: Mapping[str, Any] | None = None, heads: Parameters | None = None) -> Tensor:
        """Losses ``[K, T]`` at trunks ``[K, N, ...]``."""
        return self(batch, _net_by_net(trunks), heads).losses.mean(dim=-1)

    def losses_of_own(self, batch: Any, trunks: Mapping[str, Tensor]) -> Tensor:
        """Losses ``[T]``, each task at its own trunk of ``trunks [T, N, ...]``."""
        return self(batch, trunks).losses.squeeze(0).mean(dim=-1)

    def row_losses(self, batch: Any, trunks: Mapping[str, Any] | None = None) -> Tensor:
        """Losses ``[K, T, B]`` at trunks ``[K, N, ...]``."""
        return self(batch, _net_by_net(trunks)).losses

    def tapped(self, batch: Any, trunk: Mapping[str, Any]) -> Any:
        """Result of the loss at a trunk with a task axis, whose weights may be stand-ins."""
        return self(batch, trunk)


def detached(rows: Any) -> Any:
    """The same named tuple without its graph."""
    return rows._make(value.detach() for value in rows)


def _net_by_net(trunks: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    """Trunks ``[K, N, ...]``, in memory ``[N, K, ...]``, as ``[N * K, ...]``; stand-ins are that already."""
    if trunks is None:
        return None
    return {
        name: value if isinstance(value, SharedWeight) else value.transpose(0, 1).flatten(0, 1)
        for name, value in trunks.items()
    }


class CriticLoss(NetworkLoss):
    """Squared TD error ``(Q_i(s, a) - target)^2``, averaged over the critics ``i``.

    Args:
        network: the critics.
        weights: task weights ``[T, 1]``, read at every call; None: all 1.
    """

    signed = False

    def __call__(
        self,
        batch: CriticBatch,
        trunk: Parameters | None = None,
        heads: Parameters | None = None,
        trunk_shares: Tensor | None = None,
    ) -> CriticRows:
        """Losses at given parameters; parameters and shares as for `MultiTaskMLP`."""
        values = self.network(torch.cat([batch.observations, batch.actions], dim=-1), trunk, heads, trunk_shares)
        values = values.view(self.network.n_nets, -1, *batch.targets.shape)
        losses = (values - batch.targets).square().mean(dim=0)
        return CriticRows(weighted(losses, self.weights), values.detach().mean(dim=0))

    def predictions(self, batch: CriticBatch, trunks: Parameters) -> Tensor:
        """Values of all critics ``[K, T, B, N]``."""
        values = self.network(torch.cat([batch.observations, batch.actions], dim=-1), _net_by_net(trunks))
        return values.view(self.network.n_nets, -1, *batch.targets.shape).permute(1, 2, 3, 0)

    def loss_of(self, batch: CriticBatch) -> Callable[[Tensor], Tensor]:
        """Losses ``[T]`` of predictions ``[T, B, N]``: exactly quadratic in them."""
        return lambda values: weighted((values - batch.targets.unsqueeze(-1)).square().mean(dim=2), self.weights).mean(
            dim=1
        )


class ActorLoss(NetworkLoss):
    """``alpha log pi(a|s) - min Q(s, a)`` at reparameterised actions.

    Args:
        network: the policy.
        critic: the critics; gradients are taken with respect to the actor only.
        weights: task weights ``[T, 1]``, read at every call; None: all 1.
    """

    signed = True

    def __init__(self, network: MultiTaskMLP, critic: MultiTaskMLP, weights: Tensor | None = None) -> None:
        super().__init__(network, weights)
        self.critic = critic

    def __call__(
        self,
        batch: ActorBatch,
        trunk: Parameters | None = None,
        heads: Parameters | None = None,
        trunk_shares: Tensor | None = None,
    ) -> ActorRows:
        """Losses at given parameters; parameters and shares as for `MultiTaskMLP`."""
        out = self.network(batch.observations, trunk, heads, trunk_shares)
        actions, log_probs = squashed_sample(out, batch.noise, self.network.action_mask)
        n_candidates, n_tasks, rows = log_probs.shape
        # Candidates join the rows: the critic is the same for all of them.
        observations = batch.observations.unsqueeze(1).expand(-1, n_candidates, -1, -1).flatten(1, 2)
        values = action_values(self.critic, observations, actions.transpose(0, 1).flatten(1, 2)).amin(dim=0)
        values = values.view(n_tasks, n_candidates, rows).transpose(0, 1)
        return ActorRows(weighted(batch.alphas * log_probs - values, self.weights), log_probs, values)

    def predictions(self, batch: ActorBatch, trunks: Parameters) -> Tensor:
        """Mean and log standard deviation ``[K, T, B, 2 A]``."""
        return self.network(batch.observations, _net_by_net(trunks))

    def loss_of(self, batch: ActorBatch) -> Callable[[Tensor], Tensor]:
        """Losses ``[T]`` of predictions ``[T, B, 2 A]``; Q by its Taylor expansion about the present actions.

        So candidates need no forward pass of the critics.
        """
        with torch.no_grad():
            out, mask = self.network(batch.observations).squeeze(0), self.network.action_mask
            present, _ = squashed_sample(out, batch.noise, mask)
        with torch.enable_grad():
            actions = present.clone().requires_grad_()
            values = action_values(self.critic, batch.observations, actions).amin(dim=0)
            (slopes,) = torch.autograd.grad(values.sum(), actions)
        values = values.detach()

        def losses(predictions: Tensor) -> Tensor:
            actions, log_probs = squashed_sample(predictions, batch.noise, mask)
            expanded = values + (slopes * (actions - present)).sum(dim=-1)
            return weighted(batch.alphas * log_probs - expanded, self.weights).mean(dim=-1)

        return losses


@torch.no_grad()
def td_targets(
    actor: MultiTaskMLP,
    target_critic: MultiTaskMLP,
    next_observations: Tensor,
    rewards: Tensor,
    discounts: Tensor,
    noise: Tensor,
    alphas: Tensor,
) -> Tensor:
    """Soft TD target ``r + discount (min Q' - alpha log pi)`` at actions drawn in the *next* state.

    Args:
        actor: policy network.
        target_critic: target network.
        next_observations: ``[T, B, D]``.
        rewards: ``[T, B]``, scaled.
        discounts: ``[T, B]``, factors on the next state's value: 0 if the episode terminated, not if it was truncated.
        noise: standard normal ``[T, B, A]``.
        alphas: ``[T, 1]``.

    Returns:
        ``[T, B]``.
    """
    next_actions, log_probs = squashed_sample(actor(next_observations), noise, actor.action_mask)
    next_values = action_values(target_critic, next_observations, next_actions.squeeze(0)).amin(dim=0)
    return rewards + discounts * (next_values - alphas * log_probs.squeeze(0))
