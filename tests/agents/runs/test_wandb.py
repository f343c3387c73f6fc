"""A run's scalars and config in Weights & Biases."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from short_runs import Run, arguments

from mtrl_transfer.agents.runs import cli
from mtrl_transfer.agents.runs.config.loading import load_config
from mtrl_transfer.agents.runs.errors import InputError
from mtrl_transfer.agents.runs.logs.metrics import MetricsWriter
from mtrl_transfer.agents.runs.logs.wandb_run import WandbWriter

ROWS = [({"loss": 0.5, "figure": object(), "hidden": 1.0}, 300), ({"loss": 0.25, "count": 3}, 600)]
EXCLUDED = {"hidden": ("tensorboard",)}


class Wandb(SimpleNamespace):
    """Stand-in for the package: keeps what it is given, in place of a server."""

    class Error(Exception): ...

    def __init__(self) -> None:
        super().__init__(Settings=dict, logged=[], inits=[], finished=0)

    def init(self, **settings: Any) -> SimpleNamespace:
        self.inits.append(settings)
        if settings["project"] == "closed":
            raise self.Error("no login")
        return SimpleNamespace(
            id=settings["id"] or "new", log=self.logged.append, define_metric=lambda *_, **__: None, finish=self.finish
        )

    def finish(self) -> None:
        self.finished += 1


@pytest.fixture
def wandb(monkeypatch: pytest.MonkeyPatch) -> Wandb:
    package = Wandb()
    monkeypatch.setitem(sys.modules, "wandb", package)
    return package


def test_wandb_gets_the_rows_of_metrics_jsonl(wandb: Wandb, tmp_path: Path):
    config = load_config("point", ["log.wandb=mine", "agent.learning_rate=1e-3"])
    writers = [WandbWriter(tmp_path, config), MetricsWriter(tmp_path / "metrics.jsonl")]
    for values, step in ROWS:
        for writer in writers:
            writer.write(values, {key: EXCLUDED.get(key, ()) for key in values}, step)
    for writer in writers:
        writer.close()
    assert (
        wandb.logged == Run(tmp_path).metrics == [{"step": 300, "loss": 0.5}, {"step": 600, "count": 3, "loss": 0.25}]
    )
    assert wandb.inits[0]["config"] == config.model_dump(mode="json")
    assert wandb.finished == 1


def test_a_resumed_run_keeps_its_id_in_wandb(wandb: Wandb, tmp_path: Path):
    config = load_config("point", ["log.wandb=mine"])
    for _ in range(2):
        WandbWriter(tmp_path, config).close()
    assert [init["id"] for init in wandb.inits] == [None, "new"]


def test_wandbs_refusal_is_bad_input(wandb: Wandb, tmp_path: Path):
    with pytest.raises(InputError, match=r"log\.wandb='closed': no login"):
        WandbWriter(tmp_path, load_config("point", ["log.wandb=closed"]))


def test_a_missing_wandb_is_told_before_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert cli.train(arguments(tmp_path / "run", "log.wandb=mine")) == 2
    assert "pip install 'mtrl-transfer[wandb]'" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def offline(command: str, *arguments: str) -> None:
    line = [sys.executable, "-m", "mtrl_transfer", command, *arguments]
    done = subprocess.run(
        line, env={**os.environ, "WANDB_MODE": "offline"}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def stored_ids(folder: Path) -> list[str]:
    return [path.name.split("-")[-1] for path in (folder / "wandb").glob("offline-run-*")]


needs_wandb = pytest.mark.skipif(importlib.util.find_spec("wandb") is None, reason="not installed: wandb")


@pytest.mark.slow
@needs_wandb
def test_a_run_and_its_continuation_stay_on_disk_offline(tmp_path: Path):
    folder = tmp_path / "run"
    offline("train", *arguments(folder, "log.wandb=mine", "total_timesteps=450"))
    offline("train", str(folder / "config.yaml"), "resume=true", "total_timesteps=600")
    assert stored_ids(folder) == [(folder / "wandb_id").read_text("utf-8")] * 2


@pytest.mark.slow
@needs_wandb
def test_every_run_of_a_comparison_is_in_wandb(tmp_path: Path):
    short = [line for line in arguments(tmp_path)[1:-1] if not line.startswith(("seed", "combiner", "total"))]
    keys = [f"config.{line}" for line in (*short, "total_timesteps=300", "log.wandb=mine")]
    offline("compare", "point", *keys, "seeds=[1]", f"folder={tmp_path / 'all'}")
    runs = list((tmp_path / "all" / "runs").glob("*_s1"))
    assert len(runs) == 3
    assert all(len(stored_ids(run)) == 1 for run in runs)
