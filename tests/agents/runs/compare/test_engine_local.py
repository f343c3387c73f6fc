"""The local engine: real processes, one that fails, a killed engine, and going on."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import pytest
import torch
from planned_runs import planned
from rich.console import Console

from mtrl_transfer.agents import MTSAC, Evaluation
from mtrl_transfer.agents.runs.compare.engine import EngineConfig, run_all
from mtrl_transfer.agents.runs.compare.engine_local import _room
from mtrl_transfer.agents.runs.compare.one_run import run_in_process
from mtrl_transfer.agents.runs.compare.overview import Follower, Overview
from mtrl_transfer.agents.runs.compare.planned import PlannedRun, RunResult, check_planned, is_finished
from mtrl_transfer.agents.runs.config.loading import to_yaml
from mtrl_transfer.agents.runs.errors import InputError
from mtrl_transfer.agents.runs.outcome import read_metrics
from mtrl_transfer.agents.runs.run_folder import to_json
from mtrl_transfer.agents.runs.tables import evaluation_json
from mtrl_transfer.agents.runs.train import train

LOCAL = EngineConfig()


def quiet() -> Console:
    return Console(quiet=True)


def files(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def die_if_bad(config_file: Path, log_file: Path, parent: Connection) -> None:
    if config_file.name == "dead.yaml":
        os._exit(7)
    run_in_process(config_file, log_file, parent)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, PlannedRun]:
    """One that is refused, one whose process dies, one that was cut off before its first checkpoint, a sound one."""
    folder = tmp_path_factory.mktemp("runs")
    made = {name: planned(folder, name) for name in ("refused", "dead")}
    agent = made["refused"].config.agent.model_copy(update={"device": "cuda:99"})
    config = made["refused"].config.model_copy(update={"agent": agent})
    made["refused"] = PlannedRun("refused", config, made["refused"].run_dir)
    begun = made["begun"] = planned(folder, "begun", "checkpoint.every=null")
    begun.run_dir.mkdir()
    (begun.run_dir / "config.yaml").write_text(to_yaml(begun.resolved), encoding="utf-8")
    (begun.run_dir / "metrics.jsonl").write_text('{"step": 7}\n{"st', encoding="utf-8")
    made["sound"] = planned(folder, "sound", "combiner.name=mean")
    return made


@pytest.fixture(scope="module")
def results(runs: dict[str, PlannedRun]) -> list[RunResult]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mtrl_transfer.agents.runs.compare.engine_local.run_in_process", die_if_bad)
        return run_all(list(runs.values()), LOCAL, quiet())


def test_a_failure_stops_no_other(runs: dict[str, PlannedRun], results: list[RunResult]):
    assert [(one.label, one.run_dir) for one in results] == [(name, run.run_dir) for name, run in runs.items()]
    refused, *others = [one.error for one in results]
    assert refused is not None
    assert "agent.device='cuda:99'" in refused
    assert others == ["ended with exit code 7", None, None]
    assert [is_finished(run) for run in runs.values()] == [False, False, True, True]


def test_what_began_without_a_checkpoint_begins_anew(runs: dict[str, PlannedRun], results: list[RunResult]):
    rows = read_metrics(runs["begun"].run_dir / "metrics.jsonl")[0]
    assert [row["step"] for row in rows] == [150, 300, 450, 600]


def test_a_run_is_the_run_by_hand(runs: dict[str, PlannedRun], results: list[RunResult], tmp_path: Path):
    by_hand = planned(tmp_path, "by_hand", "combiner.name=mean", "threads=1", "log.progress=false")
    train(by_hand.config.model_copy(update={"run_dir": str(by_hand.run_dir)}), quiet())
    ours, theirs = (MTSAC.load(run.run_dir / "agent.zip").policy.state_dict() for run in (runs["sound"], by_hand))
    assert [name for name, value in ours.items() if not torch.equal(value, theirs[name])] == []


def test_a_finished_run_is_left_alone(runs: dict[str, PlannedRun], results: list[RunResult]):
    before = files(runs["sound"].run_dir)
    assert run_all([runs["sound"]], LOCAL, quiet())[0].error is None
    assert files(runs["sound"].run_dir) == before


ENGINE = """
import sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from planned_runs import planned
from rich.console import Console
from mtrl_transfer.agents.runs.compare.engine import EngineConfig, run_all
from mtrl_transfer.agents.runs.exit_codes import exit_code
run = planned(Path({folder!r}), "a", "total_timesteps=1500")
raise SystemExit(exit_code("engine", lambda: run_all([run], EngineConfig(), Console())))
"""


@pytest.mark.slow
@pytest.mark.parametrize("blow", [signal.SIGKILL, signal.SIGINT])
def test_a_killed_engine_leaves_no_process_and_goes_on(tmp_path: Path, blow: signal.Signals):
    run = planned(tmp_path, "a", "total_timesteps=1500")
    program = ENGINE.format(tests=str(Path(__file__).parent), folder=str(tmp_path))
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as engine:
        while not read_metrics(run.run_dir / "metrics.jsonl")[0]:
            assert engine.poll() is None, engine.stderr.read().decode()
            time.sleep(0.05)
        os.kill(engine.pid, blow)
        told = engine.stderr.read().decode()
    assert engine.returncode == {signal.SIGKILL: -signal.SIGKILL, signal.SIGINT: 130}[blow]
    assert ("Continue with the same command" in told) == (blow == signal.SIGINT)
    assert not is_finished(run)
    results = run_all([run], LOCAL, quiet())  # waits for the orphan, if there is one, to save
    assert results[0].error is None
    steps = [row["step"] for row in read_metrics(run.run_dir / "metrics.jsonl")[0]]
    assert [step for step in steps if step % 150 == 0] == list(range(150, 1501, 150))
    assert steps == sorted(set(steps))
    log = run.log_file.read_text(encoding="utf-8")
    assert "Stopped at" in log  # it had saved, and was not begun anew


@pytest.mark.slow
def test_a_command_without_standard_streams_trains(tmp_path: Path):
    run = planned(tmp_path, "a", "total_timesteps=1500")
    program = ENGINE.format(tests=str(Path(__file__).parent), folder=str(tmp_path))
    command = 'exec "$0" -c "$1" <&- >&-'  # not 2>&- too: with it, mujoco is not imported
    subprocess.run(["/bin/sh", "-c", command, sys.executable, program], check=True)
    assert is_finished(run)
    assert "Mean success" in run.log_file.read_text(encoding="utf-8")


@pytest.mark.slow
def test_a_run_records_the_commit_that_its_process_imported():
    program = """
from mtrl_transfer.agents.runs.compare import preloaded
from mtrl_transfer.agents.runs.protocol import commit
print(commit.cache_info().currsize)
"""
    told = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout
    assert told.strip() == "1"  # asked for already: what is committed later is not what runs forked from here do


def test_what_was_killed_before_its_first_file_was_whole_may_begin_anew(tmp_path: Path):
    run = planned(tmp_path, "a")
    run.run_dir.mkdir()
    (run.run_dir / ".config.yaml.partial").touch()
    check_planned([run])
    (run.run_dir / "notes.txt").touch()
    with pytest.raises(InputError, match="holds no run"):
        check_planned([run])


def test_cores_are_shared_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    class Busy:
        def __init__(self, run: PlannedRun) -> None:
            self.run = run

    monkeypatch.setattr("mtrl_transfer.agents.runs.compare.engine_local.available_cores", lambda: 4)
    small, large = planned(tmp_path, "a"), planned(tmp_path, "b", "threads=3")
    assert (small.cores, large.cores) == (1, 3)
    assert small.resolved.threads == 1
    assert large.resolved.threads == 3
    assert _room(large, [Busy(small)], None)
    assert not _room(large, [Busy(small), Busy(small)], None)
    assert _room(planned(tmp_path, "c", "threads=9"), [], None)
    assert not _room(small, [Busy(small), Busy(small)], 2)


@pytest.mark.parametrize(
    ("engine", "told"),
    [
        ({"address": "here:1"}, "address='here:1' is for engine=ray"),
        ({"gpus_per_run": 0.5}, "gpus_per_run=0.5 is for engine=ray"),
        ({"engine": "ray", "workers": 2}, "workers=2 is for engine=local"),
    ],
)
def test_settings_of_the_other_engine_are_refused(tmp_path: Path, engine: dict, told: str):
    with pytest.raises(InputError, match=told):
        run_all([planned(tmp_path, "a")], EngineConfig(**engine), quiet())
    assert list(tmp_path.iterdir()) == []


def test_folders_that_cannot_be_used_are_refused_before_any_work(tmp_path: Path):
    (tmp_path / "file").touch()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").touch()
    other = planned(tmp_path, "other")
    other.run_dir.mkdir()
    (other.run_dir / "config.yaml").write_text(to_yaml(other.resolved), encoding="utf-8")
    changed = planned(tmp_path, "other", "agent.gamma=0.5")
    runs = [
        planned(tmp_path, "file"),
        planned(tmp_path, "mine"),
        changed,
        planned(tmp_path, "x"),
        planned(tmp_path, "x"),
    ]
    before = files(tmp_path)
    with pytest.raises(InputError) as caught:
        run_all(runs, LOCAL, quiet())
    told = "\n".join(caught.value.problems)
    for words in (
        "two runs are called x",
        "file is a file",
        "mine is not empty and holds no run",
        "agent.gamma was 0.8",
    ):
        assert words in told
    assert files(tmp_path) == before


def test_the_overview_follows_a_growing_and_a_rewritten_log(tmp_path: Path):
    run = planned(tmp_path, "a")
    follower = Follower(run)
    follower.look()
    assert (follower.step, follower.success) == (0, None)
    run.run_dir.mkdir()
    log = run.run_dir / "metrics.jsonl"
    log.write_text('{"step": 150, "train_success/mean": 0.5}\n{"step": 300, "train_suc', encoding="utf-8")
    follower.look()
    assert (follower.step, follower.success) == (150, 0.5)
    with log.open("a", encoding="utf-8") as file:
        file.write('cess/mean": 0.6}\n{"step": 450, "success/mean": 0.25}\n{"step": 600, "train_success/mean": 0.9}\n')
    follower.look()
    assert (follower.step, follower.success) == (600, 0.25)
    with log.open("r+", encoding="utf-8") as file:  # a step is written in two parts, as one line
        file.seek(log.read_text(encoding="utf-8").rindex('{"step": 600'))
        file.truncate()
        file.write('{"step": 600, "success/mean": 0.5, "train_success/mean": 0.9}\n{"step": 750}\n')
    follower.look()
    assert (follower.step, follower.success) == (750, 0.5)
    log.write_text('{"step": 150, "success/mean": 0.75}\n', encoding="utf-8")
    follower.look()
    assert (follower.step, follower.success) == (150, 0.75)
    scores = Evaluation(("point-a0",), np.array([0.25]), np.array([1.0]), 4, np.array([True]))
    (run.run_dir / "evaluation.json").write_text(to_json(evaluation_json(scores, step=150)), encoding="utf-8")
    follower.end()
    assert (follower.step, follower.success) == (150, 0.25)


@pytest.mark.parametrize("terminal", [True, False])
def test_the_overview_tells_every_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, terminal: bool):
    runs = [planned(tmp_path, name) for name in ("a", "b", "c")]
    runs[1].run_dir.mkdir()
    (runs[1].run_dir / "metrics.jsonl").write_text('{"step": 300, "success/mean": 0.5}\n', encoding="utf-8")
    console = Console(record=True, width=120, force_terminal=terminal, file=open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
    with console.file, Overview(runs, console) as overview:
        overview.started("a")
        overview.started("b")
        overview.ended("a", "ValueError: [red]bad[/red]")
        with (runs[1].run_dir / "metrics.jsonl").open("a", encoding="utf-8") as log:
            log.write('{"step": 400, "success/mean": 0.75}\n')
        monkeypatch.setattr(overview, "_looked", -1e9)
        overview.refresh()
        console.print(overview.table)
        console.print(overview.summary())
        told = console.export_text()
    assert "a: failed: ValueError: [red]bad[/red]" in told
    assert re.search(r"b +running .* 400 0.75", told)
    assert "waiting" in told
    assert re.search(r"all .* 400", told)
    assert "1 running, 1 failed" in told
