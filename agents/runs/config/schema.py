"""What a config may hold: one small frozen model per concern.

Every field's description says what it is, its unit and its default's reason; unknown keys are errors.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field


def _not_a_boolean(value: Any) -> Any:
    """Python counts ``true`` as 1; a config that says ``seed: true`` is a mistake."""
    if isinstance(value, bool):
        raise ValueError("should be a number, not true or false")
    return value


def fit_for_a_folder(name: str) -> str:
    """Refuse a name that a folder can't have."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", name):
        raise ValueError("should be letters, digits, dots, dashes and underscores, at most 100: a folder is named so")
    return name


Int = Annotated[int, BeforeValidator(_not_a_boolean)]
Float = Annotated[float, BeforeValidator(_not_a_boolean), Field(allow_inf_nan=False)]
Count = Annotated[Int, Field(ge=1)]
Widths = Annotated[tuple[Count, ...], Field(min_length=1)]
Seed = Annotated[Int, Field(ge=0, lt=2**32)]
Positive = Annotated[Float, Field(gt=0)]
Fraction = Annotated[Float, Field(gt=0, le=1)]


class Section(BaseModel):
    """A mapping in a config: frozen, and no unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class EnvConfig(Section):
    """The tasks. What is left out takes the suite's own default; ``Point-N`` has none of the Meta-World settings."""

    id: str | Annotated[tuple[str, ...], Field(min_length=1)]
    """A suite, such as ``MT10``, ``Point-8`` or ``Point-8-rotated``, or a list of Meta-World task names."""
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


class NetConfig(Section):
    """The networks of actor and critics."""

    hidden: Widths = (400, 400, 400)
    """Widths of the shared trunk."""
    critic_hidden: Widths | None = None
    """Widths of the critics' trunks; null: as the actor's."""
    activation: str = "relu"
    """Activation, by name."""
    layer_norm: bool = False
    """LayerNorm before each activation."""
    one_hot_in_trunk: bool = False
    """Whether the trunk, too, is told the task."""
    standardize_inputs: bool = False
    """Whether observations are centred and divided by their spread over all tasks, as found in the random play of
    ``learning_starts``. Meta-World's goals and objects differ by centimetres, which networks else learn to see late."""
    alignment: Literal["alternating", "joint"] | None = None
    """A linear map of each task's input before the trunk, trained in turn with it or together; null: none."""
    alignment_period: Count = 1_000
    """Updates of a turn."""


class AgentConfig(Section):
    """MTSAC's own settings, by stable-baselines3's names."""

    learning_rate: Positive = 3e-4
    """Adam's step size, for actor, critics and temperatures."""
    final_learning_rate: Positive | None = None
    """The step size falls linearly to this one at the end of the budget; null: it stays."""
    buffer_size: Count = 1_000_000
    """Replay capacity, in transitions over all tasks."""
    learning_starts: Annotated[Int, Field(ge=0)] = 100
    """Transitions of random play before learning."""
    batch_size: Count | None = None
    """Transitions of one update over all tasks; null: 128 per task."""
    tau: Fraction = 0.005
    """Share of the critics that moves into their targets per update."""
    gamma: Annotated[Float, Field(ge=0, le=1)] = 0.99
    """Discount per step."""
    n_steps: Count = 1
    """Steps of the return in the critics' target."""
    actor_tau: Fraction | None = None
    """Play for evaluation is by a running average of the actor, into which such a share of it moves per update; null:
    by the actor itself."""
    train_freq: Count = 1
    """Vector steps between updates."""
    gradient_steps: Count = 1
    """Updates at a time."""
    max_grad_norm: Positive | None = 1.0
    """Clipping of the gradient's norm; null: none."""
    max_nonfinite: Count = 100
    """Updates in a row in which a task's loss or gradient may be not finite, and is left out, before training stops."""
    measure_every: Count | None = None
    """Measure transference every so many updates whatever the combiner; null: only as it needs."""
    affinity_every: Count | None = None
    """Measure pairwise transference alone every so many updates, for choosing groups; null: never."""
    affinity_rows: Annotated[Int, Field(ge=2)] | None = None
    """Rows of each task for that; null: a sixteenth of the update's."""
    reward_scaling: Literal["max_return", "max_reward"] | None = None
    """Scales rewards per task, such that the largest discounted return seen is 10 (``max_return``), or that the largest
    reward seen would be worth 10 if it went on forever (``max_reward``)."""
    clip_targets: bool = False
    """Keeps the critics' targets between the returns of a task's smallest and largest reward, received forever."""
    reweighting_rank: Count | None = None
    """Weigh tasks' losses by what of their values lies in so many shared directions (below the tasks); null: not."""
    reweighting_every: Count = 1_000
    """Updates between computations of these weights."""
    target_entropy: Float | Literal["auto"] = "auto"
    """Entropy that each task's temperature aims at, in nats; ``auto``: minus the number of action dimensions."""
    initial_alpha: Positive = 1.0
    """Every task's temperature at the start."""
    exploration_correlation: Annotated[Float, Field(ge=0, lt=1)] = 0.0
    """Correlation of successive exploration noise, warm-up included; 0: independent."""
    overlap: bool = False
    """Update while the environments take their next step in worker processes (``env.n_procs`` of them, also 1). Actions
    are then chosen by the policy before the update, so results differ; Point tasks gain nothing."""
    cuda_graph: bool = False
    """Replay updates from CUDA graphs; needs a CUDA device, and a combiner that can be recorded."""
    stats_window_size: Count = 100
    """Episodes over which the training statistics are averaged."""
    device: str = "auto"
    """Where the agent lives: ``cpu``, ``cuda`` (``cuda:1``), or ``auto``."""
    net: NetConfig = NetConfig()


class CombinerConfig(Section):
    """How task gradients become one. Naming another combiner than the base file's drops the base's settings."""

    name: str = "transference"
    """By name: ``mean``, ``pcgrad``, ``transference`` or another of ``mtrl_transfer.COMBINERS``."""
    kwargs: dict[str, Any] = {}
    """The combiner's own settings."""
    critic: dict[str, Any] = {}
    """Settings that differ for the critic."""
    actor: dict[str, Any] = {}
    """Settings that differ for the actor."""


class EvaluationConfig(Section):
    """The evaluation protocol: environments of its own, deterministic policy, success at any step."""

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
    """What allows a run to be continued."""

    every: Count | None = 100_000
    """Transitions between checkpoints; null: only at the end and when stopped."""
    keep: Count = 1
    """How many of the newest are kept."""


class LogConfig(Section):
    """What is written and shown while training."""

    every: Count = 5_000
    """Transitions between logged steps."""
    figures_every: Count | None = 50_000
    """Transitions between TensorBoard's figures of transference; null: none."""
    videos_every: Count | None = None
    """Transitions between clips of each task in TensorBoard; null: none. Drawing MT10 takes about a minute of CPU."""
    record_every: Count | None = 1_000
    """Updates between records of weights, Gramians, choices and pairwise transference in one file; null: none."""
    progress: bool = True
    """Show an estimate of the time beforehand, and a progress bar."""


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
    threads: Count | None = None
    """Threads of torch; null: torch's own choice."""
    run_dir: str | None = None
    """The run folder; null: runs/<date-time>_<name>_s<seed>."""
    resume: bool = False
    """Continue the run in run_dir from its newest checkpoint."""
    env: EnvConfig
    agent: AgentConfig = AgentConfig()
    combiner: CombinerConfig = CombinerConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    log: LogConfig = LogConfig()
