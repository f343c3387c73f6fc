"""From config to report on four Point tasks; the engine's processes are replaced by this one."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from mtrl_transfer import Recording
from mtrl_transfer.agents import RoutedAgent, load_agent
from mtrl_transfer.agents.runs import cli
from mtrl_transfer.agents.runs.compare.one_run import run_or_resume
from mtrl_transfer.agents.runs.compare.planned import RunResult, check_planned
from mtrl_transfer.agents.runs.config.loading import load_config
from mtrl_transfer.agents.runs.config.schema import EnvConfig
from mtrl_transfer.agents.runs.errors import InputError
from mtrl_transfer.agents.runs.grouping import stages
from mtrl_transfer.agents.runs.grouping.choose import Candidate, choose, read_choices, write_choices
from mtrl_transfer.agents.runs.grouping.history import AffinityHistory, Series, read_history
from mtrl_transfer.agents.runs.grouping.options import GroupOptions, load_plan
from mtrl_transfer.agents.runs.grouping.results import Results
from mtrl_transfer.agents.runs.grouping.trained import group_runs, planned, some_tasks
from mtrl_transfer.grouping import Grouping, standardized

NAMES = ("point-a0", "point-b0", "point-a1", "noise")
SHORT = (
    "env.id=Point-4",
    "total_timesteps=400",  # 100 vector steps
    "agent.learning_starts=100",
    "agent.batch_size=32",
    "measure.affinity_every=3",
    "measure.affinity_rows=4",
    "evaluation.final_n_goals=2",
    "log.record_every=10",
    "log.every=400",
)
BRIEF = "total_timesteps=200"


def short(*overrides: str) -> list[str]:
    """SHORT, with others in place of its own."""
    keys = [override.partition("=")[0] for override in overrides]
    return [*(line for line in SHORT if line.partition("=")[0] not in keys), *overrides]


def arguments(stage: str, folder: Path, *more: str) -> list[str]:
    own = [f"groups.folder={folder}", "groups.seeds=[1]", "groups.by=[affinity,covariance]"]
    return [stage, "point_groups", *short(*more), *own]


@pytest.fixture
def done(monkeypatch) -> list[str]:
    """Labels of the runs that were really trained, in order."""
    trained: list[str] = []

    def in_this_process(runs, engine, console):
        check_planned(runs)
        for run in runs:
            if not (run.run_dir / "evaluation.json").exists():
                trained.append(run.label)
            run_or_resume(run, console)
        return [RunResult(run.label, run.run_dir) for run in runs]

    monkeypatch.setattr(stages, "run_all", in_this_process)
    return trained


def test_all_stages_from_config_to_report(tmp_path, done, capsys):
    folder = tmp_path / "groups"
    assert cli.group(arguments("choose", folder, BRIEF)) == 0, capsys.readouterr().err
    assert done == ["tasks0-1-2-3_steps50_s1"]
    # The next stage trains what the file says: here, groups with one in common, and one of them overlapping.
    content = json.loads((folder / "groupings.json").read_text())
    content["groupings"] = {
        "together": {"groups": [[0, 1, 2, 3]], "assignment": [0, 0, 0, 0]},
        "mine_3": {"groups": [[0, 2], [1], [3]], "assignment": [0, 1, 0, 2]},
        "other_3": {"groups": [[0, 2], [0, 3], [1]], "assignment": [1, 2, 0, 1]},
        "one_per_task": {"groups": [[0], [1], [2], [3]], "assignment": [0, 1, 2, 3]},
        "unwanted_2": {"groups": [[0, 1], [2, 3]], "assignment": [0, 0, 1, 1]},
    }
    (folder / "groupings.json").write_text(json.dumps(content))
    report = [*arguments("report", folder, BRIEF), "groups.only=[mine,other_3,one_per_task]"]
    assert cli.group(report) == 0, capsys.readouterr().err
    labels = ["tasks0-2", "tasks0-3", "tasks0", "tasks1", "tasks2", "tasks3"]
    assert sorted(done[1:]) == sorted(f"{label}_steps50_s1" for label in labels)
    _check_routed(folder)
    _check_report(folder)
    done.clear()
    capsys.readouterr()
    assert cli.group(report) == 0
    assert done == []
    assert len(list((folder / "report").iterdir())) == 1
    assert cli.group([*arguments("report", folder, BRIEF), "groups.random=3"]) == 2
    told = capsys.readouterr().err.replace("\n", "")
    assert "groups.random=3" in told
    assert "groupings.json was chosen with" in told
    # Such a folder is evaluated like any other run's.
    assert cli.evaluate([str(folder / "routed" / "mine_3_s1"), "episodes=2"]) == 0
    again = json.loads((folder / "routed" / "mine_3_s1" / "evaluation_train.json").read_text())
    told = json.loads((folder / "routed" / "mine_3_s1" / "evaluation.json").read_text())
    assert again["mean_success"] == told["mean_success"]
    for name in NAMES:
        assert again["tasks"][name] == pytest.approx(told["tasks"][name], abs=1e-3)


def _check_routed(folder: Path) -> None:
    """Each task is played as in the evaluation of the run that serves it."""
    agent = load_agent(folder / "routed" / "other_3_s1" / "agent.zip")
    assert isinstance(agent, RoutedAgent)
    assert [one.task_names for one in agent.agents] == [["point-a0", "point-a1"], ["point-a0", "noise"], ["point-b0"]]
    found = json.loads((folder / "routed" / "other_3_s1" / "evaluation.json").read_text())
    assert found["step"] == 50 * 5
    for name, label in zip(NAMES, ("tasks0-3", "tasks1", "tasks0-2", "tasks0-3"), strict=True):
        own = json.loads((folder / "runs" / f"{label}_steps50_s1" / "evaluation.json").read_text())
        assert found["tasks"][name]["return"] == pytest.approx(own["tasks"][name]["return"], abs=1e-3)


def _check_report(folder: Path) -> None:
    page = (folder / "report.html").read_text()
    assert "href=" not in page  # whole by itself
    for label in ("together", "mine_3", "other_3", "best found in hindsight, 2"):
        assert label in page
    assert page.count("data:image/svg+xml;base64") == len(list((folder / "figures").glob("*.svg"))) == 4
    text = (folder / "report.md").read_text()
    assert "| task | alone | together | gain | received, affinity_critic | received, affinity_actor |" in text
    assert "By covariance; repeatability " in text
    assert "| together | 1 | point-a0, point-b0, point-a1, noise |" in text
    events = EventAccumulator(str(folder / "report")).Reload()
    assert {"groups/groups_affinity", "groups/predicted_realised"} <= set(events.Tags()["images"])
    assert [event.step for event in events.Scalars("groups_success/mine")] == [3]


def test_failed_run_is_reported(tmp_path, monkeypatch, capsys):
    failed = [RunResult("joint", tmp_path, "out of memory")]
    monkeypatch.setattr(stages, "run_all", lambda runs, engine, console: failed)
    assert cli.group(arguments("report", tmp_path)) == 1
    assert capsys.readouterr().err == "joint failed: out of memory\n"


def test_affinities_are_means_of_records(tmp_path, done):
    assert cli.group(arguments("measure", tmp_path, "measure.every=4")) == 0
    (folder,) = (path for path in (tmp_path / "runs").iterdir() if path.is_dir())
    history = read_history([folder])
    critic = Recording(folder / "transference.records").of("critic")
    counts = critic["measurements"]
    assert counts.sum() > 10
    logs = {name: -np.log(1 - critic[name]) for name in ("pairwise", "one_step")}
    whole = (logs["pairwise"] * counts[:, None, None]).sum(axis=0) / counts.sum()
    np.testing.assert_allclose(history.affinity("affinity_critic"), whole, rtol=1e-4)
    np.testing.assert_allclose(history.affinity("one_step_critic"), logs["one_step"].mean(axis=0), rtol=1e-4)
    actor = Recording(folder / "transference.records").of("actor")
    late = Series(actor["pairwise"], actor["measurements"]).part("late").mean()
    np.testing.assert_allclose(history.affinity("affinity_actor", "late"), late, rtol=1e-5)
    cosine = history.affinity("cosine_critic")
    np.testing.assert_allclose(cosine.diagonal(), 1.0)
    first = np.mean([gram[0, 1] / np.sqrt(gram[0, 0] * gram[1, 1]) for gram in critic["gramian"]])
    assert cosine[0, 1] == pytest.approx(first, abs=1e-6)
    both = standardized(history.affinity("cosine_critic")) + standardized(history.affinity("cosine_actor"))
    np.testing.assert_allclose(history.affinity("cosine"), both)


def test_received_affinity_is_the_mean_over_givers(history):
    np.testing.assert_allclose(history.received("affinity_critic"), BLOCKS.sum(axis=0) / 3)


def test_reliability_of_known_noise():
    """Tables of as much noise as signal: the mean of n has a reliability of n / (n + 1)."""
    rng = np.random.default_rng(0)
    signal, other = rng.normal(size=(2, 40, 40))

    def noisy(n, drift=0.0, signal=signal):
        tables = signal + drift * np.arange(n)[:, None, None] * other + rng.normal(size=(n, 40, 40))
        return {"affinity_critic": Series(tables, np.ones(n))}

    def reliability(*runs):
        return AffinityHistory(("task",) * 40, runs).reliability("affinity_critic")

    assert reliability(noisy(8)).halves == pytest.approx(8 / 9, abs=0.03)
    assert reliability(noisy(8, drift=9.0)).halves > 0.95
    found = reliability(noisy(1), noisy(1), noisy(1))
    assert found.halves is None
    assert found.runs == pytest.approx(3 / 4, abs=0.04)
    assert str(reliability(noisy(8, signal=0 * signal))).endswith("does not repeat")
    assert "not" not in str(reliability(noisy(8)))


BLOCKS = np.array([[0, -1, 2, -3], [-1, 0, -2, 1], [2, -1, 0, -2], [-3, 1, -1, 0]], float)


def measured(table: np.ndarray) -> AffinityHistory:
    """One table in two windows of critic and actor."""
    series = Series(np.stack([table, table]), np.array([5, 5]))
    return AffinityHistory(NAMES, [{"affinity_critic": series, "affinity_actor": series}])


@pytest.fixture
def history() -> AffinityHistory:
    return measured(BLOCKS)


def test_choice_includes_controls_and_survives_its_file(history, tmp_path):
    options = GroupOptions(n_groups=(2,), random=2, by=("affinity", "affinity_actor"))
    choices = choose(history, options)
    assert [row["n_groups"] for row in choices.selections["affinity"]] == [1, 2, 3, 4]
    groupings = {one.label: one.grouping for one in choices.candidates}
    assert groupings["affinity_2"].groups == groupings["tag_2"].groups == ((0, 2), (1, 3))
    assert groupings["together"].groups == ((0, 1, 2, 3),)
    assert len(groupings["one_per_task"].groups) == 4
    assert {"random0_2", "random1_2", "cluster_2"} <= set(groupings)
    every = choose(history, GroupOptions(n_groups=(4,), random=9)).candidates  # there is only one such grouping
    assert [one.label for one in every if one.label.startswith("random")] == ["random0_4"]
    write_choices(choices, options, tmp_path)
    again = read_choices(options, tmp_path)
    assert [(one.label, one.grouping) for one in again.candidates] == list(groupings.items())
    np.testing.assert_array_equal(again.candidates[0].predicted, choices.candidates[0].predicted)
    assert again.reliabilities == choices.reliabilities
    assert choices.reliabilities["affinity"] == (pytest.approx(1.0), None)
    assert [one.label for one in again.only(["affinity_actor"]).candidates] == ["together", "affinity_actor_2"]
    with pytest.raises(InputError, match="best is no grouping; there are together, one_per_task, affinity_2"):
        again.only(["best"])
    assert np.isnan(next(one for one in again.candidates if one.label == "one_per_task").predicted).all()


def test_chosen_groups_respect_limits():
    """Task 0 is what all others want: without a limit it trains with each of them."""
    wanted = np.full((4, 4), -1.0)
    wanted[0], wanted[1, 0] = 1.0, 1.0
    history = measured(wanted)

    def chosen(number, **limits):
        options = GroupOptions(n_groups=(number,), **limits)
        return next(one for one in choose(history, options).candidates if one.label == f"affinity_{number}").grouping

    assert [len(group) for group in chosen(3).groups] == [2, 2, 2]
    assert sum(len(group) for group in chosen(3, max_total_size=4).groups) == 4
    assert max(len(group) for group in chosen(2, max_size=2).groups) == 2
    assert min(len(group) for group in chosen(2, singleton_score=9.0, max_total_size=4).groups) == 1
    with pytest.raises(InputError, match=r"n_groups=2: max_total_size=3 must be at least 4"):
        chosen(2, max_total_size=3)


def test_budgets_are_equal_in_transitions_or_compute(tmp_path):
    overlapping = Candidate("x", Grouping(((0, 1, 2), (1, 2, 3)), (0, 0, 0, 1)), np.zeros(4))
    for equal, steps in (("transitions", 100), ("compute", 66)):
        plan = load_plan("point_groups", [*SHORT, f"groups.equal={equal}", f"groups.folder={tmp_path}"])
        runs = group_runs(plan, overlapping.grouping, 7)
        configs = [planned(plan, run).config for run in runs]
        assert [config.total_timesteps for config in configs] == [3 * steps, 3 * steps]
        assert [config.agent.batch_size for config in configs] == [24, 24]
        assert configs[1].env.id == "Point-4:point-b0,point-a1,noise"
        assert {config.seed for config in configs} == {7}
        assert configs[0].agent.learning_starts == 75
        assert configs[0].measure.affinity_every is None
        for config in configs:
            assert load_config("point_groups", short(f"env.id={config.env.id}", "agent.batch_size=24"))


def test_tasks_can_be_selected_from_any_suite():
    assert some_tasks(EnvConfig(id="MT10"), ["push-v3"]) == "MT10:push-v3"
    assert some_tasks(EnvConfig(id="MT10:push-v3,reach-v3"), ["reach-v3"]) == "MT10:reach-v3"
    assert some_tasks(EnvConfig(id=("push-v3", "reach-v3")), ["reach-v3"]) == ("reach-v3",)
    assert some_tasks(EnvConfig(id="MT1:push-v3"), ["push-v3"]) == "MT1:push-v3"
    assert some_tasks(EnvConfig(id="Point-5-rotated"), ["noise"]) == "Point-5-rotated:noise"


def fake_results(history, success, returns):
    plan = load_plan("point_groups", [*SHORT])
    choices = choose(history, GroupOptions(n_groups=(2,), random=4))
    evaluations = {}
    for index, candidate in enumerate(choices.candidates):
        tasks = {
            name: {"success": success(candidate, task), "return": returns(index, task)}
            for task, name in enumerate(NAMES)
        }
        about = {"mean_success": 0.5, "step": 800, "solvable": [True, True, True, False]}
        evaluations[candidate.label] = [{"tasks": tasks, **about}]
    return Results(plan, choices, evaluations)


def test_gain_from_company_is_foretold_by_its_own_ranks(history):
    """Success of a task is 0.1 to 0.3 alone, and more together in the order of the tasks."""

    def success(candidate, task):
        return (0.1 if candidate.label == "one_per_task" else 0.2) * (1 + task)

    results = fake_results(history, success, lambda index, task: 0.0)
    np.testing.assert_allclose(results.company_gains, [[0.1, 0.2, 0.3, 0.4]])
    assert results.foretold(np.array([3.0, 5.0, 9.0, -1.0])) == pytest.approx((1.0, 1.0, 1.0))  # the last is unsolvable
    assert results.foretold(np.array([9.0, 5.0, 3.0, -1.0])).value == pytest.approx(-1.0)
    assert results.foretold(np.ones(4)) is None


def test_hindsight_takes_each_task_from_its_best_group(history):
    def success(candidate, task):
        group = candidate.grouping.groups[candidate.grouping.assignment[task]]
        return {(0, 2): 0.9, (1, 3): 0.8, (0, 1, 2, 3): 0.5}.get(group, 0.1)

    found, value = fake_results(history, success, lambda index, task: 0.0).best_found(2)
    assert found.groups == ((0, 2), (1, 3))
    assert value == pytest.approx((0.9 + 0.8 + 0.9) / 3)  # the harmful task does not count


def test_rank_correlation_is_over_different_groups(history):
    results = fake_results(history, lambda candidate, task: 0.0, lambda index, task: 0.0)
    assert np.isnan(results.rank_correlation()).all()
    predicted = results.predicted
    results = fake_results(history, lambda *_: 0.0, lambda index, task: float(np.nan_to_num(-predicted[index, task])))
    ranks = results.rank_correlation()
    np.testing.assert_allclose(ranks[np.isfinite(ranks)], -1.0)
    assert np.isfinite(ranks).any()


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["groups.n_groups=[0]", "agent.taau=1"], ["groups.n_groups", "unknown key agent.taau"]),
        (["groups.sedes=[1]"], ["unknown key groups.sedes; did you mean seeds?"]),
        (["groups.engine.address=x"], ["groups.engine.address='x' is for engine=ray"]),
        (["groups.by=[affinty]"], ["groups.by", "affinity_critic"]),
        (["run_dir=x"], ["groups.folder="]),
        (["seed=3"], ["groups.seeds="]),
        (["log.record_every=null", "env.id=Point-4"], ["log.record_every=null: groups are chosen from the records"]),
        (
            short("log.record_every=77", "groups.n_groups=[2,5]"),
            ["log.record_every=77 should be at most 75, the updates", "groups.n_groups=5 should be at most 4"],
        ),
    ],
)
def test_all_bad_input_is_reported_at_once(overrides, told, capsys, tmp_path):
    assert cli.group(["choose", "point_groups", f"groups.folder={tmp_path}", *overrides]) == 2
    error = capsys.readouterr().err
    for part in told:
        assert part in error
    assert not list(tmp_path.iterdir())


def test_too_many_groups_or_no_record_is_refused(history, tmp_path):
    with pytest.raises(InputError, match=r"n_groups=5 should be at most 4"):
        choose(history, GroupOptions(n_groups=(5,)))
    with pytest.raises(InputError, match=r"nothing was recorded, see log\.record_every"):
        read_history([tmp_path])


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("[]", "object"),
        ("[" * 100_000, "recursion limit|EOF"),
        ({"tasks": 3}, "tasks: "),
        ({"affinities": {"affinity": [[0.0]]}}, r"affinity should be \[4, 4\]"),
        ({"affinities": {"affinity": float("inf")}}, r"affinities\.affinity: "),
        ({"affinities": {}}, "affinities: "),
        ({"reliabilities": {}}, "should have the same names"),
        (
            {"groupings": {"mine": {"groups": [[0, 1, 2, 3]], "assignment": [0, 0, 0]}}},
            "mine should assign the tasks 0 to 3",
        ),
        ({"groupings": {"mine": {"groups": [[0, 1, 2], [4]], "assignment": [0, 0, 0, 1]}}}, "mine should assign"),
        (
            {"groupings": {"mine": {"groups": [[0, 1], [2, 3]], "assignment": [0, 1, 1, 1]}}},
            "mine assigns a task to a group",
        ),
        ({"groupings": {"mine": {"groups": {"a": 1}, "assignment": []}}}, "groupings.mine.groups"),
        ({"groupings": {"mine": {"groups": [[0, 1, 2, 3]], "serves": [0] * 4}}}, "groupings.mine.assignment"),  # of 0.1
        ({"selections": {"affinity": [{}]}}, r"selections\.affinity\.0\.n_groups"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_strange_groupings_are_told_by_file(history, tmp_path, change, told):
    options = GroupOptions()
    path = write_choices(choose(history, options), options, tmp_path)
    text = change if isinstance(change, str) else json.dumps(json.loads(path.read_text()) | change)
    path.write_text(text)
    with pytest.raises(InputError, match=rf"groupings\.json cannot be read: .*({told})"):
        read_choices(options, tmp_path)


def test_damaged_records_are_told_by_file(tmp_path):
    (tmp_path / "transference.records").write_bytes(b"\xff\n")
    with pytest.raises(InputError, match=r"transference\.records is not a recording"):
        read_history([tmp_path])
