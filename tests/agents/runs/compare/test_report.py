"""Reports from run folders: numbers, missing runs, and a self-contained page."""

from __future__ import annotations

import contextlib
import csv
import json
import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch
from finished_runs import STEPS, TASKS, correlation, curve, finish_all, plan, scores, seconds
from rich.console import Console

from mtrl_transfer import Record, Recorder
from mtrl_transfer.agents.runs.compare import content
from mtrl_transfer.agents.runs.compare.collect import collect
from mtrl_transfer.agents.runs.compare.command import run_comparison
from mtrl_transfer.agents.runs.compare.plan import Plan
from mtrl_transfer.agents.runs.compare.statistics import iqm, probability_of_improvement
from mtrl_transfer.agents.runs.compare.summary import Summary, summarise
from mtrl_transfer.agents.runs.exit_codes import Incomplete


def report(made: Plan) -> tuple[str, str, dict]:
    """HTML, Markdown and numbers of a report on what is there."""
    quiet = made.config.model_copy(update={"run": False})
    with contextlib.suppress(Incomplete):
        run_comparison(Plan(quiet, made.folder, made.runs, made.differences), Console(quiet=True))
    texts = [(made.folder / name).read_text(encoding="utf-8") for name in ("report.html", "report.md", "summary.json")]
    return texts[0], texts[1], json.loads(texts[2])


def summary_of(made: Plan) -> Summary:
    return summarise(collect(made, {}).runs, list(made.config.methods), made.config.baseline)


def test_summary_equals_the_run_folders(tmp_path: Path):
    made = plan(tmp_path)
    numbers = {"mean": (0, 2, 4), "pcgrad": (1, 3, 5)}  # seed by seed
    finish_all(made)
    found = summary_of(made)
    assert found.tasks == TASKS[:3]
    values = {method: np.array([scores(n)[:3] for n in own]) for method, own in numbers.items()}
    for method, own in numbers.items():
        of = found.methods[method]
        assert of.seeds == (1, 2, 3)
        np.testing.assert_allclose(of.scores, values[method])
        assert of.iqm.value == pytest.approx(float(iqm(values[method])))
        assert of.mean.value == pytest.approx(values[method].mean())
        assert of.worst[0] == pytest.approx(values[method].mean())  # there are but three
        heights = np.array([curve(n)[:, :3] for n in own])  # [seeds, steps, tasks]
        trapezoids = [(heights[:, i] + heights[:, i + 1]) / 2 for i in range(3)]
        assert of.area is not None
        assert of.area.value == pytest.approx(np.mean(trapezoids))
        assert list(of.at_transitions) == [200, 400, 800]
        for at, place in ((200, 0), (400, 1), (800, 3)):
            assert of.at_transitions[at].value == pytest.approx(float(iqm(heights[:, place])))
        shortest = min(seconds(n)[-1] for n in range(6))
        assert list(of.at_seconds) == pytest.approx([shortest / 4, shortest / 2, shortest])
        by_then = np.array([curve(n)[np.flatnonzero(seconds(n) <= shortest)[-1], :3] for n in own])
        assert of.at_seconds[shortest].value == pytest.approx(float(iqm(by_then)))
        assert (of.update_ms, of.transference_ms) == (pytest.approx(1e3 * 25 / 200), pytest.approx(1e3 * 5 / 200))
        assert of.seconds == 36.0
    assert found.methods["mean"].improvement is None
    better = found.methods["pcgrad"].improvement
    assert better.value == pytest.approx(float(probability_of_improvement(values["pcgrad"], values["mean"])))


@pytest.mark.parametrize("seeds", [9, 10])
def test_few_seeds_give_no_p_value(tmp_path: Path, seeds: int):
    made = plan(tmp_path)
    finish_all(made)
    runs = [replace(run, seed=seed) for run in collect(made, {}).runs for seed in range(seeds) if run.seed == 1]
    found = summarise(runs, ["mean", "pcgrad"], "mean")
    method = found.methods["pcgrad"]
    assert (method.p_value is None) == (method.seeds_needed is None) == (seeds < 10)
    assert ("p = " in content.verdicts(found)[0]) == (seeds == 10)
    assert ("no p-value" in " ".join(content.warnings(found))) == (seeds < 10)


def test_no_value_before_the_first_evaluation(tmp_path: Path):
    made = plan(tmp_path)
    finish_all(made)
    slow = made.runs[1].planned.run_dir / "metrics.jsonl"  # a pcgrad run that is ten times as slow
    rows = [json.loads(line) for line in slow.read_text(encoding="utf-8").splitlines()]
    lines = [json.dumps({**row, "time/training_seconds": 10 * row["time/training_seconds"]}) for row in rows]
    slow.write_text("\n".join(lines) + "\n", encoding="utf-8")
    found = summary_of(made)
    assert all(value is None for value in found.methods["pcgrad"].at_seconds.values())
    assert found.methods["mean"].at_seconds[40.0] is not None
    assert "–" in report(made)[1]


class _Loads(HTMLParser):
    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [value or "" for name, value in attrs if name in ("src", "href")]


def test_page_is_complete_and_self_contained(tmp_path: Path):
    made = plan(tmp_path)
    numbered = finish_all(made)
    (made.folder / "figures").mkdir()
    (made.folder / "figures" / "of_an_earlier_report.svg").touch()
    recorder = Recorder(made.runs[0].planned.run_dir / "transference.records", TASKS)
    for step in STEPS:
        recorder.record(step, {role: Record(torch.ones(4), pairwise=torch.rand(4, 4)) for role in ("critic", "actor")})
    html, markdown, told = report(made)
    assert all(link.startswith("data:image/svg+xml;base64,") for link in _Loads(html).found)
    assert "@import" not in html
    assert "url(" not in html
    assert html.count("Transference of the critic in the") == 2 * 3  # alt text and caption, three phases
    files = {path.name: path.read_text(encoding="utf-8") for path in (made.folder / "figures").iterdir()}
    assert {f"figures/{name}" for name in files} == set(re.findall(r"!\[.*?\]\((.*?)\)", markdown))
    assert {"final_success_by_method.svg", "success_over_transitions.svg", "mean_critic_last_third.svg"} <= files.keys()
    assert len(files) == html.count("<figure>")
    assert all(text.rstrip().endswith("</svg>") for text in files.values())
    for page in (html, markdown):
        for label in numbered:
            assert f"scripts/train.py {made.folder / 'runs' / label}.yaml" in page
        for words in ("torch", "mujoco", "Too few seeds (mean: 3, pcgrad: 3)", "Point-4", "deterministic policy"):
            assert words in page
        for method in ("mean", "pcgrad"):
            estimate = told["methods"][method]["iqm"]
            assert f"{estimate['value']:.2f} [{estimate['low']:.2f}, {estimate['high']:.2f}]" in page
    assert told["missing"] == []


def test_prediction_correlation_is_reported_by_phase(tmp_path: Path):
    made = plan(tmp_path)
    finish_all(made)
    html, _, told = report(made)
    found = told["methods"]["pcgrad"]["prediction"]
    expected = [np.mean([correlation(number, step) for number in (1, 3, 5)]) for step in STEPS[1:]]
    assert [phase["value"] for phase in found["critic, exact"]] == pytest.approx(expected)
    assert found["critic, exact"][0]["low"] < expected[0] < found["critic, exact"][0]["high"]
    assert found["actor, exact"] == found["critic, first order"] == [None, None, None]
    assert html.count("<td>critic, exact</td>") == 2
    assert "first order</td>" not in html


def table(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))


def test_csv_files_hold_the_same_numbers(tmp_path: Path):
    made = plan(tmp_path)
    finish_all(made)
    report(made)
    rows = table(made.folder / "scores.csv")
    assert len(rows) == 6 * 4
    for row in rows:
        number = 2 * (int(row["seed"]) - 1) + (row["method"] == "pcgrad")
        task = TASKS.index(row["task"])
        assert float(row["success"]) == scores(number)[task]
        assert (row["solvable"] == "True") == (row["task"] != "noise")
    rows = table(made.folder / "curves.csv")
    assert len(rows) == 6 * 4 * 4
    for row in rows:
        number = 2 * (int(row["seed"]) - 1) + (row["method"] == "pcgrad")
        place = STEPS.index(int(row["transitions"]))
        assert float(row["training_seconds"]) == seconds(number)[place]
        assert float(row["success"]) == curve(number)[place, TASKS.index(row["task"])]


def damage_log(folder: Path) -> None:
    lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    (folder / "metrics.jsonl").write_text("\n".join([lines[0], lines[1][:30], *lines[2:]]) + "\n", encoding="utf-8")


def cut_log(folder: Path) -> None:
    (folder / "evaluation.json").unlink()
    text = (folder / "metrics.jsonl").read_text(encoding="utf-8")
    (folder / "metrics.jsonl").write_text(text[: text.rindex('{"step": 800') + 40], encoding="utf-8")


def another_protocol(folder: Path) -> None:
    card = json.loads((folder / "protocol.json").read_text(encoding="utf-8"))
    card["environment"]["horizon"] = 60
    (folder / "protocol.json").write_text(json.dumps(card), encoding="utf-8")


def another_config(folder: Path) -> None:
    text = (folder / "config.yaml").read_text(encoding="utf-8")
    (folder / "config.yaml").write_text(text.replace("gamma: 0.8", "gamma: 0.7"), encoding="utf-8")


def another_budget(folder: Path) -> None:
    text = (folder / "evaluation.json").read_text(encoding="utf-8")
    (folder / "evaluation.json").write_text(text.replace('"step": 800', '"step": 799'), encoding="utf-8")


REFUSED = "mean_s3 is left out, for it does not belong"
FAULTS = {
    "mean_s3: not begun": shutil.rmtree,
    "mean_s3: not finished: 600 of 800 transitions": cut_log,
    "mean_s3: not finished: 799 of 800 transitions": another_budget,
    "mean_s3: evaluation.json cannot be read": lambda folder: (folder / "evaluation.json").write_text("{"),
    "mean_s3: evaluation.json cannot be read (should be an object": lambda folder: (
        folder / "evaluation.json"
    ).write_text("[]"),
    "mean_s3: evaluation.json cannot be read (step: Field required)": lambda folder: (
        folder / "evaluation.json"
    ).write_text("{}"),
    "mean_s3: protocol.json cannot be read": lambda folder: (folder / "protocol.json").unlink(),
    "mean_s3: holds no run that can be read": lambda folder: (folder / "config.yaml").write_text("a: [", "utf-8"),
    f"{REFUSED}: environment.horizon is 60, not 50": another_protocol,
    f"{REFUSED}: agent.gamma is 0.7, not 0.8": another_config,
}


@pytest.mark.parametrize("told", FAULTS)
def test_incomplete_runs_are_named_and_left_out(tmp_path: Path, told: str):
    made = plan(tmp_path)
    finish_all(made)
    FAULTS[told](made.folder / "runs" / "mean_s3")
    collected = collect(made, {})
    assert len(collected.missing) == 1
    assert collected.missing[0].startswith(told)
    methods = summary_of(made).methods
    assert (methods["mean"].seeds, methods["pcgrad"].seeds) == ((1, 2), (1, 2, 3))
    np.testing.assert_allclose(methods["mean"].scores, [scores(0)[:3], scores(2)[:3]])


def test_report_is_written_for_complete_runs(tmp_path: Path):
    made = plan(tmp_path)
    finish_all(made, besides=("mean_s3",))
    another_config(made.folder / "runs" / "pcgrad_s2")
    html, markdown, numbers = report(made)
    for page in (html, markdown):
        assert "2 of 6 runs are missing here" in page
        assert "mean_s3: not begun" in page
        assert "pcgrad_s2 is left out, for it does not belong: agent.gamma is 0.7, not 0.8" in page
    assert [of["seeds"] for of in numbers["methods"].values()] == [[1, 2], [1, 3]]


def test_damaged_log_only_removes_the_runs_curves(tmp_path: Path):
    made = plan(tmp_path)
    finish_all(made)
    damage_log(made.folder / "runs" / "mean_s3")
    collected, of = collect(made, {}), summary_of(made).methods["mean"]
    assert collected.notes == ["mean_s3: metrics.jsonl has 1 damaged lines; its curves are left out"]
    assert collected.missing == []
    assert of.seeds == (1, 2, 3)
    assert of.over_transitions is not None
    assert of.over_transitions.value[-1] == pytest.approx(float(iqm(np.array([scores(0)[:3], scores(2)[:3]]))))


def test_report_without_runs(tmp_path: Path):
    made = plan(tmp_path)
    _, markdown, numbers = report(made)
    assert "6 of 6 runs are missing here" in markdown
    assert numbers["methods"] == {}


def test_baseline_without_runs(tmp_path: Path):
    made = plan(tmp_path)
    finish_all(made, besides=("mean_s1", "mean_s2", "mean_s3"))
    _, markdown, numbers = report(made)
    assert "The baseline mean has no finished run" in markdown
    assert numbers["methods"]["pcgrad"]["improvement"] is None


def test_report_says_why_a_run_failed(tmp_path: Path):
    made = plan(tmp_path)
    finish_all(made, besides=("mean_s2",))
    assert collect(made, {"mean_s2": "killed by SIGKILL"}).missing == ["mean_s2: killed by SIGKILL"]


def test_interval_of_one_seed_is_a_point(tmp_path: Path):
    made = plan(tmp_path, "seeds=[1]")
    finish_all(made)
    _, markdown, numbers = report(made)
    of = numbers["methods"]["pcgrad"]
    assert of["iqm"]["low"] == of["iqm"]["high"] == of["iqm"]["value"]
    assert "no number of seeds needed" in markdown
    assert of["improvement"]["value"] != 0.5
    assert "pcgrad against mean: probability of improvement" in markdown


def test_run_from_another_machine_is_noted(tmp_path: Path):
    made = plan(tmp_path)
    finish_all(made)
    path = made.folder / "runs" / "mean_s3" / "protocol.json"
    card = json.loads(path.read_text(encoding="utf-8"))
    card["machine"]["cpu"], card["versions"]["torch"] = "another", "another"
    path.write_text(json.dumps(card), encoding="utf-8")
    _, markdown, numbers = report(made)
    assert numbers["methods"]["mean"]["seeds"] == [1, 2, 3]
    others = "(unlike the other 5: mean 3)"
    assert f"Not all runs have the same machine: seconds can't be compared between them {others}" in markdown
    assert f"Not all runs have the same versions {others}" in markdown


def test_different_commits_are_listed_by_method_and_seed(tmp_path: Path):
    made = plan(tmp_path, "seeds=[1,2,3,4,5,7]")
    finish_all(made)
    commits = {"mean_s1": "b", "mean_s2": "b", "mean_s3": "b", "mean_s5": "b", "pcgrad_s7": "c"}
    for run in made.runs:
        path = run.planned.run_dir / "protocol.json"
        card = json.loads(path.read_text(encoding="utf-8"))
        card["commit"] = commits.get(run.planned.label, "a")
        path.write_text(json.dumps(card), encoding="utf-8")
    notes = [note for note in collect(made, {}).notes if "commit" in note]
    assert notes == ["Not all runs have the same commit (unlike the other 7: mean 1-3, 5; pcgrad 7)"]


@pytest.mark.parametrize(
    ("copied", "told"),
    [("mean_s2", "pcgrad's combiner.name is 'mean', not 'pcgrad'"), ("pcgrad_s1", "seed is 1, not 2")],
)
def test_run_under_a_wrong_name_is_left_out(tmp_path: Path, copied: str, told: str):
    made = plan(tmp_path)
    finish_all(made)
    runs = made.folder / "runs"
    shutil.rmtree(runs / "pcgrad_s2")
    shutil.copytree(runs / copied, runs / "pcgrad_s2")
    collected = collect(made, {})
    assert collected.missing == [f"pcgrad_s2 is left out, for it does not belong: {told}"]
    assert len(collected.runs) == 5


def test_allowed_differences_are_reported(tmp_path: Path):
    made = plan(tmp_path, "allow_differences=true", "methods.pcgrad.agent.gamma=0.7")
    finish_all(made)
    html, markdown, numbers = report(made)
    assert numbers["methods"]["pcgrad"]["seeds"] == [1, 2, 3]
    assert "agent.gamma: mean has 0.8, pcgrad has 0.7" in markdown
    assert "The methods differ in more than the combiner" in html
