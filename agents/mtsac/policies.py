"""The multi-task policy: one actor and twin critics, each a shared trunk with a head per task."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, TypeVar

import numpy as np
import torch
from gymnasium import spaces
from pydantic import AfterValidator, BeforeValidator, Field, ValidationInfo
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import PyTorchObs, Schedule
from torch import Tensor

from mtrl_transfer import AlignmentSchedule
from mtrl_transfer.agents.declarations import (
    Count,
    Fraction,
    Section,
    Settings,
    checked,
    explained,
    json_able,
    section_of,
)
from mtrl_transfer.agents.mtsac.distributions import squashed_mean, squashed_sample
from mtrl_transfer.agents.mtsac.networks import ACTIVATIONS, Activation, MultiTaskMLP, action_mask
from mtrl_transfer.agents.storage.archive import Target, read_archive, write_archive
from mtrl_transfer.agents.storage.policy_archive import policy_from_archive, policy_to_archive
from mtrl_transfer.agents.tasks import tasks_of
from mtrl_transfer.choices import did_you_mean
from mtrl_transfer.information.alignment import Trains

LEAST_SPREAD = 0.1
"""Smallest spread of a dimension when inputs are standardised, relative to the widest dimension's."""


def _name_of_class(value: Any) -> Any:
    """Name of a class of torch, as stable-baselines3 takes it: ``nn.ReLU`` -> ``relu``, ``optim.Adam`` -> ``Adam``."""
    if not (isinstance(value, type) and value.__module__.startswith("torch.")):
        return value
    same = (name for name in ACTIVATIONS if name.replace("_", "") == value.__name__.lower())
    return next(same, value.__name__)


def _suits_optimizer(given: dict[str, Any] | None, others: ValidationInfo) -> dict[str, Any] | None:
    """Refuse what the optimizer does not take."""
    if not given or "optimizer_class" not in others.data:
        return given
    name = others.data["optimizer_class"]
    optimizer = getattr(torch.optim, name)
    known = inspect.signature(optimizer).parameters.keys() - {"params", "lr"}
    for argument in given:
        if argument == "lr":
            raise ValueError("should not hold lr, which is the agent's learning_rate")
        if argument not in known:
            raise ValueError(f"holds {argument!r}, which {name} does not have{did_you_mean(argument, known)}")
    try:
        optimizer([torch.nn.Parameter(torch.zeros(1))], **{"fused": True, **given})
    except Exception as error:  # whatever torch raises of them
        raise ValueError(f"is refused by {name}: {error}") from None
    return given


Policy = TypeVar("Policy", bound="MultiTaskPolicy")
Widths = Annotated[list[Count], Field(min_length=1)]
NetArch = Annotated[
    Widths | Annotated[dict[Literal["pi", "qf"], Widths], Field(min_length=2)],
    explained("should be the widths of the trunk's layers, e.g. [256, 256] or {'pi': [256], 'qf': [256, 256]}"),
]


class MultiTaskPolicy(BasePolicy):
    """Actor, twin critics and target critics of multi-task SAC.

    Args:
        observation_space: box ``[D + T]``, one-hot last.
        action_space: box ``[A]``.
        lr_schedule: learning rate as a function of the remaining progress.
        n_tasks: ``T``.
        shapes: ``(D_t, A_t)``, features and actions of each task, where the spaces are padded to the widest; None: all
            tasks have the same.
        net_arch: widths of the shared trunks' layers: one list for actor and critics, or
            ``{pi: [...], qf: [...]}``. The default is the published one (Meta-World+, arXiv 2505.11289).
        activation_fn: activation of the trunks, by name or as a class of ``torch.nn``.
        layer_norm: LayerNorm before each activation of the trunks.
        one_hot_in_trunk: feed the one-hot to the trunks, as Meta-World+ does; False: it only selects the head, and
            tasks that see the same share all features, also where each needs another action.
        alignment: a linear map of each task's input before the trunks of actor and critics (Wu, Zhang, Ré, arXiv
            2005.00944), trained in turn with the trunks or together with them; None: no map. See
            `AlignmentSchedule`.
        alignment_period: updates of a turn.
        standardize_inputs: centre observations and divide them by their spread over all tasks, both measured on the
            transitions that are stored at the first update; over each task alone if shapes differ. Meta-World's goals
            and objects differ by centimetres, which networks otherwise learn to see late.
        actor_tau: deterministic actions are those of a running average of the actor, into which this share of it
            moves per update (Polyak and Juditsky, 1992): a policy swings far more than its average. None: those of the
            actor.
        n_critics: critics, of whose values the smallest counts.
        optimizer_class: optimizer of actor and critics, by name or as a class of ``torch.optim``.
        optimizer_kwargs: further arguments of the optimizer.

    Raises:
        ValueError: for an argument out of range, an observation that has no room for the one-hot, or an action
            dimension that leaves no choice.
    """

    def __init__(
        self,
        observation_space: spaces.Box,
        action_space: spaces.Box,
        lr_schedule: Schedule,
        n_tasks: int,
        net_arch: NetArch = (400, 400, 400),  # type: ignore[assignment] # a tuple cannot be changed by accident
        activation_fn: Annotated[Activation, BeforeValidator(_name_of_class)] = "relu",
        layer_norm: bool = False,
        one_hot_in_trunk: bool = True,
        alignment: Literal["alternating", "joint"] | None = None,
        alignment_period: Count = 1_000,
        standardize_inputs: bool = False,
        actor_tau: Fraction | None = None,
        n_critics: Count = 2,
        optimizer_class: Annotated[Literal["Adam", "AdamW", "SGD"], BeforeValidator(_name_of_class)] = "Adam",
        optimizer_kwargs: Annotated[Settings | None, AfterValidator(_suits_optimizer)] = None,
        shapes: Sequence[tuple[int, int]] | None = None,
    ) -> None:
        given = locals()
        own: Any = checked(POLICY_ARGUMENTS, {name: given[name] for name in POLICY_ARGUMENTS.model_fields})
        super().__init__(observation_space, action_space, squash_output=True)
        self.n_tasks, self.settings = n_tasks, own.model_dump()
        self.obs_dim = observation_space.shape[0] - n_tasks
        if self.obs_dim < 1:
            raise ValueError(
                f"observations of width {observation_space.shape[0]} leave no room beside a one-hot of {n_tasks} "
                "tasks: expected [features, one-hot]"
            )
        for index in np.flatnonzero(~(action_space.low < action_space.high)):
            raise ValueError(
                f"action dimension {index} has low={action_space.low[index]} and high={action_space.high[index]}, so "
                "there is nothing to choose: take it out of the action space, for example by a gymnasium.ActionWrapper"
            )
        action_dim = action_space.shape[0]
        widths = own.net_arch if isinstance(own.net_arch, dict) else {"pi": own.net_arch, "qf": own.net_arch}
        common: dict[str, Any] = {
            "n_tasks": n_tasks,
            "activation": own.activation_fn,
            "layer_norm": layer_norm,
            "one_hot_in_trunk": one_hot_in_trunk,
            "alignment": alignment is not None,
            "standardize": standardize_inputs,
            "standardize_each": shapes is not None,
        }
        self.alignment_schedule = None if alignment is None else AlignmentSchedule(alignment, alignment_period)
        self.actor = MultiTaskMLP(self.obs_dim, 2 * action_dim, widths["pi"], **common)
        self.shapes = None if shapes is None else [(int(features), int(actions)) for features, actions in shapes]
        self.actor.action_mask = action_mask(self.shapes, action_dim)
        self.critic = MultiTaskMLP(self.obs_dim + action_dim, 1, widths["qf"], n_nets=own.n_critics, **common)
        self.critic_target = copy.deepcopy(self.critic).requires_grad_(False)
        self.actor_tau = actor_tau
        self.actor_average = None if actor_tau is None else copy.deepcopy(self.actor).requires_grad_(False)
        optimizer = getattr(torch.optim, own.optimizer_class)
        settings = {"lr": lr_schedule(1), "fused": True, **(own.optimizer_kwargs or {})}
        self.actor_optimizer: torch.optim.Optimizer = optimizer(self.actor.parameters(), **settings)
        self.critic_optimizer: torch.optim.Optimizer = optimizer(self.critic.parameters(), **settings)

    def train_in_turn(self, trains: Trains) -> None:
        """Let trunks and alignment of actor and critics train or stay, as a turn of the schedule says."""
        for network in (self.actor, self.critic):
            network.trunk.requires_grad_(trains.trunk)
            network.heads["alignment"].requires_grad_(trains.alignment)

    @property
    def standardizes(self) -> bool:
        """True if the networks standardise observations."""
        return self.actor.standardized

    @torch.no_grad()
    def standardize(self, observations: Tensor) -> None:
        """Take mean and spread of each dimension from observations ``[T, B, D]``, all tasks together.

        Tasks share mean and spread, so differences between tasks stay; only tasks of different shapes have their own,
        since a dimension means something else in each. Padding stays 0. A dimension that hardly moves is not blown up:
        its spread counts as at least `LEAST_SPREAD` of the widest one's. Values that are not finite are replaced
        by the mean of the others. Statistics that are there, taken over from another agent, stay.
        """
        rows = observations.flatten(0, 1) if self.shapes is None else observations
        mean = torch.where(rows.isfinite(), rows, torch.nan).nanmean(dim=-2, keepdim=True).nan_to_num(0.0)
        spread = torch.where(rows.isfinite(), rows, mean).std(dim=-2, correction=0, keepdim=True)
        widest = spread.amax(dim=-1, keepdim=True)
        scale = torch.where(widest > 0, 1.0 / spread.clamp(min=LEAST_SPREAD * widest), 1.0)
        for network in (self.actor, self.actor_average, self.critic, self.critic_target):
            if network is not None:
                own_mean, own_scale = (one[..., : self.obs_dim] for one in (network.input_mean, network.input_scale))
                unset = ((own_mean == 0) & (own_scale == 1)).all(dim=-1, keepdim=True)
                own_mean.copy_(torch.where(unset, mean.view_as(own_mean), own_mean))
                own_scale.copy_(torch.where(unset, scale.view_as(own_scale), own_scale))

    @torch.no_grad()
    def move_averages(self, tau: float) -> None:
        """Move a share ``tau`` of the critics into their targets, and ``actor_tau`` of the actor into its average."""
        torch._foreach_lerp_(list(self.critic_target.parameters()), list(self.critic.parameters()), tau)
        if self.actor_average is not None and self.actor_tau is not None:
            average, online = self.actor_average.parameters(), self.actor.parameters()
            torch._foreach_lerp_(list(average), list(online), self.actor_tau)

    @torch.no_grad()
    def renew(self, seed: int, share: float = 1.0) -> None:
        """Move all networks a ``share`` of the way to new random parameters, and forget the optimizers' moments.

        Parameters with ``requires_grad=False`` stay, in averages and targets too.

        Args:
            seed: of the new parameters; no other random stream is touched.
            share: 1: the parameters are the new ones.
        """
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            new = type(self)(**self._get_constructor_parameters()).to(self.device)
        pairs = [
            pair for pair in zip(self.named_parameters(), new.parameters(), strict=True) if self._trains(pair[0][0])
        ]
        torch._foreach_lerp_([own for (_, own), _ in pairs], [one for _, one in pairs], share)
        for optimizer in (self.actor_optimizer, self.critic_optimizer):
            for moment in (value for state in optimizer.state.values() for value in state.values()):
                moment.zero_()

    def _trains(self, name: str) -> bool:
        """Return True if a parameter is trained, or the one that it follows."""
        if self.alignment_schedule is not None:  # trunks and alignments are frozen in turn
            return True
        online = name.replace("critic_target.", "critic.").replace("actor_average.", "actor.")
        return self.get_parameter(online).requires_grad

    def forward(self, obs: PyTorchObs, deterministic: bool = False) -> Tensor:
        """Scaled actions ``[R, A]`` in (-1, 1) for observations ``[R, D + T]``."""
        return self._predict(obs, deterministic=deterministic)

    def _predict(self, observation: PyTorchObs, deterministic: bool = False) -> Tensor:
        assert isinstance(observation, Tensor)
        if deterministic:
            actor = self.actor if self.actor_average is None else self.actor_average
            return squashed_mean(*self._outputs(actor, observation))
        out, mask = self._outputs(self.actor, observation)
        return squashed_sample(out, torch.randn_like(out.chunk(2, dim=-1)[0]), mask)[0]

    def obs_to_tensor(self, observation: Any) -> tuple[PyTorchObs, bool]:
        """Return observations of any number type as float32 ``[R, D + T]``, and True if they are a batch.

        Raises:
            ValueError: for observations of another width, or whose one-hot names no task.
        """
        try:
            observation = np.asarray(observation, np.float32)
        except (TypeError, ValueError) as error:
            raise ValueError(f"observations should be an array of numbers, not {type(observation).__name__}") from error
        rows, is_batch = super().obs_to_tensor(observation)
        tasks_of(observation.reshape(-1, self.obs_dim + self.n_tasks)[:, self.obs_dim :])
        return rows, is_batch

    @torch.no_grad()
    def explore(self, observations: np.ndarray, noise: np.ndarray) -> np.ndarray:
        """Scaled actions ``[R, A]`` at observations ``[R, D + T]`` by given standard normal noise ``[R, A]``."""
        rows, _ = self.obs_to_tensor(observations)
        assert isinstance(rows, Tensor)
        out, mask = self._outputs(self.actor, rows)
        return squashed_sample(out, torch.as_tensor(noise, device=out.device), mask)[0].cpu().numpy()

    def _outputs(self, actor: MultiTaskMLP, observations: Tensor) -> tuple[Tensor, Tensor | None]:
        """An actor's output ``[R, 2 A]`` and its tasks' action mask ``[R, A]``."""
        features, one_hot = observations.split([self.obs_dim, self.n_tasks], dim=-1)
        tasks, mask = one_hot.argmax(dim=-1), actor.action_mask
        return actor.of_tasks(features, tasks).squeeze(0), None if mask is None else mask[tasks, 0]

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """Copy parameters and buffers, as in torch; ``assign`` copies too, because optimizers hold the parameters."""
        return super().load_state_dict(state_dict, strict)

    def _get_constructor_parameters(self) -> dict[str, Any]:
        spaces = {"observation_space": self.observation_space, "action_space": self.action_space}
        tasks = {"n_tasks": self.n_tasks} if self.shapes is None else {"n_tasks": self.n_tasks, "shapes": self.shapes}
        return {**spaces, "lr_schedule": self._dummy_schedule, **tasks, **self.settings}

    def save(self, path: Target) -> None:
        """Save the policy alone as a zip of JSON and safetensors; no pickle.

        Args:
            path: file (``.zip`` is added if there is no suffix) or binary stream.
        """
        write_archive(path, *policy_to_archive(self))

    @classmethod
    def load(cls: type[Policy], path: Target, device: torch.device | str = "auto") -> Policy:
        """Load what `save` of this class wrote; opening a file runs no code from it.

        Raises:
            FileNotFoundError: if there is no such file.
            ValueError: if it holds no policy.
        """
        return policy_from_archive(cls, path, *read_archive(path), device)


POLICY_ARGUMENTS = section_of(MultiTaskPolicy, without=("shapes",))
"""Arguments that ``policy_kwargs`` may hold."""


class _PolicyKwargs(Section):
    """The place of the arguments, so that errors name it: ``policy_kwargs.net_arch``."""

    policy_kwargs: POLICY_ARGUMENTS  # type: ignore[valid-type]


def checked_policy_kwargs(policy_class: type[BasePolicy], given: dict[str, Any]) -> dict[str, Any]:
    """Arguments of a policy as a file can hold them: classes by name, tuples as lists.

    Args:
        policy_class: `MultiTaskPolicy` or a subclass; those of a subclass's own are only brought to that form.
        given: arguments by name.

    Raises:
        ValueError: for an unknown name, a value out of range, or one that cannot be stored.
    """
    # SB3's SAC writes use_sde=False into the very dict that it is given.
    given = {name: value for name, value in given.items() if name != "use_sde" or value}
    extends = policy_class.__init__ is not MultiTaskPolicy.__init__
    others = {name: value for name, value in given.items() if extends and name not in POLICY_ARGUMENTS.model_fields}
    known = {name: value for name, value in given.items() if name not in others}
    arguments: Any = checked(_PolicyKwargs, {"policy_kwargs": known})
    return {**json_able(others), **arguments.policy_kwargs.model_dump(exclude_unset=True)}
