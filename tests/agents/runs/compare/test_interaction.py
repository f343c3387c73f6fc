"""Repeatability of recorded pairwise transference: a planted structure is found, noise is not."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from mtrl_transfer.agents.runs.compare.collect import History, _fresh, _same_candidates
from mtrl_transfer.agents.runs.compare.interaction import choices, interaction
from mtrl_transfer.candidates import leave_one_out

T, RECORDS = 10, 60


def run(values: np.ndarray) -> SimpleNamespace:
    return SimpleNamespace(pairwise={"critic": History(np.arange(len(values)), values)})


def noise(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(RECORDS, T, T))


def test_structure_repeats_within_and_between_runs():
    structure = np.random.default_rng(0).permutation(T * T).reshape(T, T) / 100 - 0.5
    found = interaction([run(structure + 1e-6 * noise(seed)) for seed in (1, 2, 3)], "critic")
    different = ~np.eye(T, dtype=bool)
    assert found.own == pytest.approx(np.diag(structure).mean(), abs=1e-5)
    assert found.others == pytest.approx(structure[different].mean(), abs=1e-5)
    assert found.harmful == pytest.approx((structure[different] < -1e-5).mean(), abs=0.01)
    assert found.split_half == found.between_runs == 1.0


def test_noise_does_not_repeat():
    found = interaction([run(noise(seed)) for seed in (1, 2, 3)], "critic")
    assert abs(found.split_half) < 0.15
    assert abs(found.between_runs) < 0.15


def test_structure_of_one_run_repeats_within_it():
    runs = [run(np.random.default_rng(seed).normal(size=(T, T)) + 0.01 * noise(seed)) for seed in (1, 2)]
    found = interaction(runs, "critic")
    assert found.split_half > 0.95
    assert abs(found.between_runs) < 0.3
    assert np.isnan(interaction(runs[:1], "critic").between_runs)


def test_each_phase_has_its_own_structure():
    values = np.concatenate([np.full((20, T, T), value) for value in (-1.0, 2.0, 2.0)])
    found = interaction([run(values)], "critic")
    assert found.others == pytest.approx(1.0)
    assert found.harmful == pytest.approx(1 / 3)
    assert np.isnan(found.split_half)  # all pairs alike: there is no order that could repeat


def test_too_few_records_give_none():
    assert interaction([run(noise(1)[:5])], "critic") is None
    assert interaction([run(noise(1))], "actor") is None


def leading(values: np.ndarray) -> SimpleNamespace:
    return SimpleNamespace(leads={"actor": History(np.arange(len(values)), values)})


def test_lasting_lead_excludes_the_winners_curse():
    runs = [leading(np.random.default_rng(seed).normal(size=(15, 5))) for seed in range(400)]
    found = choices(runs, "actor")
    assert found.seen == pytest.approx(1.163, abs=0.05)  # the mean of the greatest of five normal numbers
    assert abs(found.lasting) < 0.05  # though the best of five means of five records is 0.52
    assert found.ahead == pytest.approx(0.025, abs=0.01)
    assert found.behind == pytest.approx(0.025, abs=0.01)
    for run_ in runs:
        run_.leads["actor"].values[:] += [0, 3, 0, -3, 0]
    found = choices(runs, "actor")
    assert found.lasting == pytest.approx(3, abs=0.05)
    assert min(found.ahead, found.behind) > 0.19
    assert max(found.ahead, found.behind) < 0.23


def test_choices_are_none_without_candidates_or_records():
    assert choices([leading(np.zeros((60, 0)))], "actor") is None
    assert choices([leading(np.ones((5, 3)))], "actor") is None
    assert choices([leading(np.ones((60, 3)))], "critic") is None


def test_leads_need_the_same_candidates_throughout():
    listed = np.tile(leave_one_out(3).numpy(), (6, 1, 1)) * np.linspace(1, 2, 6)[:, None, None]  # matched in norm
    listed[0] = np.nan  # not yet decided
    assert _same_candidates(listed)
    searched = listed.copy()
    searched[3, 1] = [0, 0, 1]
    assert not _same_candidates(searched)
    assert not _same_candidates(listed[:, :1])


def test_decision_recorded_twice_counts_once():
    rows = np.array([[np.nan, np.nan], [1, 2], [1, 2], [1, 3], [1, 2]])
    assert _fresh(rows).tolist() == [True, True, False, True, True]
    assert _fresh(rows[:0]).tolist() == []
