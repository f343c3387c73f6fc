"""The multi-task policy: one actor and twin critics, each a shared trunk with a head per task."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import PyTorchObs, Schedule
from torch import Tensor

from mtrl_transfer import AlignmentSchedule
from mtrl_transfer.agents.mtsac.distributions import mean_and_log_std, squashed_sample
from mtrl_transfer.agents.mtsac.networks import MultiTaskMLP

PUBLISHED_NET_ARCH = (400, 400, 400)
LEAST_SPREAD = 0.1
"""Of the widest dimension's: below it, another dimension is not scaled up any further."""


class MultiTaskPolicy(BasePolicy):
    """Actor, twin critics and target critics of multi-task SAC.

    Args:
        observation_space: box ``[D + T]``, one-hot last.
        action_space: box ``[A]``.
        lr_schedule: learning rate as a function of the remaining progress.
        n_tasks: ``T``.
        net_arch: widths of the trunk's layers; default 400, 400, 400 (Meta-World+, arXiv 2505.11289).
        critic_net_arch: widths of the critics' trunks, where they differ.
        activation: ``relu``, ``elu``, ``gelu``, ``silu`` or ``tanh``.
        layer_norm: LayerNorm before each activation of the trunks.
        one_hot_in_trunk: feed the one-hot to the trunks too; by default it only selects the head.
        alignment: a linear map of each task's input before the trunks of actor and critics (Wu, Zhang, Ré, arXiv
            2005.00944): ``alternating`` trains it in turn with the trunks, ``joint`` together with them, None: there
            is none. See :class:`mtrl_transfer.AlignmentSchedule`.
        alignment_period: updates of a turn.
        standardize_inputs: actor and critics see observations less their mean, over their spread, as
            :meth:`standardize` was told them; actions as they are.
        actor_tau: deterministic actions are those of a running average of the actor, into which such a share of it
            moves per update (Polyak and Juditsky, 1992): a policy swings far more than its average. None: of the actor.

    Raises:
        ValueError: for an unknown activation or alignment, an ``actor_tau`` out of range, an empty ``net_arch`` or an
            observation that has no room for the one-hot.
    """

    def __init__(
        self,
        observation_space: spaces.Box,
        action_space: spaces.Box,
        lr_schedule: Schedule,
        n_tasks: int,
        net_arch: Sequence[int] | None = None,
        critic_net_arch: Sequence[int] | None = None,
        activation: str = "relu",
        layer_norm: bool = False,
        one_hot_in_trunk: bool = False,
        alignment: Literal["alternating", "joint"] | None = None,
        alignment_period: int = 1_000,
        standardize_inputs: bool = False,
        actor_tau: float | None = None,
    ) -> None:
        super().__init__(observation_space, action_space, squash_output=True)
        self.n_tasks = n_tasks
        self.obs_dim = observation_space.shape[0] - n_tasks
        if self.obs_dim < 1:
            raise ValueError(
                f"observations of width {observation_space.shape[0]} leave no room beside a one-hot of {n_tasks} "
                "tasks: expected [features, one-hot]"
            )
        if actor_tau is not None and not 0 < actor_tau <= 1:
            raise ValueError(f"actor_tau={actor_tau} must be above 0 and at most 1, or None")
        action_dim = action_space.shape[0]
        hidden = list(PUBLISHED_NET_ARCH if net_arch is None else net_arch)
        common: dict[str, Any] = {
            "n_tasks": n_tasks,
            "activation": activation,
            "layer_norm": layer_norm,
            "one_hot_in_trunk": one_hot_in_trunk,
            "alignment": alignment is not None,
            "standardize": standardize_inputs,
        }
        self.alignment_schedule = None if alignment is None else AlignmentSchedule(alignment, alignment_period)
        self.actor = MultiTaskMLP(self.obs_dim, 2 * action_dim, hidden, **common)
        self.critic = MultiTaskMLP(self.obs_dim + action_dim, 1, critic_net_arch or hidden, n_nets=2, **common)
        self.critic_target = copy.deepcopy(self.critic).requires_grad_(False)
        self.actor_tau = actor_tau
        self.actor_average = None if actor_tau is None else copy.deepcopy(self.actor).requires_grad_(False)
        rate = lr_schedule(1)
        self.actor_optimizer = torch.optim.Adam(self.actor.parameters(), lr=rate, fused=True)
        self.critic_optimizer = torch.optim.Adam(self.critic.parameters(), lr=rate, fused=True)

    @property
    def standardizes(self) -> bool:
        """Whether observations are standardised."""
        return self.actor.standardized

    @torch.no_grad()
    def standardize(self, observations: Tensor) -> None:
        """Take mean and spread of each dimension from observations ``[T, B, D]``, all tasks together.

        Tasks are not told apart, so what tells them apart stays. A dimension that hardly moves is not blown up: its
        spread counts as :data:`LEAST_SPREAD` of the widest one's at least. Values that are not finite count as the mean
        of the others.
        """
        rows = observations.flatten(0, 1)
        mean = torch.where(rows.isfinite(), rows, torch.nan).nanmean(dim=0).nan_to_num(0.0)
        spread = torch.where(rows.isfinite(), rows, mean).std(dim=0, correction=0)
        widest = spread.max()
        scale = torch.where(widest > 0, 1.0 / spread.clamp(min=LEAST_SPREAD * widest), 1.0)
        for network in (self.actor, self.actor_average, self.critic, self.critic_target):
            if network is not None:
                network.input_mean[: self.obs_dim].copy_(mean)
                network.input_scale[: self.obs_dim].copy_(scale)

    @torch.no_grad()
    def move_averages(self, tau: float) -> None:
        """Move a share ``tau`` of the critics into their targets, and ``actor_tau`` of the actor into its average."""
        torch._foreach_lerp_(list(self.critic_target.parameters()), list(self.critic.parameters()), tau)
        if self.actor_average is not None and self.actor_tau is not None:
            average, online = self.actor_average.parameters(), self.actor.parameters()
            torch._foreach_lerp_(list(average), list(online), self.actor_tau)

    def forward(self, obs: PyTorchObs, deterministic: bool = False) -> Tensor:
        """Scaled actions ``[R, A]`` in (-1, 1) for observations ``[R, D + T]``."""
        return self._predict(obs, deterministic=deterministic)

    def _predict(self, observation: PyTorchObs, deterministic: bool = False) -> Tensor:
        assert isinstance(observation, Tensor)
        if deterministic:
            actor = self.actor if self.actor_average is None else self.actor_average
            return torch.tanh(mean_and_log_std(self._outputs(actor, observation))[0])
        out = self._outputs(self.actor, observation)
        return squashed_sample(out, torch.randn_like(out.chunk(2, dim=-1)[0]))[0]

    @torch.no_grad()
    def explore(self, observations: np.ndarray, noise: np.ndarray) -> np.ndarray:
        """Scaled actions ``[R, A]`` at observations ``[R, D + T]`` by given standard normal noise ``[R, A]``."""
        rows, _ = self.obs_to_tensor(observations)
        assert isinstance(rows, Tensor)
        out = self._outputs(self.actor, rows)
        return squashed_sample(out, torch.as_tensor(noise, device=out.device))[0].cpu().numpy()

    def _outputs(self, actor: MultiTaskMLP, observations: Tensor) -> Tensor:
        features, one_hot = observations.split([self.obs_dim, self.n_tasks], dim=-1)
        return actor.of_tasks(features, one_hot.argmax(dim=-1)).squeeze(0)
