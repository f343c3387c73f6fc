"""A study of config keys: choices and ranges, pruning, continuation."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("optuna")
import optuna
import tune

SHORT = (
    "point",
    "env.id=Point-3",
    "agent.batch_size=24",
    "agent.learning_starts=90",
    "agent.policy_kwargs.net_arch=[8]",
    "combiner.name=mean",
    "measure.every=null",
    "total_timesteps=300",
    "evaluation.every=150",
    "evaluation.n_goals=1",
    "evaluation.final_n_goals=1",
)
SEARCH = "search={agent.learning_rate: {low: 1e-4, high: 1e-2, log: true}, agent.tau: [0.005, 0.01]}"


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    yield
    optuna.logging.set_verbosity(before)


def study_of(file: Path) -> optuna.Study:
    return optuna.load_study(study_name="point", storage=f"sqlite:///{file}")


@pytest.mark.slow
def test_a_study_goes_on_where_it_stopped(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    file = tmp_path / "folder" / "study.db"
    for trials in (1, 3, 3):
        assert tune.main([*SHORT, SEARCH, f"trials={trials}", f"study={file}"]) == 0
        assert len(study_of(file).trials) == trials
    assert {step for trial in study_of(file).trials for step in trial.intermediate_values} == {150, 300}
    assert len({trial.params["agent.learning_rate"] for trial in study_of(file).trials}) == 3
    line = capsys.readouterr().out.splitlines()[-1].split()
    assert line[:2] == ["mtrl-train", "point"]
    assert line[-1].startswith("agent.tau=0.0")


@pytest.mark.slow
def test_the_pruner_ends_a_trial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(optuna.pruners.MedianPruner, "prune", lambda self, study, trial: trial.number == 1)
    assert tune.main([*SHORT, SEARCH, "trials=2", f"study={tmp_path / 'study.db'}"]) == 0
    first, second = study_of(tmp_path / "study.db").trials
    assert (first.state.name, second.state.name) == ("COMPLETE", "PRUNED")
    assert list(second.intermediate_values) == [150]


def test_another_search_needs_another_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    file = tmp_path / "study.db"
    study = optuna.create_study(study_name="point", storage=f"sqlite:///{file}", direction="maximize")
    study.set_user_attr("subject", {"config": "other"})
    assert tune.main([*SHORT, SEARCH, f"study={file}"]) == 2
    assert "choose another file" in capsys.readouterr().err


@pytest.mark.parametrize("search", ["search={agent.tau: {low: 1}}", "search={}", "search={agent.tau: 3}", "trials=2"])
def test_a_bad_search_is_refused(search: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert tune.main([*SHORT, search, f"study={tmp_path / 'study.db'}"]) == 2
    assert "search" in capsys.readouterr().err
    assert not (tmp_path / "study.db").exists()
