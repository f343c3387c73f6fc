"""Callbacks that a config names."""

from __future__ import annotations

from pathlib import Path

import pytest
from short_runs import SHORT, arguments, short_run

from mtrl_transfer.agents.runs import cli
from mtrl_transfer.agents.runs.config.loading import load_config

STOP = "stable_baselines3.common.callbacks:StopTrainingOnMaxEpisodes"
MINE = """
from stable_baselines3.common.callbacks import BaseCallback

class Counter(BaseCallback):
    steps = []

    def __init__(self, every):
        super().__init__()
        self.every = every

    def _on_step(self):
        if self.n_calls % self.every == 0:
            self.steps.append(self.num_timesteps)
        return True
"""


def test_callbacks_of_a_config_are_called(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "watching_mine.py").write_text(MINE, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    stop = f"{{name: {STOP}, kwargs: {{max_episodes: 2}}}}"
    run = short_run(tmp_path / "a", f"callbacks=[{{name: watching_mine:Counter, kwargs: {{every: 40}}}}, {stop}]")
    import watching_mine  # type: ignore[import-not-found]

    assert watching_mine.Counter.steps == [120, 240]
    assert run.json("evaluation.json")["step"] == 300  # two episodes of each task, of 50 steps
    kept = load_config(str(run.folder / "config.yaml")).callbacks
    assert [one.kwargs for one in kept] == [{"every": 40}, {"max_episodes": 2}]


STATEFUL = """
from stable_baselines3.common.callbacks import BaseCallback

class Seen(BaseCallback):
    def _on_step(self):
        return True

    def state_dict(self):
        return {"steps": {"seen": {3}}}

    def load_state_dict(self, state):
        pass
"""


def test_a_state_that_cannot_be_stored_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    (tmp_path / "watching_sets.py").write_text(STATEFUL, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    assert cli.train(arguments(tmp_path / "a", "callbacks=[watching_sets:Seen]")) == 2
    assert "watching_sets:Seen: ValueError: state.steps.seen={3} cannot be stored, a set" in capsys.readouterr().err
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize(
    ("callbacks", "told"),
    [
        ("[nowhere:Stop]", "callbacks[0]: nowhere:Stop: ModuleNotFoundError: No module named 'nowhere'"),
        ("[json:Stop]", "has no attribute 'Stop'"),
        (f"[{STOP}]", "missing 1 required positional argument: 'max_episodes'"),
        ("[json:JSONDecoder]", "should be a class derived from"),
        ("[json]", "should be a list of module:Class"),
        ("3", "callbacks=3"),
        ("[{}]", "callbacks=[{}] should be a list of"),
    ],
)
def test_bad_callbacks(callbacks: str, told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert cli.train(["point", *SHORT, f"run_dir={tmp_path / 'a'}", f"callbacks={callbacks}"]) == 2
    assert told in capsys.readouterr().err
    assert not (tmp_path / "a").exists()
