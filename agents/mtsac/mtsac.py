"""Multi-task SAC on stable-baselines3: a shared trunk, a head per task, and a combiner of task gradients."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import torch
from gymnasium import spaces
from pydantic import AfterValidator, BeforeValidator, Field
from scipy.special import ndtr
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import GymEnv, MaybeCallback, RolloutReturn
from stable_baselines3.common.utils import update_learning_rate
from stable_baselines3.common.vec_env import VecEnv

from mtrl_transfer.agents.declarations import (
    Count,
    Float,
    Fraction,
    Int,
    Positive,
    Section,
    Seed,
    Settings,
    explained,
    section_of,
)
from mtrl_transfer.agents.monitoring.measuring import NOTHING, MeasureTransference
from mtrl_transfer.agents.monitoring.timing import TimedCallback, counted
from mtrl_transfer.agents.monitoring.training_log import record_faults, record_training, record_updates
from mtrl_transfer.agents.mtsac.arguments import check_arguments, refuse_unknown
from mtrl_transfer.agents.mtsac.buffers import MultiTaskReplayBuffer, terminations
from mtrl_transfer.agents.mtsac.compiling import compiling_pays
from mtrl_transfer.agents.mtsac.cuda_graph import set_learning_rate
from mtrl_transfer.agents.mtsac.exploration import CorrelatedNoise
from mtrl_transfer.agents.mtsac.learner import Learner
from mtrl_transfer.agents.mtsac.minibatches import Minibatches
from mtrl_transfer.agents.mtsac.overlap import WorkMeanwhile
from mtrl_transfer.agents.mtsac.policies import MultiTaskPolicy
from mtrl_transfer.agents.mtsac.rewards import Rewards
from mtrl_transfer.agents.mtsac.roles import role_combiners
from mtrl_transfer.agents.mtsac.temperatures import EntCoef, Temperatures
from mtrl_transfer.agents.normalization import check_training_normalization
from mtrl_transfer.agents.storage.policy_archive import usable_device
from mtrl_transfer.agents.storage.stored import StoredWithoutPickle
from mtrl_transfer.agents.task_spaces import TaskSpaces
from mtrl_transfer.agents.tasks import MEAN, EpisodeWindows, check_one_hot, check_same_tasks, task_names_of
from mtrl_transfer.combiners import Combiner
from mtrl_transfer.faults import NotFinite
from mtrl_transfer.update import Update

STANDARDIZING_ROWS = 2_000
"""Rows sampled per task to estimate the scale of inputs."""


def _is_schedule(function: Callable[[float], float]) -> Callable[[float], float]:
    """Refuse a function that gives no learning rate at the start."""
    try:
        rate = float(function(1.0))
    except Exception as error:
        raise ValueError(f"raises {error!r}") from error
    if not 0 <= rate < np.inf:
        raise ValueError(f"gives {rate}")
    return function


Rate = Annotated[
    Annotated[Float, Field(ge=0)] | Annotated[Callable[[float], float], AfterValidator(_is_schedule)],
    explained("should be a number of at least 0, or a function that gives one for the remaining progress, 1.0 to 0.0"),
]
PathText = Annotated[str, BeforeValidator(lambda path: str(path) if isinstance(path, Path) else path)]


class MTSAC(StoredWithoutPickle):
    """Soft Actor-Critic (Haarnoja et al., arXiv 1812.05905) for many tasks at once.

    One network learns all tasks: actor and critics have a trunk that the tasks share and a linear head per task,
    and each task has its own temperature. On every update the combiner turns the task gradients into one gradient for
    the trunk, separately for the critics and the actor.

    Args:
        policy: ``"MultiTaskPolicy"`` or a subclass of [mtrl_transfer.agents.MultiTaskPolicy][].
        env: vector environment in which sub-environment ``t`` is the task ``task_name`` and observations end with the
            one-hot.
        learning_rate: step size of Adam for actor, critics and temperatures: a number or a function of the remaining
            progress.
        buffer_size: replay capacity, in transitions over all tasks.
        learning_starts: transitions of random play before the first update.
        batch_size: transitions of one update over all tasks, a multiple of their number; None: 128 per task.
        tau: share of the critics that moves into their targets.
        gamma: discount per step.
        train_freq: vector steps between trainings.
        gradient_steps: updates per training; -1: one for each transition since the last training.
        n_steps: steps of the return in the TD target; its entropy counts at the last step only, as in SB3.
        ent_coef: temperature of every task: a fixed number, or ``auto`` or ``auto_0.1``: trained for each task,
            starting at 1 or 0.1.
        target_update_interval: updates between moves of the target critics.
        target_entropy: entropy that each task's temperature aims at, in nats; ``auto``: minus the number of the task's
            action dimensions.
        policy_kwargs: arguments of [mtrl_transfer.agents.MultiTaskPolicy][].
        stats_window_size: episodes per task over which the training statistics are averaged.
        tensorboard_log: folder for TensorBoard events; None: none.
        verbose: 0 silent, 1 info, 2 debug.
        seed: fixes the run bit for bit on a CPU.
        device: where the agent computes: ``cpu``, ``cuda`` (``cuda:1``), or ``auto``.
        combiner: a name in ``mtrl_transfer.COMBINERS``; a combiner object, which is copied for the critic and for the
            actor; or a dict ``{"critic": ..., "actor": ...}`` of names, or of dicts with a ``name`` and arguments.
        combiner_kwargs: arguments for a named combiner; the keys ``critic`` and ``actor`` may hold dicts for one of
            them.
        max_grad_norm: limit to which the gradient norm of the critics and of the actor is clipped; None: no clipping.
        max_nonfinite: updates in a row in which a task's loss or gradient may be not finite, and the task is left out,
            before training stops with ``NotFinite``; checked when figures are logged.
        reward_scaling: ``max_return`` scales each task's rewards when replay is sampled, so that its largest discounted
            return seen is 10; ``max_reward``, so that its largest reward seen would be worth 10 if it went on forever;
            None: raw rewards.
        clip_targets: keep each task's TD targets between the returns of its smallest and its largest reward seen,
            received forever.
        exploration_correlation: correlation of successive exploration noise, warm-up included; 0: SB3's independent
            noise.
        overlap: update while the environments take their next step, which gains time where they step in worker
            processes (``make_vec_env(..., own_process=False)``). Actions are then chosen by the policy before the
            update, so results differ.
        cuda_graph: replay updates from CUDA graphs; needs a CUDA device and combiners that can be recorded. Updates
            that are measured are taken normally.
        compile: take plain gradients and TD targets through ``torch.compile``, which takes half a minute in the first
            update and needs a C++ compiler; ``auto``: on a CPU with a compiler, for networks of SiLU units that are
            small enough to gain by it. Results differ in their last bits.

    Raises:
        TypeError: for an argument that MTSAC does not have; it says what to use instead.
        ValueError: for an argument out of range, an unknown combiner, a ``batch_size`` that the number of tasks does
            not divide, or an environment without named tasks.
    """

    arguments: ClassVar[type[Section]]
    """The constructor's signature as a section: names, types, ranges, defaults, meanings."""
    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = {"MultiTaskPolicy": MultiTaskPolicy}
    policy: MultiTaskPolicy
    policy_kwargs: dict[str, Any]
    task_spaces: TaskSpaces
    replay_buffer: MultiTaskReplayBuffer

    def __init__(
        self,
        policy: str | type[MultiTaskPolicy],
        env: GymEnv | None,
        learning_rate: Rate = 3e-4,
        buffer_size: Count = 1_000_000,
        learning_starts: Annotated[Int, Field(ge=0)] = 100,
        batch_size: Count | None = None,
        tau: Fraction = 0.005,
        gamma: Annotated[Float, Field(ge=0, le=1)] = 0.99,
        train_freq: Count | tuple[Count, Literal["step", "episode"]] = 1,
        gradient_steps: Annotated[Int, Field(ge=-1)] = 1,
        *,
        n_steps: Count = 1,
        ent_coef: EntCoef = "auto",
        target_update_interval: Count = 1,
        target_entropy: Float | Literal["auto"] = "auto",
        policy_kwargs: dict[str, Any] | None = None,
        stats_window_size: Count = 100,
        tensorboard_log: PathText | None = None,
        verbose: int = 0,
        seed: Seed | None = None,
        device: torch.device | str = "auto",
        combiner: Annotated[
            str | Settings | Combiner,
            explained("should be a name, a mtrl_transfer.Combiner, or a dict of one for each role"),
        ] = "transference",
        combiner_kwargs: Settings | None = None,
        max_grad_norm: Positive | None = 1.0,
        max_nonfinite: Count = 100,
        reward_scaling: Literal["max_return", "max_reward"] | None = None,
        clip_targets: bool = False,
        exploration_correlation: Annotated[Float, Field(ge=0, lt=1)] = 0.0,
        overlap: bool = False,
        cuda_graph: bool = False,
        compile: bool | Literal["auto"] = False,
        _init_setup_model: bool = True,
        **unknown: Any,
    ) -> None:
        refuse_unknown(unknown, self.arguments.model_fields)
        if not isinstance(policy, str) and not (isinstance(policy, type) and issubclass(policy, MultiTaskPolicy)):
            raise _wrong_policy(policy)
        super().__init__(
            policy,
            None if env is None else self._wrap_env(env),
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
            device=usable_device(device),
            support_multi_env=True,
            monitor_wrapper=False,
            seed=seed,
            sde_support=False,
            supported_action_spaces=(spaces.Box,),
        )
        self.batch_size: int | None = batch_size
        self.ent_coef, self.target_entropy = ent_coef, target_entropy
        self.target_update_interval = target_update_interval
        self.combiner, self.combiner_kwargs = combiner, combiner_kwargs
        self.max_grad_norm, self.max_nonfinite = max_grad_norm, max_nonfinite
        self.reward_scaling, self.clip_targets = reward_scaling, clip_targets
        self.exploration_correlation = exploration_correlation
        self.overlap, self.updates_due, self.cuda_graph = overlap, 0, cuda_graph
        self.compile = compile
        self.n_tasks, self.task_names = 0, list[str]()  # until an environment or an archive names them
        if _init_setup_model:
            self._setup_model()

    # --- set-up -------------------------------------------------------------------------------------------------------

    @staticmethod
    def _wrap_env(env: GymEnv, verbose: int = 0, monitor_wrapper: bool = True) -> VecEnv:
        """Refuse what SB3 would wrap, a single environment, and one without named tasks."""
        task_names_of(env)
        return StoredWithoutPickle._wrap_env(env, verbose, monitor_wrapper)

    def _get_policy_from_name(self, policy_name: str) -> type[BasePolicy]:
        if policy_name not in self.policy_aliases:
            raise _wrong_policy(policy_name)
        return self.policy_aliases[policy_name]

    def _setup_model(self) -> None:
        self._identify_tasks()
        check_arguments(self)
        self._setup_lr_schedule()
        self.set_random_seed(self.seed)
        self._convert_train_freq()
        seeds = iter(np.random.SeedSequence(self.seed).generate_state(9).tolist())
        tasks, device = self.n_tasks, self.device
        self.replay_buffer = MultiTaskReplayBuffer(
            self.buffer_size,
            self.observation_space,
            self.action_space,
            device,
            tasks,
            next(seeds),
            self.gamma,
            self.n_steps,
        )
        self.replay_buffer.task_names = self.task_names
        shapes = self.task_spaces.shapes
        known: dict[str, Any] = {"n_tasks": tasks} if shapes is None else {"n_tasks": tasks, "shapes": shapes}
        self.policy = self.policy_class(
            self.observation_space, self.action_space, self.lr_schedule, **known, **self.policy_kwargs
        ).to(device)
        mask = self.policy.actor.action_mask
        self._action_mask = None if mask is None else mask.squeeze(1).cpu().numpy()
        auto, own = self.target_entropy == "auto", self.task_spaces.own
        targets = [-float(len(one.action_space.low)) if auto else float(self.target_entropy) for one in own]
        self.temperatures = Temperatures(self.ent_coef, targets, self.lr_schedule(1), device)
        self.rewards = Rewards(self.reward_scaling, self.clip_targets, tasks, self.gamma, device)
        self.minibatches = Minibatches(
            self.replay_buffer, lambda: self._vec_normalize_env, self.policy, self.temperatures, self.rewards
        )
        combiners = role_combiners(self.combiner, self.combiner_kwargs, seeds)
        self.learner = Learner(self.policy, self.temperatures, self.minibatches, combiners, self.max_grad_norm, seeds)
        self.exploration_noise = CorrelatedNoise.of(
            (tasks, *self.action_space.shape), self.exploration_correlation, next(seeds)
        )
        assert self.batch_size is not None
        if self.compile == "auto":  # from here on it is what was chosen, so that a continued run keeps it
            self.compile = compiling_pays(self.policy, self.batch_size)
        self.measuring: MeasureTransference = NOTHING
        self._episodes = EpisodeWindows(self.task_names, self._stats_window_size)
        self.timing = {"environment": 0.0, "update": 0.0, "transference": 0.0, "logging": 0.0}

    def _identify_tasks(self) -> None:
        """Read the tasks off the environment; on load, compare them with those the agent was trained on."""
        if self.env is None:
            return
        names = task_names_of(self.env)
        if MEAN in names:
            raise ValueError(f"a task is called {MEAN!r}, as the figures of the mean over tasks are: rename it")
        check_same_tasks(self.task_names or names, names)
        spaces_found = self._checked_spaces(self.env, names)
        self.task_names, self.n_tasks, self.task_spaces = names, len(names), spaces_found

    def _checked_spaces(self, env: VecEnv, names: list[str]) -> TaskSpaces:
        """The tasks' spaces in an environment, compared with those that the agent was trained on."""
        found = TaskSpaces.of(env, names)
        if self.task_names:
            self.task_spaces.check_same(found)
        check_training_normalization(env, self._needs_raw_rewards(), found.shapes is None)
        return found

    def _needs_raw_rewards(self) -> str | None:
        return "reward_scaling" if self.reward_scaling else "clip_targets" if self.clip_targets else None

    def set_env(self, env: GymEnv, force_reset: bool = True) -> None:
        """Set the environment, as in SB3.

        Raises:
            ValueError: if the environment's tasks are others, or in another order, or if its ``VecNormalize`` does not
                suit the agent.
        """
        wrapped = self._wrap_env(env, self.verbose)
        check_same_tasks(self.task_names, task_names_of(wrapped))
        self._checked_spaces(wrapped, self.task_names)
        super().set_env(wrapped, force_reset)

    def predict(
        self,
        observation: np.ndarray | dict[str, np.ndarray],
        state: tuple[np.ndarray, ...] | None = None,
        episode_start: np.ndarray | None = None,
        deterministic: bool = False,
        task: str | None = None,
    ) -> tuple[np.ndarray, tuple[np.ndarray, ...] | None]:
        """Actions for observations, as in SB3: rows ``[R, D + T]`` as the environment gives them, one-hot last.

        Args:
            observation: one or a batch of them.
            state: of SB3's signature.
            episode_start: of SB3's signature.
            deterministic: take the mean action instead of a sample.
            task: name of a task whose own observations ``[R, D_t]`` are given, without one-hot and padding; its own
                actions ``[R, A_t]`` within its own bounds are returned.

        Raises:
            ValueError: for an unknown task, observations of another width, or a one-hot that names no task.
        """
        if task is None:
            return super().predict(observation, state, episode_start, deterministic)
        by_rows = lambda rows: self.predict(rows, deterministic=deterministic)[0]  # noqa: E731
        return self.task_spaces.predict(task, observation, by_rows), state

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
            self.replay_buffer.end_episodes()
            self.rewards.end_episodes()
        result = super()._setup_learn(total_timesteps, callback, reset_num_timesteps, *args, **kwargs)
        check_one_hot(self._last_original_obs if self._vec_normalize_env else self._last_obs, self.n_tasks)
        assert self.env is not None
        assert self.batch_size is not None
        self._stepping = WorkMeanwhile(self.env, self._catch_up) if self.overlap else self.env
        self.learner.record(self.cuda_graph)
        self.learner.compile(self.batch_size // self.n_tasks if self.compile else None)
        self.measuring = NOTHING  # until a callback says otherwise
        return result

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
        actions, scaled = self._drawn_action(learning_starts, action_noise, n_envs)
        if self._action_mask is None:
            return actions, scaled
        scaled = scaled * self._action_mask
        return self.policy.unscale_action(scaled), scaled

    def _drawn_action(self, learning_starts: int, action_noise: Any, n_envs: int) -> tuple[np.ndarray, np.ndarray]:
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
        self.rewards.update(reward, dones, terminations(dones, infos))

    # --- training -----------------------------------------------------------------------------------------------------

    def train(self, gradient_steps: int, batch_size: int) -> None:
        """Take ``gradient_steps`` updates on ``batch_size`` rows each, as SB3 asks for them.

        With ``overlap`` they are taken during the next step of the environments.
        """
        self.updates_due += gradient_steps
        if not self.overlap:
            self._catch_up(batch_size)

    def _catch_up(self, batch_size: int | None = None) -> None:
        """Take the updates that are due; none without replay, which a loaded agent may not have."""
        due, self.updates_due = self.updates_due, 0
        if due and self.replay_buffer.size():
            size = self.batch_size if batch_size is None else batch_size
            assert size is not None
            self._take_updates(due, size)

    def _take_updates(self, gradient_steps: int, batch_size: int) -> None:
        start = time.perf_counter()
        self.policy.set_training_mode(True)
        rate = self.lr_schedule(self._current_progress_remaining)
        set_rate = set_learning_rate if self.learner.records else update_learning_rate
        for optimizer in self._optimizers().values():
            set_rate(optimizer, rate)
        if self.policy.standardizes and self._n_updates == 0:
            rows = STANDARDIZING_ROWS * self.n_tasks
            self.policy.standardize(self.replay_buffer.sample(rows, self._vec_normalize_env).observations)
        before = self.learner.transference_seconds
        for _ in range(gradient_steps):
            tau = self.tau if self._n_updates % self.target_update_interval == 0 else 0.0
            self.learner.take(self._n_updates, batch_size, tau, self.measuring)
            self._n_updates += 1
        transference = self.learner.transference_seconds - before
        self.timing["transference"] += transference
        self.timing["update"] += time.perf_counter() - start - transference
        record_updates(self)

    # --- reports ------------------------------------------------------------------------------------------------------

    @property
    def updates(self) -> dict[str, Update[Any]]:
        """The two networks' updates by role."""
        return self.learner.updates

    def kept_share(self) -> dict[str, np.ndarray]:
        """Share ``[T]`` of all updates so far in which each task's gradient had a part in the trunk's, by role."""
        shares = {role: update.kept / update.n_combined.clamp(min=1) for role, update in self.updates.items()}
        return {role: share.cpu().numpy() for role, share in shares.items()}

    def prediction_correlation(self) -> dict[str, float]:
        """Pearson correlation of predicted transference with the real step's, by role; nan where never measured."""
        return {role: update.measurement.correlation.overall() for role, update in self.updates.items()}

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

    def _optimizers(self) -> dict[str, torch.optim.Optimizer]:
        names = {
            "policy.actor_optimizer": self.policy.actor_optimizer,
            "policy.critic_optimizer": self.policy.critic_optimizer,
            "temperatures.optimizer": self.temperatures.optimizer,
        }
        return {name: optimizer for name, optimizer in names.items() if optimizer is not None}

    def _get_torch_save_params(self) -> tuple[list[str], list[str]]:
        return ["policy", *self._optimizers()], ["temperatures.log_alpha"]


def _wrong_policy(policy: object) -> ValueError:
    return ValueError(f"policy={policy!r} should be 'MultiTaskPolicy' or a subclass of MultiTaskPolicy")


MTSAC.arguments = section_of(MTSAC, without=("policy", "env"))
