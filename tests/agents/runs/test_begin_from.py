"""Runs that begin with what another run has learned: ``from=RUN_FOLDER``."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml
from short_runs import arguments, short_run

from mtrl_transfer.agents import MTSAC
from mtrl_transfer.agents.runs import cli

QUICK = (
    "total_timesteps=150",
    "agent.learning_starts=30",
    "combiner.name=mean",
    "combiner.kwargs={}",
    "measure.every=null",
    "evaluation.every=null",
    "evaluation.final_n_goals=1",
    "log.figures_every=null",
)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return short_run(tmp_path_factory.mktemp("run") / "a", *QUICK, "env.id=Point-4:point-a0,point-b0,noise").folder


def test_a_run_begins_with_what_another_learned(trained: Path, tmp_path: Path):
    barely = ("agent.learning_rate=1e-12", "agent.tau=1e-9", "agent.batch_size=16")
    tasks = "env.id=Point-4:point-b0,point-a1"
    run = short_run(tmp_path / "b", *QUICK, *barely, tasks, f"from={trained}")
    assert yaml.safe_load((run.folder / "config.yaml").read_text("utf-8"))["from"] == str(trained)
    before, after = (MTSAC.load(folder / "agent.zip") for folder in (trained, run.folder))
    observations = np.random.default_rng(0).standard_normal((5, 4)).astype(np.float32)
    expected, _ = before.predict(observations, deterministic=True, task="point-b0")
    found, _ = after.predict(observations, deterministic=True, task="point-b0")
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    assert after.num_timesteps == 150


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("nowhere", "from=nowhere: no agent at nowhere"),
        ("{trained}/config.yaml", "is not an agent saved by MTSAC"),
        ("{trained} env.id=Point-5:point-a1,point-b1", "no task in common"),
        ("{trained} agent.policy_kwargs.net_arch=[9]", "are net_arch and n_critics the same"),
    ],
)
def test_what_cannot_begin_a_run_is_told(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], source: str, told: str
):
    overrides = f"from={source}".format(trained=trained).split()
    assert cli.train(arguments(tmp_path / "b", *QUICK, "agent.batch_size=48", *overrides)) == 2
    assert told in capsys.readouterr().err
    assert not (tmp_path / "b").exists()
