"""Stop a run before its end: by signals at any moment, and by losses that stay not finite."""

from __future__ import annotations

import signal
from pathlib import Path

import numpy as np
import pytest
from short_runs import Run, arguments

from mtrl_transfer.agents.runs import cli, train
from mtrl_transfer.agents.runs.checkpoint.checkpoints import newest
from mtrl_transfer.agents.runs.exit_codes import exit_code
from mtrl_transfer.agents.runs.stopping import StopBetweenUpdates
from mtrl_transfer.envs.point import PointVecEnv

QUICK = ("total_timesteps=600", "log.figures_every=null", "evaluation.every=null", "evaluation.final_n_goals=1")


def test_a_second_signal_stops_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    look = StopBetweenUpdates._on_step

    def impatient(callback: StopBetweenUpdates) -> bool:
        if callback.num_timesteps == 390:
            signal.raise_signal(signal.SIGTERM)
            signal.raise_signal(signal.SIGTERM)
        return look(callback)

    handler = signal.getsignal(signal.SIGTERM)
    with monkeypatch.context() as patch:
        patch.setattr(StopBetweenUpdates, "_on_step", impatient)
        assert cli.train(arguments(tmp_path / "a", *QUICK)) == 128 + signal.SIGTERM
    assert signal.getsignal(signal.SIGTERM) is handler
    assert "ask again to stop at once" in capsys.readouterr().err
    stopped = newest(tmp_path / "a")
    assert stopped is not None
    assert stopped.step == 300  # the one before, whole; none of 390
    assert cli.train([str(tmp_path / "a" / "config.yaml"), "resume=true"]) == 0
    assert Run(tmp_path / "a").json("evaluation.json")["step"] == 600


def test_a_signal_in_the_final_evaluation_ends_cleanly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    step, folder = PointVecEnv.step_wait, tmp_path / "a"

    def interrupted(env: PointVecEnv):
        if (folder / "agent.zip").exists():
            signal.raise_signal(signal.SIGTERM)
        return step(env)

    with monkeypatch.context() as patch:
        patch.setattr(PointVecEnv, "step_wait", interrupted)
        assert cli.train(arguments(folder, *QUICK)) == 128 + signal.SIGTERM
    assert f"{folder}/config.yaml resume=true" in capsys.readouterr().err
    assert not (folder / "evaluation.json").exists()
    stopped = newest(folder)
    assert stopped is not None
    assert stopped.step == 600
    assert cli.train([str(folder / "config.yaml"), "resume=true"]) == 0
    assert Run(folder).json("evaluation.json")["step"] == 600


def test_a_signal_before_training_writes_no_agent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(train, "open_session", lambda *_: signal.raise_signal(signal.SIGINT))
    assert cli.train(arguments(tmp_path / "a", *QUICK)) == 130
    assert "Stopped before training began" in capsys.readouterr().err
    assert not (tmp_path / "a").exists()


def test_other_commands_end_by_sigterm():
    def work() -> None:
        signal.raise_signal(signal.SIGTERM)

    handler = signal.getsignal(signal.SIGTERM)
    assert exit_code("any", work) == 128 + signal.SIGTERM
    assert signal.getsignal(signal.SIGTERM) is handler


@pytest.mark.filterwarnings("ignore:.*noise.*not finite")
def test_losses_that_stay_not_finite_stop_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    step = PointVecEnv.step_wait
    steps = 0

    def breaking(env: PointVecEnv):
        nonlocal steps
        steps += 1
        observations, rewards, dones, infos = step(env)
        return observations, np.where([False, False, steps > 110], np.nan, rewards).astype(np.float32), dones, infos

    line = arguments(tmp_path / "a", *QUICK, "agent.max_nonfinite=5")
    with monkeypatch.context() as patch:
        patch.setattr(PointVecEnv, "step_wait", breaking)
        assert cli.train(line) == 1
    printed = capsys.readouterr().err
    assert "noise" in printed
    assert "The last good checkpoint is at 300 transitions" in printed
    assert "Traceback" not in printed
    good = newest(tmp_path / "a")
    assert good is not None
    assert good.step == 300
    assert cli.train([str(tmp_path / "a" / "config.yaml"), "resume=true"]) == 0
