"""The map of where choosing pays."""

import numpy as np
import pytest

from mtrl_transfer.agents.runs.compare.plan import load_plan
from mtrl_transfer.agents.runs.config.checks import task_names
from studies.when.run import ROWS, Cell


@pytest.mark.parametrize("planted", [False, True])
def test_every_cell_is_a_comparison(planted):
    cell = Cell(2, spread=True, planted=planted)
    plan = load_plan("when", ["seeds=[1]", *cell.overrides])
    for run in plan.runs:
        config = run.planned.config
        names = task_names(config)
        assert ("noise" in names) == planted
        assert config.agent.batch_size == ROWS * len(names)
    assert not plan.differences


def test_cells_have_names_of_their_own():
    cells = [Cell(width, spread, planted) for width in (2, 4) for spread in (0, 1) for planted in (0, 1)]
    assert len(np.unique([cell.name for cell in cells])) == len(cells)
