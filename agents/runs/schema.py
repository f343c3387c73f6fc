"""What a config may hold: one small frozen model per concern.

Every field's description says what it is, its unit and its default's reason; unknown keys are errors.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field


def _not_a_boolean(value: Any) -> Any:
    """Python counts ``true`` as 1; a config that says ``seed: true`` is a mistake."""
    if isinstance(value, bool):
        raise ValueError("should be a number, not true or false")
    return value


Int = Annotated[int, BeforeValidator(_not_a_boolean)]
Float = Annotated[float, BeforeValidator(_not_a_boolean), Field(allow_inf_nan=False)]
Count = Annotated[Int, Field(ge=1)]
Widths = Annotated[tuple[Count, ...], Field(min_length=1)]
Seed = Annotated[Int, Field(ge=0, lt=2**32)]
Positive = Annotated[Float, Field(gt=0)]
Fraction = Annotated[Float, Field(gt=0, le=1)]


class Section(BaseModel):
    """A mapping in a config: frozen, and no unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class EnvConfig(Section):
    """The tasks. What is left out takes the suite's own default; ``Point-N`` has none of the Meta-World settings."""

    id: str | Annotated[tuple[str, ...], Field(min_length=1)] = Field(
        description='"MT10", "Point-8" (any number of tasks) or a list of Meta-World task names'
    )
    n_procs: Count = Field(1, description="worker processes that share the tasks")
    horizon: Count | None = Field(None, description="Meta-World: steps of an episode")
    reward_version: str | None = Field(None, description="Meta-World: v1 or v2")
    n_goals: Count | None = Field(None, description="Meta-World: training goals of each task")
    goal_seed: Seed | None = Field(None, description="Meta-World: which goals are drawn; part of the protocol")


class NetConfig(Section):
    """The networks of actor and critics."""

    hidden: Widths = Field((400, 400, 400), description="widths of the shared trunk")
    critic_hidden: Widths | None = Field(None, description="widths of the critics' trunks; null: as the actor's")
    activation: str = Field("relu", description="activation, by name")
    layer_norm: bool = Field(False, description="LayerNorm before each activation")
    one_hot_in_trunk: bool = Field(False, description="whether the trunk, too, is told the task")


class AgentConfig(Section):
    """MTSAC's own settings, by stable-baselines3's names."""

    learning_rate: Positive = Field(3e-4, description="Adam's step size, for actor, critics and temperatures")
    buffer_size: Count = Field(1_000_000, description="replay capacity, in transitions over all tasks")
    learning_starts: Annotated[Int, Field(ge=0)] = Field(100, description="transitions of random play before learning")
    batch_size: Count | None = Field(None, description="transitions of one update over all tasks; null: 128 per task")
    tau: Fraction = Field(0.005, description="share of the critics that moves into their targets per update")
    gamma: Annotated[Float, Field(ge=0, le=1)] = Field(0.99, description="discount")
    train_freq: Count = Field(1, description="vector steps between updates")
    gradient_steps: Count = Field(1, description="updates at a time")
    max_grad_norm: Positive | None = Field(1.0, description="clipping of the gradient's norm; null: none")
    measure_every: Count | None = Field(
        None, description="measure transference every so many updates whatever the combiner; null: only as it needs"
    )
    reward_scaling: Literal["max_return"] | None = Field(
        None, description="max_return: per task, such that the largest discounted return seen is 10"
    )
    target_entropy: Float | Literal["auto"] = Field("auto", description="auto: minus the number of action dimensions")
    initial_alpha: Positive = Field(1.0, description="every task's temperature at the start")
    stats_window_size: Count = Field(100, description="episodes over which the training statistics are averaged")
    device: str = Field("auto", description="cpu, cuda, or auto")
    net: NetConfig = NetConfig()


class CombinerConfig(Section):
    """How task gradients become one. Naming another combiner than the base file's drops the base's settings."""

    name: str = Field("transference", description="mean, pcgrad, transference, ...")
    kwargs: dict[str, Any] = Field({}, description="the combiner's own settings")
    critic: dict[str, Any] = Field({}, description="settings that differ for the critic")
    actor: dict[str, Any] = Field({}, description="settings that differ for the actor")


class EvaluationConfig(Section):
    """The evaluation protocol: environments of its own, deterministic policy, success at any step."""

    every: Count | None = Field(50_000, description="transitions between evaluations in training; null: none")
    n_goals: Count = Field(5, description="goals (one episode each) per task of an evaluation in training")
    final_n_goals: Count = Field(50, description="goals per task of the final evaluation")
    goals: Literal["train", "unseen"] = Field("train", description="the training goals, or others")
    seed: Seed = Field(10_000, description="seed of the evaluation environments")


class CheckpointConfig(Section):
    """What allows a run to be continued."""

    every: Count | None = Field(100_000, description="transitions between checkpoints; null: only when interrupted")
    keep: Count = Field(1, description="how many of the newest are kept")


class LogConfig(Section):
    """What is written and shown while training."""

    every: Count = Field(5_000, description="transitions between logged steps")
    progress: bool = Field(True, description="show a progress bar")


class RunConfig(Section):
    """One training run. ``base: FILE`` in a file, relative to it, names the file that it amends."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=100)] = Field(
        description="part of the run folder's name: letters, digits, dot, dash, underscore"
    )
    seed: Seed = Field(0, description="of parameters, exploration, replay and training environments")
    total_timesteps: Count = Field(description="budget in transitions")
    matmul_precision: Literal["highest", "high", "medium"] = Field(
        "highest", description="torch.set_float32_matmul_precision; may permit tf32 or bf16 products"
    )
    threads: Count | None = Field(None, description="threads of torch; null: torch's own choice")
    run_dir: str | None = Field(None, description="the run folder; null: runs/<date-time>_<name>_s<seed>")
    resume: bool = Field(False, description="continue the run in run_dir from its newest checkpoint")
    env: EnvConfig
    agent: AgentConfig = AgentConfig()
    combiner: CombinerConfig = CombinerConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    log: LogConfig = LogConfig()
