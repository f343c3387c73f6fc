"""The writer of ``metrics.jsonl``."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from stable_baselines3.common.logger import Logger

from mtrl_transfer.agents.runs.checkpoint.growing_files import cut_back, sizes
from mtrl_transfer.agents.runs.config.loading import load_config
from mtrl_transfer.agents.runs.logs.metrics import MetricsWriter, hyperparameters
from mtrl_transfer.agents.runs.outcome import read_metrics


def logger(path: Path) -> Logger:
    return Logger(None, [MetricsWriter(path)])


def test_only_what_tensorboard_shows_as_scalars(tmp_path: Path):
    log = logger(tmp_path / "m.jsonl")
    log.record("a/float", 0.5)
    log.record("a/int", 3)
    log.record("a/numpy", np.float32(0.25))
    log.record("a/stdout", 1.0, exclude="stdout")
    log.record("b/hidden", 1.0, exclude="tensorboard")
    log.record("b/text", "words")
    log.record("b/histogram", torch.ones(3))
    log.dump(step=7)
    log.close()
    assert read_metrics(tmp_path / "m.jsonl")[0] == [
        {"step": 7, "a/float": 0.5, "a/int": 3, "a/numpy": 0.25, "a/stdout": 1.0}
    ]


def test_every_line_is_strict_json(tmp_path: Path):
    log = logger(tmp_path / "m.jsonl")
    log.record("nan", float("nan"))
    log.record("inf", np.inf)
    log.dump(step=1)
    log.close()

    def refuse(constant: str):
        raise AssertionError(constant)

    line = (tmp_path / "m.jsonl").read_text(encoding="utf-8")
    assert json.loads(line, parse_constant=refuse) == {"step": 1, "inf": None, "nan": None}


def test_a_step_is_one_line_however_often_it_is_written(tmp_path: Path):
    log = logger(tmp_path / "m.jsonl")
    for step, tag in [(1, "a"), (2, "a"), (2, "b"), (2, "c"), (3, "a"), (3, "a")]:
        log.record(tag, float(step))
        log.dump(step=step)
        # Never a moment without the last step in the file.
        assert read_metrics(tmp_path / "m.jsonl")[0][-1]["step"] == step
    log.close()
    assert read_metrics(tmp_path / "m.jsonl")[0] == [
        {"step": 1, "a": 1.0},
        {"step": 2, "a": 2.0, "b": 2.0, "c": 2.0},
        {"step": 3, "a": 3.0},
    ]


def test_an_existing_file_is_continued(tmp_path: Path):
    for step in (1, 2):
        log = logger(tmp_path / "m.jsonl")
        log.record("a", float(step))
        log.dump(step=step)
        log.record("b", float(step))
        log.dump(step=step)
        log.close()
    assert read_metrics(tmp_path / "m.jsonl")[0] == [{"step": 1, "a": 1.0, "b": 1.0}, {"step": 2, "a": 2.0, "b": 2.0}]


EVENTS = "events.out.tfevents."


def test_files_are_cut_back_to_what_they_were(tmp_path: Path):
    metrics, old, new = (
        tmp_path / name for name in ("metrics.jsonl", "events.out.tfevents.1", "events.out.tfevents.2")
    )
    metrics.write_text('{"step": 1, "a": 1}\n{"step": 2, "a": 2}\n', encoding="utf-8")
    old.write_bytes(b"12345")
    before = sizes(tmp_path)
    assert before == {"metrics.jsonl": 40, f"{EVENTS}1": 5}
    with metrics.open("a", encoding="utf-8") as file:
        file.write('{"step": 3, "a": 3}\n{"step": 4, "a"')
    new.write_bytes(b"678")
    (tmp_path / "config.yaml").write_text("name: x", encoding="utf-8")
    assert cut_back(tmp_path, before) == []
    assert (sizes(tmp_path), len(read_metrics(metrics)[0])) == (before, 2)
    assert (tmp_path / "config.yaml").exists()
    old.write_bytes(b"123")
    assert cut_back(tmp_path, before) == [f"{EVENTS}1"]


def test_tensorboard_shows_what_runs_differ_in_first():
    """It sorts hyperparameters by name and shows five."""
    shown = sorted(hyperparameters(load_config("mt10_quick")).hparam_dict)
    assert shown[:5] == ["method", "method_settings", "seed", "tasks", "total_timesteps"]
