"""Several seeds by one command."""

from __future__ import annotations

from pathlib import Path

import pytest
from same_runs import assert_same_run, learned
from short_runs import Run, arguments, short_run

from mtrl_transfer.agents.runs import cli
from mtrl_transfer.agents.runs.seeds import runs_to_do

FEW = ("total_timesteps=150", "evaluation.every=null", "checkpoint.every=null")


def test_each_seed_is_the_run_alone(tmp_path: Path):
    line = [part for part in arguments(tmp_path / "all", *FEW) if part != "seed=5"]
    assert cli.train([*line, "seeds=5,6"]) == 0
    five, six = (Run(tmp_path / "all" / f"s{seed}") for seed in (5, 6))
    assert_same_run(six, short_run(tmp_path / "alone", *FEW, "seed=6"))
    assert learned(five) != learned(six)
    assert cli.train([*line, "seeds=5,6", "resume=true"]) == 2  # complete
    point, *more = [*line, "resume=true"]
    assert [(run.seed, run.resume) for run in runs_to_do(point, [*more, "seeds=5,6,7"])] == [(7, False)]
    more[more.index(FEW[0])] = "total_timesteps=300"
    assert [(run.seed, run.resume) for run in runs_to_do(point, [*more, "seeds=5,6"])] == [(5, True), (6, True)]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ("seeds=1,1", "seeds='1,1' names a seed twice"),
        ("seeds=1,x", "seeds="),
        ("seeds=", "seeds="),
        ("seeds=-1", "seeds="),
        ("seeds=1 seed=2", "give seed= or seeds=, not both"),
        ("seeds=1,2 resume=true", "needs run_dir="),
        ("seeds=1,2 sed=3", "did you mean seed?"),
    ],
)
def test_bad_seeds(options: str, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.train(["point", *options.split()]) == 2
    assert told in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
