"""An interrupted run continues bit for bit as if it had not been interrupted."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from pathlib import Path

import pytest
from same_runs import assert_same_run, events
from short_runs import Run, arguments, short_run

from mtrl_transfer import COMBINERS
from mtrl_transfer.agents.runs import cli, estimate
from mtrl_transfer.agents.runs.stopping import StopBetweenUpdates

# Replay overflows after 150 vector steps; records and figures at odds with checkpoints and episodes (of 50).
POINT = (
    "agent.buffer_size=450",
    "measure.every=7",
    "measure.affinity_every=3",
    "agent.reward_scaling=max_return",
    "agent.n_steps=3",
    "agent.clip_targets=true",
    "agent.policy_kwargs.actor_tau=0.1",
    "agent.policy_kwargs.standardize_inputs=true",
    "agent.exploration_correlation=0.8",
    "agent.final_learning_rate=1e-4",
    "resets.at=[201,390]",  # the second together with a checkpoint
    "resets.updates=5",
    "log.record_every=11",
    "log.figures_every=250",
    "total_timesteps=600",  # 200 vector steps
    "checkpoint.every=130",
    "combiner.kwargs.every=4",
    "combiner.kwargs.measure.rows=4",
    "evaluation.final_n_goals=2",
)


@pytest.fixture(scope="module", autouse=True)
def _quick_estimate():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(estimate, "ENOUGH_SECONDS", 0.02)
        yield


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return short_run(tmp_path_factory.mktemp("whole") / "a", *POINT)


def interrupted_at(steps: list[int], folder: Path, *overrides: str, resumed: Sequence[str] = ()) -> Run:
    """A run that got SIGTERM at these steps (transitions), resumed each time with some other settings."""
    ask = StopBetweenUpdates._on_rollout_start
    waiting = list(steps)

    def interrupting(callback: StopBetweenUpdates) -> None:
        if waiting and callback.model.num_timesteps >= waiting[0]:
            waiting.pop(0)
            signal.raise_signal(signal.SIGTERM)
        ask(callback)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(StopBetweenUpdates, "_on_rollout_start", interrupting)
        code = cli.train(arguments(folder, *overrides))
        while code == 128 + signal.SIGTERM:
            code = cli.train([str(folder / "config.yaml"), "resume=true", *resumed])
    assert (code, waiting) == (0, [])
    return Run(folder)


def test_point(whole: Run, tmp_path: Path):
    """Before learning, in mid-episode, in mid-period of combiner and records, and after replay has overflowed."""
    assert_same_run(whole, interrupted_at([3, 171, 402, 504], tmp_path / "a", *POINT))


def test_with_an_update_due(tmp_path: Path):
    """Between two rollouts of a run that updates during the next step; with workers, no step is under way."""
    short = [line for line in POINT if not line.startswith(("total_timesteps", "log.figures_every"))]
    overlapped = (*short, "total_timesteps=300", "log.figures_every=null", "agent.overlap=true")
    uninterrupted = short_run(tmp_path / "whole", *overlapped)
    assert_same_run(uninterrupted, interrupted_at([171], tmp_path / "a", *overlapped))


def test_no_step_is_missing_or_double_in_tensorboard(whole: Run):
    seen = [(step, tag) for step, tag, _ in events(whole.folder)]
    assert len(seen) == len(set(seen)) > 100
    logged, drawn = {150, 300, 450, 600}, {249, 498}  # vector steps have 3 transitions
    assert {step for step, _ in seen} == logged | drawn


METAWORLD = (
    "env.id=[drawer-close-v3,stick-push-v3]",
    "env.horizon=40",
    "env.training_horizon=30",
    "env.n_goals=2",
    "agent.buffer_size=500",
    "agent.learning_starts=40",
    "agent.batch_size=16",
    "measure.every=9",
    "agent.policy_kwargs.layer_norm=true",
    "combiner.kwargs.inner=pcgrad",
    "log.figures_every=null",
    "log.every=40",
    "log.record_every=7",
    "total_timesteps=200",
    "evaluation.every=100",
    "evaluation.n_goals=1",
    "evaluation.final_n_goals=1",
    "checkpoint.every=50",
)


def test_metaworld_in_mid_episode(tmp_path: Path):
    uninterrupted = short_run(tmp_path / "whole", *METAWORLD)
    card = uninterrupted.json("protocol.json")
    assert (card["environment"]["horizon"], card["evaluation"]["horizon"]) == (30, 40)
    assert_same_run(uninterrupted, interrupted_at([110], tmp_path / "a", *METAWORLD))


@pytest.mark.slow
def test_metaworld_with_an_update_due(tmp_path: Path):
    overlapped = (*METAWORLD, "agent.overlap=true")
    uninterrupted = short_run(tmp_path / "whole", *overlapped)
    other = ["env.n_procs=2"]
    assert_same_run(uninterrupted, interrupted_at([110], tmp_path / "a", *overlapped, resumed=other))


@pytest.mark.slow
def test_with_other_processes(tmp_path: Path):
    """A run may go on with more processes than it began with; they change nothing."""
    uninterrupted = short_run(tmp_path / "whole", *METAWORLD)
    other = ["env.n_procs=2", "env.worker_timeout=9"]
    assert_same_run(uninterrupted, interrupted_at([110], tmp_path / "a", *METAWORLD, resumed=other))


@pytest.mark.slow
@pytest.mark.parametrize(
    "overrides",
    [
        *([f"combiner.name={name}"] for name in COMBINERS if name not in ("transference", "random_drop")),
        ["combiner.name=random_drop", "combiner.kwargs={rates: 0.3}"],
        ["combiner.kwargs={candidates: [full, pcgrad], selector: {name: significant, smoothing: 0.9, z: 1}}"],
        ["combiner.kwargs={measure: first_order}"],
        ["combiner.kwargs={measure: hindsight, candidates: weights}"],
        ["combiner.kwargs={measure: {step_size: optimizer}, selector: {max_absence: 3}, every: 3}"],
        ["agent.policy_kwargs.alignment=alternating", "agent.policy_kwargs.alignment_period=7"],
        ["agent.train_freq=3", "agent.gradient_steps=2"],
    ],
    ids=str,
)
def test_every_combiner(overrides: list[str], tmp_path: Path):
    cheap = ["log.figures_every=null", "evaluation.every=null"]
    kept = [line for line in POINT if "combiner" not in line and "figures" not in line]
    own = [*kept, *cheap, *overrides]
    if any("combiner.name" in line for line in overrides) and len(overrides) == 1:
        own.append("combiner.kwargs={}")
    uninterrupted = short_run(tmp_path / "whole", *own)
    assert_same_run(uninterrupted, interrupted_at([171, 402], tmp_path / "a", *own))
