"""Goals equal those of Meta-World's own benchmarks."""

from __future__ import annotations

import pickle

import metaworld
import numpy as np
import pytest

from mtrl_transfer.envs.metaworld.goals import draw_goals, unseen_goal_seed
from mtrl_transfer.envs.metaworld.suites import SUITES, MetaWorldOptions, parse_metaworld_suite


def upstream_goals(benchmark: metaworld.Benchmark) -> dict[str, np.ndarray]:
    goals: dict[str, list[np.ndarray]] = {}
    for task in benchmark.train_tasks:
        goals.setdefault(task.env_name, []).append(pickle.loads(task.data)["rand_vec"])
    return {name: np.array(vectors) for name, vectors in goals.items()}


def assert_same_goals(ours: dict[str, np.ndarray], theirs: dict[str, np.ndarray]) -> None:
    assert list(ours) == list(theirs)
    for name, goals in ours.items():
        np.testing.assert_array_equal(goals, theirs[name], err_msg=name)


def test_mt10_goals_are_those_metaworld_draws():
    ours = parse_metaworld_suite("MT10").draw_goals(MetaWorldOptions(goal_seed=7))
    assert_same_goals(ours, upstream_goals(metaworld.MT10(seed=7)))


@pytest.mark.slow
@pytest.mark.parametrize("suite", ["MT25", "MT50"])
def test_larger_suites_goals_are_those_metaworld_draws(suite):
    ours = parse_metaworld_suite(suite).draw_goals(MetaWorldOptions())
    assert_same_goals(ours, upstream_goals(getattr(metaworld, suite)(seed=0)))


@pytest.mark.parametrize("spec", ["MT1:peg-insert-side-v3", ["window-open-v3", "peg-insert-side-v3"]])
def test_a_single_task_has_the_goals_of_mt1(spec):
    goals = parse_metaworld_suite(spec).draw_goals(MetaWorldOptions(goal_seed=3))
    theirs = upstream_goals(metaworld.MT1("peg-insert-side-v3", seed=3))
    np.testing.assert_array_equal(goals["peg-insert-side-v3"], theirs["peg-insert-side-v3"])


def test_some_tasks_of_a_benchmark_keep_its_goals():
    options = MetaWorldOptions(goal_seed=2, n_goals=4)
    whole = draw_goals(SUITES["MT10"][:3], 4, 2)
    part = parse_metaworld_suite("MT10:pick-place-v3,push-v3").draw_goals(options)
    np.testing.assert_array_equal(part["pick-place-v3"], whole["pick-place-v3"])
    np.testing.assert_array_equal(part["push-v3"], whole["push-v3"])


def test_any_number_of_goals_equals_metaworlds(monkeypatch):
    many = draw_goals(["reach-v3"], 60, 5)["reach-v3"]
    np.testing.assert_array_equal(draw_goals(["reach-v3"], 3, 5)["reach-v3"], many[:3])
    monkeypatch.setattr(metaworld, "_N_GOALS", 60)
    np.testing.assert_array_equal(many, upstream_goals(metaworld.MT1("reach-v3", seed=5))["reach-v3"])


def test_drawing_leaves_global_state_alone():
    before, count = np.random.get_state(), metaworld._N_GOALS  # noqa: NPY002
    draw_goals(["push-v3"], 2, 0)
    after = np.random.get_state()  # noqa: NPY002
    np.testing.assert_array_equal(before[1], after[1])
    assert (before[2], metaworld._N_GOALS) == (after[2], count)


def test_unseen_goals_share_none_with_the_training_goals():
    suite = parse_metaworld_suite(["reach-v3", "drawer-open-v3"])
    seen = suite.draw_goals(MetaWorldOptions())
    unseen = suite.draw_goals(MetaWorldOptions(goals="unseen"))
    for name in seen:
        both = np.concatenate([seen[name], unseen[name]])
        assert len(np.unique(both, axis=0)) == len(both) == 100


def test_seeds_of_unseen_goals_are_their_own():
    seeds = [unseen_goal_seed(seed) for seed in range(50)]
    assert len(set(seeds)) == 50
    assert min(seeds) > 50
