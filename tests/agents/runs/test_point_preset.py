"""The `point` preset finds the known answer of the Point suite."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from short_runs import Run

from mtrl_transfer.agents import MTSAC
from mtrl_transfer.agents.runs import cli


def trained(folder: Path, combiner: str) -> Run:
    arguments = ["point", f"combiner.name={combiner}", "seed=1", "log.progress=false", f"run_dir={folder}"]
    assert cli.train(arguments) == 0
    return Run(folder)


@pytest.mark.slow
@pytest.mark.parametrize("combiner", ["mean", "pcgrad", "transference"])
def test_each_method_solves_the_suite_and_transference_leaves_out_the_harmful_task(
    combiner: str, tmp_path: Path
) -> None:
    run = trained(tmp_path / "run", combiner)
    assert run.json("evaluation.json")["mean_success"] >= 0.85
    kept = MTSAC.load(run.folder / "agent.zip").kept_share()["critic"]
    if combiner == "transference":
        others, harmful = kept[:-1], kept[-1]
        assert harmful < others.min() - 0.1
    else:
        np.testing.assert_array_equal(kept, 1)
