"""Tables that a run prints: its result and its duration."""

from __future__ import annotations

import numpy as np
import pytest

from mtrl_transfer.agents import Evaluation
from mtrl_transfer.agents.runs.config.loading import load_config
from mtrl_transfer.agents.runs.estimate import _extrapolate
from mtrl_transfer.agents.runs.tables import duration, evaluation_json


def test_mean_success_leaves_out_what_cannot_be_solved():
    solvable = np.array([True, True, False])
    result = Evaluation(("a", "b", "noise"), np.array([1.0, 0.5, 0.0]), np.array([-1.0, -2.0, -3.0]), 4, solvable)
    told = evaluation_json(result, step=7)
    assert (told["step"], told["mean_success"]) == (7, 0.75)
    assert told["tasks"]["b"] == {"success": 0.5, "return": -2.0, "episodes": 4}
    assert evaluation_json(result._replace(solvable=solvable | True))["mean_success"] == pytest.approx(0.5)


def test_the_estimate_adds_up():
    overrides = ["total_timesteps=1000", "agent.learning_starts=200", "evaluation.every=300"]
    config = load_config("point", [*overrides, "evaluation.n_goals=2", "evaluation.final_n_goals=6"])
    anew = _extrapolate(config, done=0, n_tasks=10, horizon=50, playing=0.5, learning=2.0)
    # 20 random vector steps and 80 with updates; three evaluations of 2 episodes and one of 6.
    assert (anew.training, anew.evaluation) == (20 * 0.5 + 80 * 2.0, (3 * 2 + 6) * 50 * 0.5)
    resumed = _extrapolate(config, done=600, n_tasks=10, horizon=50, playing=0.5, learning=2.0)
    assert (resumed.training, resumed.evaluation) == (40 * 2.0, (1 * 2 + 6) * 50 * 0.5)
    never = config.model_copy(update={"evaluation": config.evaluation.model_copy(update={"every": None})})
    assert _extrapolate(never, done=0, n_tasks=10, horizon=50, playing=0.5, learning=2.0).evaluation == 6 * 50 * 0.5


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (89, "89 s"), (90, "2 min"), (7140, "119 min"), (7200, "2 h 00 min"), (11_100, "3 h 05 min")],
)
def test_durations(seconds: float, text: str):
    assert duration(seconds) == text
