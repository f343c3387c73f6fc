"""Choosing groups against brute force; what affinity may be; constraints; controls."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from scipy.cluster.hierarchy import is_valid_linkage

from mtrl_transfer import best_selection, cluster, select_groups
from mtrl_transfer.grouping import (
    all_together,
    linkage,
    one_per_task,
    program,
    random_groups,
    select,
    serve_best,
    standardized,
    task_scores,
)
from mtrl_transfer.grouping.constraints import make_constraints
from mtrl_transfer.grouping.many_tasks import bound_by_sizes

BLOCKS = np.array(
    [
        [9.0, -0.1, 0.5, -0.2],
        [-0.2, 9.0, -0.1, 0.7],
        [0.4, -0.3, 9.0, -0.1],
        [-0.1, 0.6, -0.2, 9.0],
    ]
)
"""Tasks 0 and 2 help each other, as do 1 and 3; the diagonal would mislead a choice that counted it."""


def groups_of(n_tasks, singleton_score, max_size=None, must_link=(), cannot_link=()):
    """Every group that the constraints allow, spelt out."""
    found = []
    for size in range(1 if singleton_score is not None else 2, (max_size or n_tasks) + 1):
        for group in itertools.combinations(range(n_tasks), size):
            whole = all(len(set(entry) & set(group)) in (0, len(entry)) for entry in must_link)
            free = all(len(set(entry) & set(group)) < 2 for entry in cannot_link)
            if whole and free:
                found.append(group)
    return found


def brute_force(affinity, n_groups, singleton_score=None, max_total_size=None, **limits):
    """Largest total score over every choice of at most `n_groups` groups; None where none serves all."""
    n_tasks = len(affinity)
    groups = groups_of(n_tasks, singleton_score, **limits)
    table = np.full((len(groups), n_tasks), -np.inf)
    for row, group in zip(table, groups, strict=True):
        for task in group:
            mates = [affinity[giver, task] for giver in group if giver != task]
            row[task] = sum(mates) / len(mates) if mates else singleton_score[task]
    best = -np.inf
    for count in range(1, n_groups + 1):
        choices = np.array(list(itertools.combinations(range(len(groups)), count)), int).reshape(-1, count)
        if max_total_size is not None:
            sizes = np.array([len(group) for group in groups])
            choices = choices[sizes[choices].sum(axis=1) <= max_total_size]
        if len(choices):
            best = max(best, table[choices].max(axis=1).sum(axis=1).max())
    return None if best == -np.inf else best


def random_case(case):
    """A matrix (sometimes all negative, with ties, or of columns of unlike magnitude) and demands."""
    draw = np.random.default_rng(case)
    n_tasks = int(draw.integers(2, 7))
    affinity = draw.normal(size=(n_tasks, n_tasks))
    kind = case % 4
    if kind == 1:
        affinity = -np.abs(affinity) - 5
    if kind == 2:
        affinity = np.round(affinity)
    if kind == 3:
        affinity *= 10.0 ** draw.integers(-4, 3, size=n_tasks)
    limits = {}
    if draw.random() < 0.4:
        limits["max_size"] = int(draw.integers(2, n_tasks + 1))
    if draw.random() < 0.3:
        limits["max_total_size"] = int(draw.integers(n_tasks, 2 * n_tasks))
    if draw.random() < 0.4:
        limits["singleton_score"] = draw.normal(size=n_tasks)
    if n_tasks > 3 and draw.random() < 0.3:
        limits["must_link"] = [draw.choice(n_tasks, 2, replace=False).tolist()]
    if n_tasks > 3 and draw.random() < 0.3:
        limits["cannot_link"] = [draw.choice(n_tasks, 2, replace=False).tolist()]
    return affinity, int(draw.integers(1, min(n_tasks, 4 if n_tasks < 6 else 3) + 1)), limits


@pytest.mark.parametrize(("first_columns", "ascent_steps"), [(program.FIRST_COLUMNS, program.ASCENT_STEPS), (3, 2)])
def test_equals_brute_force_on_hundreds_of_cases(first_columns, ascent_steps, monkeypatch):
    """With prices of two steps the most promising groups are the wrong ones, and others have to be looked at."""
    monkeypatch.setattr(program, "FIRST_COLUMNS", first_columns)
    monkeypatch.setattr(program, "ASCENT_STEPS", ascent_steps)
    feasible = 0
    for case in range(150):
        affinity, n_groups, limits = random_case(case)
        expected = brute_force(affinity, n_groups, **limits)
        if expected is None:
            with pytest.raises(ValueError, match=r"group|must_link joins"):
                select_groups(affinity, n_groups, **limits)
            continue
        feasible += 1
        found = best_selection(affinity, n_groups, **limits)
        tolerance = 1e-7 * np.abs(affinity).max()
        assert found.score == pytest.approx(expected, abs=tolerance), case
        assert found.bound == found.score
        assert task_scores(affinity, found.grouping, limits.get("singleton_score")).sum() == pytest.approx(found.score)
        assert len(found.grouping.groups) <= n_groups
        assert sum(map(len, found.grouping.groups)) <= limits.get("max_total_size", np.inf)
        allowed = groups_of(len(affinity), **{"singleton_score": None, **without_total(limits)})
        assert set(found.grouping.groups) <= set(allowed)
        assert set(found.grouping.assignment) == set(range(len(found.grouping.groups)))
    assert feasible > 80


def without_total(limits):
    return {name: value for name, value in limits.items() if name != "max_total_size"}


def test_the_bound_holds_where_groups_are_generated(monkeypatch):
    """With the list cut short, the generated groups of small cases lie between what brute force and the bound say."""
    reached = 0
    for case in range(24):
        draw = np.random.default_rng(case)
        affinity, n_groups = draw.normal(size=(8, 8)), 1 + case % 4
        exact = best_selection(affinity, n_groups)
        monkeypatch.setattr(select, "MAX_LISTED", 100)
        generated = best_selection(affinity, n_groups)
        monkeypatch.undo()
        assert generated.score <= exact.score + 1e-9 <= generated.bound + 1e-6
        assert generated.gap == generated.bound - generated.score
        reached += generated.score == pytest.approx(exact.score)
    assert reached >= 18


def test_a_score_that_says_never_hides_no_real_difference():
    """TAG's score of a single task is -1e6; real differences are of the size of 1e-3."""
    for seed in range(40):
        affinity = 1e-3 * np.random.default_rng(seed).normal(size=(5, 5))
        never, impossible = best_selection(affinity, 2, singleton_score=-1e6), best_selection(affinity, 2)
        assert never.score == pytest.approx(impossible.score, abs=1e-12)
    for seed in range(40):
        draw = np.random.default_rng(seed)
        affinity, single = draw.normal(size=(4, 4)), draw.choice([-1e4, -3.0, -1.0, 0.0, 0.5], size=4)
        n_groups = int(draw.integers(1, 4))
        best = brute_force(affinity, n_groups, single)
        assert best_selection(affinity, n_groups, singleton_score=single).score == pytest.approx(best, abs=1e-7)


def test_half_precision_is_read():
    affinity = torch.tensor([[0.0, 1.0, -1.0], [1.0, 0.0, -1.0], [-1.0, -1.0, 0.0]], dtype=torch.bfloat16)
    assert best_selection(affinity, 2, singleton_score=0.0).grouping.groups == ((0, 1), (2,))


def test_the_bound_counts_sizes_and_places():
    """Tight where families are clear; and where no task may train twice, nobody is served by a second small group."""
    family = np.arange(20) % 2
    planted = np.where(family[:, None] == family, 1.0, -1.0)
    assert bound_by_sizes(planted, make_constraints(20, None, None, (), (), False), 2, None) == pytest.approx(20)
    wanted = np.full((3, 3), -1.0)
    wanted[0, 1:] = wanted[1, 0] = 1.0
    for total, bound in ((None, 3.0), (4, 3.0), (3, 0.0)):
        limits = make_constraints(3, None, total, (), (), False)
        assert bound_by_sizes(wanted, limits, 2, None) == pytest.approx(bound, abs=1e-6)


@pytest.mark.slow
def test_fifty_tasks_in_planted_groups_are_found():
    draw = np.random.default_rng(0)
    family = draw.permutation(50) % 5
    affinity = 0.2 * draw.normal(size=(50, 50)) + (family[:, None] == family)
    found = best_selection(affinity, 5)
    planted = serve_best(affinity, [np.flatnonzero(family == one) for one in range(5)])
    assert task_scores(affinity, planted).sum() <= found.score <= found.bound
    assert found.gap < 0.1 * found.score
    for task in range(50):
        mates = set(found.grouping.groups[found.grouping.assignment[task]])
        assert {family[mate] for mate in mates} == {family[task]}


def test_the_planted_groups_are_found():
    for affinity in (BLOCKS, torch.tensor(BLOCKS, dtype=torch.float32)):
        assert select_groups(affinity, 2) == (((0, 2), (1, 3)), (0, 1, 0, 1))
        assert cluster(affinity, 2) == (((0, 2), (1, 3)), (0, 1, 0, 1))


def test_groups_overlap_where_that_pays():
    # Everybody profits from task 0 alone, and task 0 from task 1.
    affinity = np.full((3, 3), -1.0)
    affinity[0, 1:] = affinity[1, 0] = 1.0
    assert select_groups(affinity, 2) == (((0, 1), (0, 2)), (0, 0, 1))
    assert select_groups(affinity, 3) == select_groups(affinity, 2)  # a third would serve nobody


def test_of_groupings_that_score_the_same_the_smallest_is_chosen():
    family = np.array([0, 0, 0, 1, 1, 1])
    affinity = np.where(family[:, None] == family, 1.0, -1.0)
    for n_groups in range(2, 7):
        assert select_groups(affinity, n_groups).groups == ((0, 1, 2), (3, 4, 5))


def test_the_direction_is_giver_to_receiver():
    affinity = np.zeros((3, 3))
    affinity[2, 0], affinity[0, 2] = 1.0, -1.0  # 2 helps 0, and 0 harms 2
    assert task_scores(affinity, all_together(3)).tolist() == [0.5, 0.0, -0.5]


def test_only_differences_within_a_column_matter():
    shifted = BLOCKS - np.array([1.0, 20.0, 0.0, 300.0])
    assert (shifted[~np.eye(4, dtype=bool)] < 1).all()
    for n_groups in (1, 2, 3):
        assert select_groups(shifted, n_groups) == select_groups(BLOCKS, n_groups)
    np.testing.assert_allclose(standardized(shifted * [1.0, 5.0, 0.1, 30.0]), standardized(BLOCKS))


def test_standardized_columns_have_mean_zero_and_deviation_one():
    columns = standardized(BLOCKS).T[~np.eye(4, dtype=bool)].reshape(4, 3)
    np.testing.assert_allclose(columns.mean(axis=1), 0, atol=1e-12)
    np.testing.assert_allclose(columns.std(axis=1), 1)
    assert (standardized(np.full((3, 3), 0.1)) == 0).all()


def test_what_is_missing_is_neutral():
    holes = BLOCKS.copy()
    np.fill_diagonal(holes, np.nan)
    assert select_groups(holes, 2) == select_groups(BLOCKS, 2)
    holes[3, 0] = np.nan  # the mean of what is known of the receiver 0: (-0.2 + 0.4) / 2
    assert task_scores(holes, all_together(4))[0] == pytest.approx(0.1)
    assert select_groups(np.full((4, 4), np.nan), 2).assignment


def test_a_task_that_everybody_harms_trains_alone_on_request():
    affinity = BLOCKS.copy()
    affinity[:, 3], affinity[3, :] = (-1.0, -1.5, -2.0, 0.0), -1.0
    assert (3,) not in select_groups(affinity, 3).groups
    assert select_groups(affinity, 3, singleton_score=0.0).groups[-1] == (3,)
    assert select_groups(affinity, 3, singleton_score=[-9.0, -9.0, -9.0, -2.0]) == select_groups(affinity, 3)
    assert select_groups(np.zeros((1, 1)), 1, singleton_score=0.0) == (((0,),), (0,))


@pytest.mark.parametrize(
    ("arguments", "limits", "message"),
    [
        ((np.zeros((2, 3)), 1), {}, r"square.*\[2, 3\]"),
        ((np.zeros((0, 0)), 1), {}, "square"),
        (([[0.0, np.inf], [0.0, 0.0]], 1), {}, r"affinity\[0, 1\] is infinite"),
        ((BLOCKS, 0), {}, "n_groups=0 must be 1 to 4"),
        ((BLOCKS, 5), {}, "n_groups=5 must be 1 to 4"),
        ((np.zeros((51, 51)), 2), {}, "up to 50 tasks.*cluster"),
        ((np.zeros((1, 1)), 1), {}, "pass singleton_score="),
        ((BLOCKS, 2), {"max_size": 1}, "max_size=1 must be at least 2"),
        ((BLOCKS, 2), {"max_total_size": 3}, "max_total_size=3 must be at least 4"),
        ((BLOCKS, 2), {"must_link": [(0, 7)]}, r"must_link.*\(0, 7\).*0 to 3"),
        ((BLOCKS, 2), {"cannot_link": [(1,)]}, r"cannot_link.*\(1,\)"),
        (
            (BLOCKS, 2),
            {"must_link": [(0, 1), (1, 2)], "cannot_link": [(0, 2)]},
            r"joins tasks \(0, 1, 2\), but cannot_link separates 0 and 2",
        ),
        ((BLOCKS, 2), {"must_link": [(0, 1, 2)], "max_size": 2}, "max_size=2"),
        ((BLOCKS, 1), {"max_size": 2}, "allow more groups"),
        ((BLOCKS, 4), {"cannot_link": [(0, 1, 2), (0, 3)]}, "task 0 fits in no group"),
        ((BLOCKS, 2), {"singleton_score": [0.0, 1.0]}, "each of the 4 tasks"),
    ],
)
def test_what_cannot_be_is_said(arguments, limits, message):
    with pytest.raises(ValueError, match=message):
        select_groups(*arguments, **limits)


def test_tasks_that_stay_together_count_one_by_one_in_a_group():
    """Two units of two and a task are three units, but five tasks."""
    affinity = np.ones((5, 5))
    assert max(map(len, select_groups(affinity, 2, must_link=[(0, 1), (2, 3)], max_size=4).groups)) <= 4
    with pytest.raises(ValueError, match="allow more groups"):
        select_groups(affinity, 1, must_link=[(0, 1), (2, 3)], max_size=4)


def test_controls():
    assert all_together(3) == (((0, 1, 2),), (0, 0, 0))
    assert one_per_task(3) == (((0,), (1,), (2,)), (0, 1, 2))
    drawn = random_groups(7, 3, seed=1)
    assert sorted(len(group) for group in drawn.groups) == [2, 2, 3]
    assert sorted(task for group in drawn.groups for task in group) == list(range(7))
    assert all(task in drawn.groups[index] for task, index in enumerate(drawn.assignment))
    assert drawn == random_groups(7, 3, seed=1)
    assert len({random_groups(7, 3, seed).groups for seed in range(5)}) > 1
    with pytest.raises(ValueError, match="n_groups=8 must be 1 to 7"):
        random_groups(7, 8, 0)


def test_clusters_with_ties_are_as_many_as_asked_for():
    for n_groups in range(1, 6):
        groups = cluster(np.zeros((5, 5)), n_groups).groups
        assert len(groups) == n_groups
        assert sorted(task for group in groups for task in group) == list(range(5))
    assert is_valid_linkage(linkage(BLOCKS))
    assert cluster(np.zeros((1, 1)), 1) == all_together(1)
    with pytest.raises(ValueError, match="n_groups=9"):
        cluster(BLOCKS, 9)


def test_a_dendrogram_joins_by_the_mean_of_both_directions():
    """Of two givers a receiver's better one is at 1 and the other at -1: mutual affinity is 1, 0 and -1 by hand."""
    affinity = np.array([[0.0, 5.0, 0.2], [3.0, 0.0, 0.1], [2.0, 4.0, 0.0]])
    tree = linkage(affinity)
    np.testing.assert_allclose(tree, [[0, 1, 0, 2], [2, 3, 1.5, 3]])  # the last: mean of 1 and 2


def test_serving_from_the_best_of_given_groups():
    found = serve_best(BLOCKS, [[0, 1, 2, 3], [2, 0], [0, 2], [3]])
    assert found.groups == ((0, 1, 2, 3), (0, 2))
    assert found.assignment == (1, 0, 1, 0)
    assert serve_best(BLOCKS, [[0, 2], [1], [3]]).groups == ((0, 2), (1,), (3,))
    with pytest.raises(ValueError, match="task 3 is in no group"):
        serve_best(BLOCKS, [[0, 1, 2]])
    with pytest.raises(ValueError, match="tasks 0 to 3"):
        serve_best(BLOCKS, [[0, 4]])
