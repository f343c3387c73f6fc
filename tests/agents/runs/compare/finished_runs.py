"""Run folders as finished runs leave them, without the training."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from mtrl_transfer.agents import Evaluation
from mtrl_transfer.agents.runs import run_folder, tables
from mtrl_transfer.agents.runs.compare.plan import MethodRun, Plan, load_plan
from mtrl_transfer.agents.runs.config.schema import RunConfig
from mtrl_transfer.agents.runs.protocol import run_protocol
from mtrl_transfer.envs import make_vec_env, protocol_card

COMPARISON = """
name: test
base: point
config:
  env: {id: Point-4}
  total_timesteps: 800
  agent: {batch_size: 32, learning_starts: 100}
methods:
  mean: {combiner: {name: mean}}
  pcgrad: {combiner: {name: pcgrad}}
seeds: [1, 2, 3]
baseline: mean
"""
TASKS = ("point-a0", "point-b0", "point-a1", "noise")
STEPS = (200, 400, 600, 800)


def plan(folder: Path, *overrides: str, text: str = COMPARISON) -> Plan:
    """The comparison in ``folder/out``."""
    folder.mkdir(exist_ok=True)
    (folder / "comparison.yaml").write_text(text, encoding="utf-8")
    return load_plan(str(folder / "comparison.yaml"), [f"folder={folder / 'out'}", *overrides])


def scores(number: int) -> np.ndarray:
    """Success of a run's tasks at its end ``[T]``, different for each number; the noise task has none."""
    return np.append(np.random.default_rng(number).integers(0, 51, size=3) / 50, 0.0)


def curve(number: int) -> np.ndarray:
    """Success at `STEPS` ``[4, T]``, growing to `scores`."""
    return np.outer([0.0, 0.25, 0.5, 1.0], scores(number))


def seconds(number: int) -> np.ndarray:
    """Training seconds at `STEPS`."""
    return (1 + 0.1 * number) * np.array([10.0, 20.0, 30.0, 40.0])


def finish(config: RunConfig, folder: Path, number: int) -> Path:
    """Write the folder of a finished run."""
    env = make_vec_env(config.env.id)
    card = run_protocol(config, protocol_card(env), env.protocol["horizon"], "cpu")
    run_folder.create(config.model_copy(update={"run_dir": str(folder)}), card)
    final = scores(number)
    evaluation = Evaluation(TASKS, final, 10 * final, 50, np.array([True, True, True, False]))
    spent = {"environment": 8.0, "update": 20.0, "transference": 5.0, "evaluation": 2.0, "other": 1.0}
    content = tables.evaluation_json(evaluation, step=config.total_timesteps, goals="train", seconds=spent)
    (folder / "evaluation.json").write_text(json.dumps(content), encoding="utf-8")
    rows = zip(STEPS, seconds(number), curve(number), strict=True)
    (folder / "metrics.jsonl").write_text("".join(_line(number, *row) for row in rows), encoding="utf-8")
    return folder


def correlation(number: int, step: int) -> float | None:
    """Of what exact lookahead predicts for the critic: not known at first."""
    return None if step == STEPS[0] else step / 1000 - number / 100


def _line(number: int, step: int, spent: float, success: np.ndarray) -> str:
    row = {
        "step": step,
        "success/mean": success[:3].mean(),
        "time/training_seconds": spent,
        "train/n_updates": step // 4,
    }
    row |= {f"success/{task}": value for task, value in zip(TASKS, success.tolist(), strict=True)}
    row["transference/critic_correlation"] = correlation(number, step)
    row |= {f"kept_{role}/{task}": 1.0 for role in ("critic", "actor") for task in TASKS}
    return json.dumps(row) + "\n"


def finish_all(made: Plan, besides: tuple[str, ...] = ()) -> dict[str, tuple[MethodRun, int]]:
    """Finish every planned run but ``besides``; label -> the run and its number."""
    numbered = {run.planned.label: (run, number) for number, run in enumerate(made.runs)}
    for label, (run, number) in numbered.items():
        if label not in besides:
            finish(run.planned.resolved, run.planned.run_dir, number)
    return numbered
