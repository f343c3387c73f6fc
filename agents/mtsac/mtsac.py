"""Multi-task SAC on stable-baselines3: a shared trunk, a head per task, and a combiner of task gradients."""

from __future__ import annotations

import functools
import time
from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np
import torch
from gymnasium import spaces
from scipy.special import ndtr
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import GymEnv, MaybeCallback, RolloutReturn, Schedule
from stable_baselines3.common.utils import get_system_info, update_learning_rate
from stable_baselines3.common.vec_env import VecEnv
from torch import Tensor

from mtrl_transfer.agents.monitoring.timing import TimedCallback, counted
from mtrl_transfer.agents.monitoring.training_log import record_faults, record_training, record_updates
from mtrl_transfer.agents.mtsac.arguments import check_arguments
from mtrl_transfer.agents.mtsac.buffers import MultiTaskReplayBuffer, TaskBatch, terminations
from mtrl_transfer.agents.mtsac.cuda_graph import RecordedUpdates, Sample, is_capturable, set_learning_rate
from mtrl_transfer.agents.mtsac.exploration import CorrelatedNoise
from mtrl_transfer.agents.mtsac.losses import (
    ActorBatch,
    ActorLoss,
    ActorRows,
    CriticBatch,
    CriticLoss,
    CriticRows,
    td_targets,
)
from mtrl_transfer.agents.mtsac.overlap import WorkMeanwhile
from mtrl_transfer.agents.mtsac.policies import MultiTaskPolicy, checked_policy_kwargs
from mtrl_transfer.agents.mtsac.return_bounds import ReturnBounds
from mtrl_transfer.agents.mtsac.reward_scaling import REWARD_SCALINGS
from mtrl_transfer.agents.mtsac.roles import role_combiners
from mtrl_transfer.agents.mtsac.task_weighting import TaskWeighting
from mtrl_transfer.agents.normalization import check_training_normalization
from mtrl_transfer.agents.storage import archive
from mtrl_transfer.agents.storage.agent_archive import (
    REPLACEABLE,
    agent_from_archive,
    agent_to_archive,
    stored_parameters,
)
from mtrl_transfer.agents.tasks import MEAN, EpisodeWindows, check_one_hot, check_same_tasks, task_names_of
from mtrl_transfer.combiners import Combiner
from mtrl_transfer.faults import NotFinite
from mtrl_transfer.information.alignment import Trains
from mtrl_transfer.running_stats import RunningMeans
from mtrl_transfer.update import Update

ROWS_PER_TASK = 128
STANDARDIZING_ROWS = 2_000
"""Of each task, from which the scale of its inputs is taken."""
AFFINITY_SHARE = 16
"""One row in so many serves to measure affinity, unless more are asked for."""


class MTSAC(OffPolicyAlgorithm):
    """Soft Actor-Critic (Haarnoja et al., arXiv 1812.05905) for many tasks at once.

    One network learns all tasks: actor and twin critics have a trunk that the tasks share and a linear head per task,
    and each task has its own temperature. On every update the combiner turns the task gradients into one gradient for
    the trunk, separately for the critics and the actor.

    Args:
        policy: ``"MultiTaskPolicy"`` or a subclass of :class:`mtrl_transfer.agents.mtsac.policies.MultiTaskPolicy`.
        env: vector environment in which sub-environment ``t`` is task ``t`` and observations end with the one-hot.
        learning_rate: of actor, critics and temperatures; a number or a function of the remaining progress.
        buffer_size: replay capacity in transitions over all tasks.
        learning_starts: transitions collected at random before the first update.
        batch_size: rows per update over all tasks, a multiple of their number; None: 128 per task.
        tau: Polyak coefficient of the target critics.
        gamma: discount per step.
        n_steps: steps of the return in the TD target; its entropy counts at the last only, as in SB3.
        train_freq: vector steps between trainings, as in SB3.
        gradient_steps: updates per training; -1: as many as transitions since the last, those of all tasks.
        max_grad_norm: clips the gradient norm of the critics and of the actor; None: no clipping.
        max_nonfinite: updates in a row in which a task's loss or gradient may be not finite, and the task is left out,
            before training stops with :class:`mtrl_transfer.faults.NotFinite`; looked at when figures are logged.
        combiner: a name in ``mtrl_transfer.COMBINERS`` or a combiner object, which is copied for the
            critic and for the actor.
        combiner_kwargs: arguments for a named combiner; the keys ``critic`` and ``actor`` may hold dicts for one of
            them.
        measure_every: measure transference every so many updates under any combiner; None: never. It changes no run.
        affinity_every: measure pairwise transference, and nothing else, every so many updates, for choosing groups of
            tasks; None: never. It changes no run.
        affinity_rows: rows of each task for that; None: a sixteenth of the update's.
        reward_scaling: ``"max_return"`` scales each task's rewards when replay is sampled, so that its largest
            discounted return seen is 10; ``"max_reward"``, so that its largest reward, if it went on forever, would
            be worth 10; None: raw rewards.
        clip_targets: keep each task's TD targets between the returns of its smallest and its largest reward seen,
            received forever; see :class:`mtrl_transfer.agents.mtsac.return_bounds.ReturnBounds`.
        reweighting_rank: weigh the tasks' losses by how much of their value functions lies in so many directions that
            the tasks share, below their number; None: all weigh 1. See
            :class:`mtrl_transfer.agents.mtsac.task_weighting.TaskWeighting`.
        reweighting_every: updates between computations of these weights, which are 1 until the first.
        target_entropy: per task, in nats; ``"auto"``: minus the number of action dimensions.
        initial_alpha: each task's temperature at the start.
        overlap: update while the environments take their next step, which gains time where they step in other processes
            (``make_vec_env(..., own_process=False)``). Actions are then chosen by the policy before the update.
        cuda_graph: record an update as a CUDA graph and replay it, one of each kind; needs a CUDA device and combiners
            that are ``sync_free``. Updates that measure are taken as they are.
        exploration_correlation: correlation of successive exploration noise, warm-up included, in [0, 1); see
            :class:`mtrl_transfer.agents.mtsac.exploration.CorrelatedNoise`. 0: SB3's independent noise.
        policy_kwargs: arguments of :class:`mtrl_transfer.agents.MultiTaskPolicy`, by SB3's names where SB3 has them
            (``net_arch``, ``activation_fn``, ``n_critics``, ``optimizer_class``, ``optimizer_kwargs``).
        stats_window_size: episodes per task behind the rollout statistics.
        tensorboard_log: folder for TensorBoard events; None: none.
        verbose: 0 silent, 1 info, 2 debug.
        device: as in SB3.
        seed: fixes the run bit for bit on a CPU.

    Raises:
        ValueError: for an unknown combiner, a ``batch_size`` that the number of tasks does not divide, or arguments out
            of range.
    """

    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = {"MultiTaskPolicy": MultiTaskPolicy}
    policy: MultiTaskPolicy
    policy_kwargs: dict[str, Any]
    replay_buffer: MultiTaskReplayBuffer

    def __init__(
        self,
        policy: str | type[MultiTaskPolicy],
        env: GymEnv | None,
        learning_rate: float | Schedule = 3e-4,
        buffer_size: int = 1_000_000,
        learning_starts: int = 100,
        batch_size: int | None = None,
        tau: float = 0.005,
        gamma: float = 0.99,
        n_steps: int = 1,
        train_freq: int | tuple[int, str] = 1,
        gradient_steps: int = 1,
        max_grad_norm: float | None = 1.0,
        max_nonfinite: int = 100,
        combiner: str | Combiner = "transference",
        combiner_kwargs: dict[str, Any] | None = None,
        measure_every: int | None = None,
        affinity_every: int | None = None,
        affinity_rows: int | None = None,
        reward_scaling: str | None = None,
        clip_targets: bool = False,
        reweighting_rank: int | None = None,
        reweighting_every: int = 1_000,
        target_entropy: float | str = "auto",
        initial_alpha: float = 1.0,
        exploration_correlation: float = 0.0,
        overlap: bool = False,
        cuda_graph: bool = False,
        policy_kwargs: dict[str, Any] | None = None,
        stats_window_size: int = 100,
        tensorboard_log: str | None = None,
        verbose: int = 0,
        device: torch.device | str = "auto",
        seed: int | None = None,
        _init_setup_model: bool = True,
    ) -> None:
        super().__init__(
            policy,
            env,
            learning_rate,
            buffer_size,
            learning_starts,
            batch_size,
            tau,
            gamma,
            train_freq,
            gradient_steps,
            n_steps=n_steps,
            policy_kwargs=policy_kwargs,
            stats_window_size=stats_window_size,
            tensorboard_log=tensorboard_log,
            verbose=verbose,
            device=device,
            support_multi_env=True,
            monitor_wrapper=False,
            seed=seed,
            sde_support=False,
            supported_action_spaces=(spaces.Box,),
        )
        self.batch_size: int | None = batch_size
        self.max_grad_norm, self.max_nonfinite = max_grad_norm, max_nonfinite
        self.combiner, self.combiner_kwargs = combiner, combiner_kwargs
        self.measure_every = measure_every
        self.affinity_every, self.affinity_rows = affinity_every, affinity_rows
        self.reward_scaling, self.clip_targets = reward_scaling, clip_targets
        self.reweighting_rank, self.reweighting_every = reweighting_rank, reweighting_every
        self.target_entropy, self.initial_alpha = target_entropy, initial_alpha
        self.exploration_correlation = exploration_correlation
        self.overlap, self.updates_due, self.cuda_graph = overlap, 0, cuda_graph
        self.n_tasks, self.task_names = 0, list[str]()  # until an environment or an archive names them
        if _init_setup_model:
            self._setup_model()

    # --- set-up -------------------------------------------------------------------------------------------------------

    def _setup_model(self) -> None:
        self._setup_lr_schedule()
        self.set_random_seed(self.seed)
        self._identify_tasks()
        if self.batch_size is None:
            self.batch_size = ROWS_PER_TASK * self.n_tasks
        check_arguments(self)
        seeds = iter(np.random.SeedSequence(self.seed).generate_state(9).tolist())
        self.replay_buffer = MultiTaskReplayBuffer(
            self.buffer_size,
            self.observation_space,
            self.action_space,
            self.device,
            self.n_tasks,
            next(seeds),
            self.gamma,
            self.n_steps,
        )
        self.policy_kwargs = checked_policy_kwargs(self.policy_class, self.policy_kwargs)
        self.policy = self.policy_class(
            self.observation_space, self.action_space, self.lr_schedule, n_tasks=self.n_tasks, **self.policy_kwargs
        ).to(self.device)
        self._convert_train_freq()
        self._create_temperatures()
        self._create_updates(seeds)
        scaling = None if self.reward_scaling is None else REWARD_SCALINGS[self.reward_scaling]
        self.reward_scaler = None if scaling is None else scaling(self.n_tasks, self.gamma, self.device)
        self.return_bounds = ReturnBounds(self.n_tasks, self.gamma, self.device) if self.clip_targets else None
        self.exploration_noise = self._make_exploration_noise(next(seeds))
        self._statistics = RunningMeans()
        self._episodes = EpisodeWindows(self.task_names, self._stats_window_size)
        self._recorded: RecordedUpdates | None = None
        self.timing = {"environment": 0.0, "update": 0.0, "transference": 0.0, "logging": 0.0}

    def _identify_tasks(self) -> None:
        """Read the tasks off the environment; on load, compare them with those the agent was trained on."""
        if self.env is None:
            return
        names = task_names_of(self.env)
        if MEAN in names:
            raise ValueError(f"a task is called {MEAN!r}, as the figures of the mean over tasks are: rename it")
        check_same_tasks(self.task_names or names, names)
        check_training_normalization(self.env, self._needs_raw_rewards())
        self.task_names, self.n_tasks = names, len(names)

    def _needs_raw_rewards(self) -> str | None:
        return "reward_scaling" if self.reward_scaling else "clip_targets" if self.clip_targets else None

    def set_env(self, env: GymEnv, force_reset: bool = True) -> None:
        """As in SB3.

        Raises:
            ValueError: if the environment's tasks are others, or in another order, or if its ``VecNormalize`` does not
                suit the agent.
        """
        wrapped = self._wrap_env(env, self.verbose)
        check_same_tasks(self.task_names, task_names_of(wrapped))
        check_training_normalization(wrapped, self._needs_raw_rewards())
        super().set_env(wrapped, force_reset)

    def _create_temperatures(self) -> None:
        auto = self.target_entropy == "auto"
        self.entropy_target = -float(np.prod(self.action_space.shape)) if auto else float(self.target_entropy)
        log_alpha = torch.full((self.n_tasks,), float(np.log(self.initial_alpha)), device=self.device)
        self.log_alpha = torch.nn.Parameter(log_alpha)
        self.alpha_optimizer = torch.optim.Adam([self.log_alpha], lr=self.lr_schedule(1), fused=True)

    def _create_updates(self, seeds: Iterator[int]) -> None:
        policy = self.policy
        combiners = role_combiners(self.combiner, self.combiner_kwargs, seeds)

        self.noise_generator = torch.Generator(self.device).manual_seed(next(seeds))
        seed_of = {"critic": next(seeds), "actor": next(seeds)}
        rank, every = self.reweighting_rank, self.reweighting_every
        self.task_weighting = (
            None if rank is None else TaskWeighting(self.n_tasks, rank, every, next(seeds), self.device)
        )
        weights = None if self.task_weighting is None else self.task_weighting.weights
        critic_loss = CriticLoss(policy.critic, weights)
        actor_loss = ActorLoss(policy.actor, policy.critic, weights)
        self.critic_update: Update[CriticRows] = Update(
            critic_loss,
            policy.critic_optimizer,
            combiners["critic"],
            max_grad_norm=self.max_grad_norm,
            seed=seed_of["critic"],
        )
        self.actor_update: Update[ActorRows] = Update(
            actor_loss,
            policy.actor_optimizer,
            combiners["actor"],
            max_grad_norm=self.max_grad_norm,
            seed=seed_of["actor"],
        )

    def _make_exploration_noise(self, seed: int) -> CorrelatedNoise | None:
        if not self.exploration_correlation:
            return None
        shape = (self.n_tasks, *self.action_space.shape)
        return CorrelatedNoise(shape, self.exploration_correlation, seed)

    # --- interaction --------------------------------------------------------------------------------------------------

    def _setup_learn(
        self,
        total_timesteps: int,
        callback: MaybeCallback = None,
        reset_num_timesteps: bool = True,
        *args: Any,
        **kwargs: Any,
    ) -> tuple[int, BaseCallback]:
        if reset_num_timesteps or self._last_obs is None:  # then SB3 resets the environment, amid episodes
            self._end_episodes()
        result = super()._setup_learn(total_timesteps, callback, reset_num_timesteps, *args, **kwargs)
        check_one_hot(self._last_original_obs if self._vec_normalize_env else self._last_obs, self.n_tasks)
        assert self.env is not None
        self._stepping = WorkMeanwhile(self.env, self._catch_up) if self.overlap else self.env
        self._recorded = self._make_recorded() if self.cuda_graph else None
        return result

    def _end_episodes(self) -> None:
        """Returns must not go on from the newest stored step into the first of another episode."""
        self.replay_buffer.end_episodes()
        if self.reward_scaler is not None:
            self.reward_scaler.end_episodes()

    def _make_recorded(self) -> RecordedUpdates:
        if self.device.type != "cuda":
            raise ValueError(f"cuda_graph=True needs a CUDA device, and this agent is on {self.device}: leave it False")
        for role, update in self.updates.items():
            if not is_capturable(update.combiner):
                name = type(update.combiner).__name__
                raise ValueError(f"the {role}'s combiner, {name}, cannot be captured: leave cuda_graph False")
        return RecordedUpdates(self._sample, self._work_generators)

    def _combiners(self) -> list[Combiner]:
        return [update.combiner for update in self.updates.values()]

    def _work_generators(self) -> list[torch.Generator]:
        lookaheads = [update.generators["lookahead"] for update in self.updates.values()]
        return [self.noise_generator, *lookaheads, *(one for each in self._combiners() for one in each.generators())]

    def learn(
        self,
        total_timesteps: int,
        callback: MaybeCallback = None,
        log_interval: int | None = None,
        tb_log_name: str = "MTSAC",
        reset_num_timesteps: bool = True,
        progress_bar: bool = False,
    ) -> MTSAC:
        """Train until ``total_timesteps`` transitions; see SB3.

        Args:
            total_timesteps: transitions over all tasks.
            callback: as in SB3; frequencies count vector steps.
            log_interval: episodes between logs; None: the number of tasks, one log per round of episodes.
            tb_log_name: name of the TensorBoard run.
            reset_num_timesteps: start counting at 0; False continues.
            progress_bar: show one.
        """
        interval = self.n_tasks if log_interval is None else log_interval
        super().learn(total_timesteps, callback, interval, tb_log_name, reset_num_timesteps, progress_bar)
        self._catch_up()
        return self

    def collect_rollouts(self, env: VecEnv, callback: BaseCallback, *args: Any, **kwargs: Any) -> RolloutReturn:
        """SB3's, with the time that environments (not callbacks) take counted."""
        timed, start, before = TimedCallback(callback), time.perf_counter(), self._update_seconds()
        rollout = super().collect_rollouts(self._stepping, timed, *args, **kwargs)
        updating = self._update_seconds() - before  # where they overlap
        self.timing["environment"] += time.perf_counter() - start - timed.seconds - updating
        return rollout

    def _update_seconds(self) -> float:
        return self.timing["update"] + self.timing["transference"]

    def _sample_action(
        self, learning_starts: int, action_noise: Any = None, n_envs: int = 1
    ) -> tuple[np.ndarray, np.ndarray]:
        if self.exploration_noise is None:
            return super()._sample_action(learning_starts, action_noise, n_envs)
        noise = self.exploration_noise.draw()
        if self.num_timesteps < learning_starts:
            scaled = (2.0 * ndtr(noise) - 1.0).astype(np.float32)  # uniform, as SB3's warm-up is
        else:
            scaled = self.policy.explore(self._last_obs, noise)
        return self.policy.unscale_action(scaled), scaled

    def _update_info_buffer(self, infos: list[dict[str, Any]], dones: np.ndarray | None = None) -> None:
        super()._update_info_buffer(infos, dones)
        self._episodes.update(infos, dones)

    def _store_transition(
        self, replay_buffer: Any, buffer_action: Any, new_obs: Any, reward: Any, dones: Any, infos: Any
    ) -> None:
        super()._store_transition(replay_buffer, buffer_action, new_obs, reward, dones, infos)
        if self.reward_scaler is not None:
            self.reward_scaler.update(reward, dones)
        if self.return_bounds is not None:
            self.return_bounds.update(reward, terminations(dones, infos))

    # --- training -----------------------------------------------------------------------------------------------------

    def train(self, gradient_steps: int, batch_size: int) -> None:
        """Take ``gradient_steps`` updates on ``batch_size`` rows each, as SB3 asks for them.

        With ``overlap`` they are taken during the next step of the environments.
        """
        if self.overlap:
            self.updates_due = gradient_steps
        else:
            self._take_updates(gradient_steps, batch_size)

    def _catch_up(self) -> None:
        """Take the updates that are due; none without replay, which a loaded agent may not have."""
        due, self.updates_due = self.updates_due, 0
        if due and self.replay_buffer.size():
            assert self.batch_size is not None
            self._take_updates(due, self.batch_size)

    def _take_updates(self, gradient_steps: int, batch_size: int) -> None:
        start = time.perf_counter()
        self.policy.set_training_mode(True)
        rate = self.lr_schedule(self._current_progress_remaining)
        set_rate = update_learning_rate if self._recorded is None else set_learning_rate
        for optimizer in (self.policy.actor_optimizer, self.policy.critic_optimizer, self.alpha_optimizer):
            set_rate(optimizer, rate)
        if self.policy.standardizes and self._n_updates == 0:
            rows = STANDARDIZING_ROWS * self.n_tasks
            self.policy.standardize(self.replay_buffer.sample(rows, self._vec_normalize_env).observations)
        before = self._transference_seconds()
        for _ in range(gradient_steps):
            self._update(batch_size)
        transference = self._transference_seconds() - before
        self.timing["transference"] += transference
        self.timing["update"] += time.perf_counter() - start - transference
        record_updates(self)

    def _update(self, batch_size: int) -> None:
        measure = self._due(self.measure_every)
        affinity = self._affinity_rows(batch_size) if self._due(self.affinity_every) else None
        schedule = self.policy.alignment_schedule
        # What measures next may come after a turn in which the trunk stood still.
        note = schedule is not None or self._due(self.measure_every, 1) or self._due(self.affinity_every, 1)
        trains = Trains(True, True) if schedule is None else schedule.trains(self._n_updates)
        if schedule is not None:
            self.policy.train_in_turn(trains)
        asked = {"measure": measure, "affinity": affinity, "note_step": note}
        self._weigh_tasks(batch_size)
        work = functools.partial(self._step_networks, batch_size, asked)
        if self._recorded is None or measure or affinity is not None:
            work(self._sample)
        else:
            self._recorded.take(work, self._combiners() if trains.trunk else (), batch_size, trains, note)
        self._n_updates += 1

    def _step_networks(self, batch_size: int, asked: dict[str, Any], sample: Sample) -> None:
        """All that an update does to tensors, on rows that ``sample`` gives."""
        batch, noise = sample(batch_size, None), self.noise_generator
        critic = self.critic_update.step(
            self._critic_batch(batch, noise), self._draw(self._critic_batch, sample), **asked
        )
        actor = self.actor_update.step(self._actor_batch(batch, noise), self._draw(self._actor_batch, sample), **asked)
        self._update_temperatures(actor.log_probs.squeeze(0))
        self.policy.move_averages(self.tau)
        self._count(critic, actor)

    def _affinity_rows(self, batch_size: int) -> int:
        """Rows of each task that affinity is measured on."""
        rows = batch_size // self.n_tasks
        return self.affinity_rows or min(max(rows // AFFINITY_SHARE, 2), rows)

    def _weigh_tasks(self, batch_size: int) -> None:
        weighting = self.task_weighting
        if weighting is not None and self._n_updates > 0 and self._due(weighting.every):
            batch = self._sample(batch_size, weighting.generator)
            inputs = torch.cat([batch.observations, batch.actions], dim=-1)
            weighting.update(self.policy.critic, self.policy.critic_target, inputs)

    def _due(self, every: int | None, later: int = 0) -> bool:
        """Whether this update, or one so many later, is one of those once in so many."""
        return every is not None and (self._n_updates + later) % every == 0

    def _sample(self, batch_size: int, generator: torch.Generator | None) -> TaskBatch:
        batch = self.replay_buffer.sample(batch_size, self._vec_normalize_env, generator)
        factors = self._reward_factors()
        return batch if factors is None else batch._replace(rewards=batch.rewards * factors.unsqueeze(1))

    def _reward_factors(self) -> Tensor | None:
        """What each task's rewards are multiplied by ``[T]``; None: they are not."""
        return None if self.reward_scaler is None else self.reward_scaler.factors

    def _draw(self, make: Any, sample: Sample) -> Any:
        """``draw(rows, generator)``: a batch of ``rows`` other rows per task, all of it random by ``generator``."""
        return lambda rows, generator: make(sample(rows * self.n_tasks, generator), generator)

    def _critic_batch(self, batch: TaskBatch, generator: torch.Generator) -> CriticBatch:
        targets = td_targets(
            self.policy.actor,
            self.policy.critic_target,
            batch.next_observations,
            batch.rewards,
            batch.discounts,
            self._noise(batch, generator),
            self._alphas(),
        )
        if self.return_bounds is not None:
            targets = self.return_bounds.clip(targets, self._reward_factors())
        return CriticBatch(batch.observations, batch.actions, targets)

    def _actor_batch(self, batch: TaskBatch, generator: torch.Generator) -> ActorBatch:
        return ActorBatch(batch.observations, self._noise(batch, generator), self._alphas())

    def _noise(self, batch: TaskBatch, generator: torch.Generator) -> Tensor:
        return torch.randn(batch.actions.shape, generator=generator, device=self.device)

    def _alphas(self) -> Tensor:
        return self.log_alpha.detach().exp().unsqueeze(1)

    def _update_temperatures(self, log_probs: Tensor) -> None:
        """Each task's own temperature towards the entropy target; Adam works entry by entry, so tasks do not mix."""
        excess = log_probs.detach().mean(dim=1) + self.entropy_target
        self.log_alpha.grad = torch.where(excess.isfinite(), -excess, 0)
        self.alpha_optimizer.step()

    # --- what it tells ------------------------------------------------------------------------------------------------

    @property
    def updates(self) -> dict[str, Update[Any]]:
        """The two networks' updates by role."""
        return {"critic": self.critic_update, "actor": self.actor_update}

    def kept_share(self) -> dict[str, np.ndarray]:
        """Share ``[T]`` of all updates so far in which each task's gradient had a part in the trunk's, by role."""
        shares = {role: update.kept / update.n_combined.clamp(min=1) for role, update in self.updates.items()}
        return {role: share.cpu().numpy() for role, share in shares.items()}

    def prediction_correlation(self) -> dict[str, float]:
        """Pearson correlation of predicted transference with the real step's, by role; nan where never measured."""
        return {role: update.measurement.correlation.overall() for role, update in self.updates.items()}

    def _transference_seconds(self) -> float:
        return sum(update.transference_seconds for update in self.updates.values())

    def _count(self, critic: CriticRows, actor: ActorRows) -> None:
        weights: Tensor | float = 1.0
        if self.task_weighting is not None:
            weights = self.task_weighting.weights.squeeze(1)
            self._statistics.add("task_weight", weights)
        self._statistics.add("critic_loss", critic.losses.squeeze(0).mean(dim=-1) / weights)
        self._statistics.add("q", critic.values.squeeze(0).mean(dim=-1))
        self._statistics.add("actor_loss", actor.losses.squeeze(0).mean(dim=-1) / weights)
        self._statistics.add("entropy", -actor.log_probs.squeeze(0).mean(dim=-1))
        self._statistics.add("alpha", self._alphas().squeeze(1))

    def dump_logs(self) -> None:
        """Record what happened since the last call, per task, and write it."""
        with counted(self.timing, "logging"):
            record_training(self)
            problems = record_faults(self)
            super().dump_logs()
        if problems:
            raise NotFinite("; ".join(problems))

    def unsound_tasks(self) -> list[str]:
        """Names of tasks whose loss or gradient was not finite in the latest update."""
        tasks = {task for update in self.updates.values() for task in update.faults.unsound()}
        return [self.task_names[task] for task in sorted(tasks)]

    # --- storage ------------------------------------------------------------------------------------------------------

    def save(self, path: archive.Target, exclude: Any = None, include: Any = None) -> None:
        """Save the agent as a zip of JSON and safetensors; no pickle.

        Args:
            path: file (``.zip`` is added where there is no suffix) or binary stream.
            exclude: of SB3's signature; must be None, for there is nothing to choose.
            include: likewise.

        Raises:
            ValueError: for an argument that JSON cannot hold.
        """
        if exclude is not None or include is not None:
            raise ValueError("MTSAC.save saves the whole agent: exclude and include must be None")
        archive.write_archive(path, *agent_to_archive(self))

    @classmethod
    def load(
        cls,
        path: archive.Target,
        env: GymEnv | None = None,
        device: torch.device | str = "auto",
        custom_objects: dict[str, Any] | None = None,
        print_system_info: bool = False,
        force_reset: bool = True,
        **kwargs: Any,
    ) -> MTSAC:
        """Load an agent. Opening a file runs no code from it.

        Args:
            path: what :meth:`save` wrote.
            env: environment with the same tasks, to train on; not needed for prediction.
            device: as in SB3.
            custom_objects: arguments that replace stored ones, as in SB3: unknown names are ignored.
            print_system_info: print the versions of the libraries here.
            force_reset: must be True: training always goes on from a reset environment.
            **kwargs: arguments that replace stored ones, such as ``combiner`` if the agent had an object, or ``policy``
                if its policy was a class of your own. Another combiner, or one with other ``combiner_kwargs``, begins
                anew.

        Raises:
            FileNotFoundError: if there is no such file.
            ValueError: if it is not one of ours, if the environment's tasks or spaces differ, or if an argument is
                unknown or does not suit the stored agent.
            MemoryError: if there is no memory for the replay; ``buffer_size=1`` is enough to predict.
        """
        if not force_reset:
            raise ValueError("force_reset=False is not supported: training goes on from a reset environment")
        if print_system_info:
            get_system_info()
        objects = {name: value for name, value in (custom_objects or {}).items() if name in REPLACEABLE}
        replaced = {**objects, **kwargs}
        return agent_from_archive(cls, path, *archive.read_archive(path), env, device, replaced)

    def save_replay_buffer(self, path: archive.Target) -> None:
        """Write the stored transitions as safetensors (SB3 would pickle them).

        Args:
            path: file, whose folders are made, or binary stream.
        """
        self.replay_buffer.save(path)

    def load_replay_buffer(self, path: archive.Target, truncate_last_traj: bool = True) -> None:
        """Read stored transitions.

        Args:
            path: file or binary stream that :meth:`save_replay_buffer` wrote.
            truncate_last_traj: of SB3's signature; training ends the last episode where it resets the environment.

        Raises:
            FileNotFoundError: if there is no such file.
            ValueError: if it holds something else.
        """
        self.replay_buffer.load(path)
        if self.return_bounds is not None and self.replay_buffer.size():
            stored, size = self.replay_buffer.storage, self.replay_buffer.size()
            rewards = stored.rewards[:size].cpu().numpy()
            terminates = stored.terminations[:size].bool().any(dim=0).cpu().numpy()
            for row in (rewards.min(axis=0), rewards.max(axis=0)):
                self.return_bounds.update(row, terminates)

    def set_parameters(
        self,
        load_path_or_dict: archive.Target | dict[str, Any],
        exact_match: bool = True,
        device: torch.device | str = "auto",
    ) -> None:
        """Take over parameters, as in SB3.

        Args:
            load_path_or_dict: what :meth:`save` wrote, or what SB3's ``get_parameters`` returned.
            exact_match: require all parameters of all networks and optimizers.
            device: of SB3's signature; parameters go to the agent's device.

        Raises:
            FileNotFoundError: if there is no such file.
            ValueError: if it holds no agent, or names do not match.
            RuntimeError: if shapes do not match.
        """
        given = load_path_or_dict
        parameters = given if isinstance(given, dict) else stored_parameters(given, self.device)
        super().set_parameters(parameters, exact_match, device)
        if self._recorded is not None:  # recordings read the tensors that were there before
            self._recorded = self._make_recorded()

    def _get_torch_save_params(self) -> tuple[list[str], list[str]]:
        return ["policy", "policy.actor_optimizer", "policy.critic_optimizer", "alpha_optimizer"], ["log_alpha"]
