"""The keys of a config: one small frozen model per concern.

Those of the agent, its policy and its callbacks are the arguments of their classes. Every field has a description;
unknown keys are errors.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from mtrl_transfer.agents.declarations import (
    Count,
    Positive,
    Section,
    Seed,
    Settings,
    Text,
    explained,
    section_of,
)
from mtrl_transfer.agents.monitoring.measuring import MeasureTransference
from mtrl_transfer.agents.mtsac.arguments import HINTS
from mtrl_transfer.agents.mtsac.mtsac import MTSAC
from mtrl_transfer.agents.mtsac.policies import POLICY_ARGUMENTS
from mtrl_transfer.agents.mtsac.resets import ResetNetworks
from mtrl_transfer.agents.mtsac.task_weighting import ReweightTasks

ELSEWHERE = ("combiner", "combiner_kwargs", "policy_kwargs", "device", "seed", "tensorboard_log", "verbose")
"""Arguments of MTSAC that a config sets in other sections, or not at all."""


def fit_for_a_folder(name: str) -> str:
    """Refuse a name that a folder can't have."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", name):
        raise ValueError("should be letters, digits, dots, dashes and underscores, at most 100: a folder is named so")
    return name


class EnvConfig(Section):
    """The tasks. What is left out takes the suite's own default; other suites have none of the Meta-World settings."""

    id: str | Annotated[tuple[str, ...], Field(min_length=1)]
    """A suite, such as ``MT10``, ``Point-8``, ``pendulums`` or ``locomotion``, a list of Meta-World task names, or
    ``module.NAME`` of a dict of your own tasks."""
    n_procs: Count = 1
    """Processes that share the tasks; all but one are workers."""
    worker_timeout: Positive | None = 60.0
    """Seconds without an answer to any call after which a worker is replaced; null: never. A step takes
    milliseconds, but a suspended or overloaded machine may need longer."""
    horizon: Count | None = None
    """Meta-World: steps of an episode."""
    training_horizon: Count | None = None
    """Meta-World: steps of a training episode, where they differ from evaluation's; null: as ``horizon``."""
    reward_version: str | None = None
    """Meta-World: v1 or v2."""
    n_goals: Count | None = None
    """Meta-World: training goals of each task."""
    goal_seed: Seed | None = None
    """Meta-World: decides which goals there are; part of the protocol."""


class PolicyConfig(POLICY_ARGUMENTS):  # type: ignore[misc,valid-type]
    """The networks of actor and critics: ``policy_kwargs`` of MTSAC, the arguments of ``MultiTaskPolicy``."""


class AgentConfig(section_of(MTSAC, ELSEWHERE)):  # type: ignore[misc]
    """The arguments of MTSAC, by stable-baselines3's names."""

    hints: ClassVar[Mapping[str, str]] = HINTS | {
        "measure_every": "use measure.every",
        "affinity_every": "use measure.affinity_every",
        "affinity_rows": "use measure.affinity_rows",
        "reweighting_rank": "use reweighting.rank",
        "reweighting_every": "use reweighting.every",
        "initial_alpha": "use ent_coef=auto_0.1, with your value",
        "actor_tau": "use agent.policy_kwargs.actor_tau",
        "net": "use agent.policy_kwargs, where hidden is called net_arch, critic_hidden net_arch.qf (beside "
        "net_arch.pi), and activation activation_fn",
    }

    learning_rate: Positive = 3e-4
    """Step size of Adam for actor, critics and temperatures."""
    final_learning_rate: Positive | None = None
    """The step size falls linearly to this one at the end of the budget; null: it stays."""
    device: str = "auto"
    """Where the agent computes: ``cpu``, ``cuda`` (``cuda:1``), or ``auto``."""
    policy_kwargs: PolicyConfig = PolicyConfig()


def with_name(settings: object) -> object:
    """Return the settings of a combiner or a callback that is given by its name alone."""
    return {"name": settings} if isinstance(settings, str) else settings


class CombinerConfig(Section):
    """Combination of the task gradients. Naming another combiner than the base file's drops the base's settings."""

    name: str = "transference"
    """By name: ``mean``, ``pcgrad``, ``transference`` or another of ``mtrl_transfer.COMBINERS``."""
    kwargs: Settings = {}  # noqa: RUF012 - frozen
    """The combiner's own settings."""
    critic: Annotated[Settings, BeforeValidator(with_name)] = {}  # noqa: RUF012
    """Settings that differ for the critic; or another combiner by its ``name``."""
    actor: Annotated[Settings, BeforeValidator(with_name)] = {}  # noqa: RUF012
    """Settings that differ for the actor; or another combiner by its ``name``."""

    @property
    def label(self) -> str:
        """The combiner's name; both roles', where they differ."""
        names = [section.get("name", self.name) for section in (self.critic, self.actor)]
        return "+".join(dict.fromkeys(names))


class EvaluationConfig(Section):
    """The evaluation protocol: separate environments, deterministic policy, success at any step."""

    every: Count | None = 50_000
    """Transitions between evaluations in training; null: none."""
    n_goals: Count = 5
    """Goals (one episode each) per task of an evaluation in training."""
    final_n_goals: Count = 50
    """Goals per task of the final evaluation."""
    goals: Literal["train", "unseen"] = "train"
    """The training goals, or others that it never trains on (Meta-World only)."""
    seed: Seed = 10_000
    """Seed of the evaluation environments."""


class CheckpointConfig(Section):
    """Checkpoints, from which a run can be continued."""

    every: Count | None = 100_000
    """Transitions between checkpoints; null: only at the end and when stopped."""
    keep: Count = 1
    """Number of newest checkpoints that are kept."""


class MeasureConfig(section_of(MeasureTransference)):  # type: ignore[misc]
    """Measurement of transference, whatever the combiner; it changes no run."""


class ResetsConfig(section_of(ResetNetworks)):  # type: ignore[misc]
    """Networks made anew in the course of the run, replay kept."""

    at: tuple[Count, ...] = ()
    """Transitions after which the networks are reset."""


class ReweightingConfig(section_of(ReweightTasks)):  # type: ignore[misc]
    """Weights of the tasks' losses by what their value functions share (Wu, Zhang, Ré, arXiv 2005.00944)."""

    rank: Count | None = None
    """Directions that count as shared, below the number of tasks; null: all tasks weigh 1."""


class LogConfig(Section):
    """Logs and progress while training."""

    every: Count = 5_000
    """Transitions between logged steps."""
    figures_every: Count | None = 50_000
    """Transitions between TensorBoard's figures of transference; null: none."""
    videos_every: Count | None = None
    """Transitions between clips of each task in TensorBoard; null: none. Drawing MT10 takes about a minute of CPU."""
    record_every: Count | None = 1_000
    """Updates between records of weights, Gramians, choices and pairwise transference in one file; null: none."""
    wandb: Text | None = None
    """Project of Weights & Biases that gets config and scalars (needs the extra ``wandb``); null: none. With
    WANDB_MODE=offline the run stays on disk."""
    progress: bool = True
    """Show an estimate of the time beforehand, and a progress bar."""


class CallbackConfig(Section):
    """A callback of stable-baselines3's form, by its class."""

    name: Annotated[str, Field(pattern=r"^[\w.]+:[\w.]+$")]
    """The class as ``module:Class``."""
    kwargs: Settings = {}  # noqa: RUF012 - frozen
    """Arguments of the class."""


class RunConfig(Section):
    """One training run. ``base: FILE`` in a file, relative to it, names the file that it amends."""

    name: Annotated[str, AfterValidator(fit_for_a_folder)]
    """Part of the run folder's name: letters, digits, dot, dash, underscore."""
    seed: Seed = 0
    """Seed of parameters, exploration, replay and training environments."""
    total_timesteps: Count
    """Budget in transitions."""
    matmul_precision: Literal["highest", "high", "medium"] = "highest"
    """For ``torch.set_float32_matmul_precision``; below ``highest`` it may permit tf32 or bf16 products."""
    threads: Annotated[Count, Field(le=1024)] | None = None
    """Threads of torch; null: torch's own choice."""
    run_dir: Text | None = None
    """The run folder; null: runs/<date-time>_<name>_s<seed>."""
    resume: bool = False
    """Continue the run in run_dir from its newest checkpoint."""
    begin_from: Annotated[Text | None, Field(alias="from")] = None
    """A run folder or an agent's file: begin with what it has learned of the tasks that this run has too."""
    env: EnvConfig
    agent: AgentConfig = AgentConfig()
    combiner: CombinerConfig = CombinerConfig()
    measure: MeasureConfig = MeasureConfig()
    resets: ResetsConfig = ResetsConfig()
    reweighting: ReweightingConfig = ReweightingConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    log: LogConfig = LogConfig()
    callbacks: Annotated[
        tuple[Annotated[CallbackConfig, BeforeValidator(with_name)], ...],
        explained("should be a list of module:Class or {name: module:Class, kwargs: {...}}"),
    ] = ()
    """Callbacks of your own: ``module:Class``, or ``{name: module:Class, kwargs: {...}}`` with its arguments."""

    def model_dump(self, **options: Any) -> dict[str, Any]:
        """The values by the keys of a file."""
        return super().model_dump(by_alias=True, **options)
