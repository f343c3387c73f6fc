import itertools

import pytest

from mtrl_transfer import candidates


def sets_of(rows):
    return [tuple(row.nonzero().flatten().tolist()) for row in rows]


@pytest.mark.parametrize("n_tasks", [1, 2, 5])
def test_families(n_tasks):
    everyone = tuple(range(n_tasks))
    without = [tuple(t for t in everyone if t != left) for left in everyone if n_tasks > 1]
    sizes = range(1, n_tasks + 1)
    assert sets_of(candidates.full(n_tasks)) == [everyone]
    assert sets_of(candidates.leave_one_out(n_tasks)) == [everyone, *without]
    assert sets_of(candidates.singletons(n_tasks)) == [(t,) for t in everyone]
    assert sets_of(candidates.pairs(n_tasks)) == list(itertools.combinations(everyone, 2))
    everything = [c for size in sizes for c in itertools.combinations(everyone, size)]
    found = sets_of(candidates.power_set(n_tasks))
    assert sorted(found) == sorted(everything)
    assert found == sorted(found, key=lambda members: sum(2**t for t in members))


@pytest.mark.parametrize("family", candidates.FAMILIES.values())
def test_members_weigh_one_over_t(family):
    rows = family(4)
    assert set(rows.flatten().tolist()) <= {0.0, 0.25}


def test_power_set_of_too_many():
    with pytest.raises(ValueError, match="limited to 16 tasks, got 17"):
        candidates.power_set(17)
