"""From a comparison's YAML to its runs; bad input costs one message and writes nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
from finished_runs import COMPARISON, plan

from mtrl_transfer.agents.runs import cli
from mtrl_transfer.agents.runs.compare import command
from mtrl_transfer.agents.runs.compare.plan import load_plan
from mtrl_transfer.agents.runs.compare.schema import CompareConfig
from mtrl_transfer.agents.runs.config.loading import load_config
from mtrl_transfer.agents.runs.config.yaml_files import comparisons


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    inside = tmp_path / "empty"
    inside.mkdir()
    monkeypatch.chdir(inside)

    def refuse(*_: object) -> None:
        raise AssertionError("work has begun")

    monkeypatch.setattr(command, "run_all", refuse)
    return inside


def test_methods_times_seeds_seed_by_seed(tmp_path: Path):
    made = plan(tmp_path / "c")
    assert [run.planned.label for run in made.runs] == [
        "mean_s1", "pcgrad_s1", "mean_s2", "pcgrad_s2", "mean_s3", "pcgrad_s3",
    ]  # fmt: skip
    assert {run.planned.run_dir.parent for run in made.runs} == {tmp_path / "c" / "out" / "runs"}
    for run in made.runs:
        config = run.planned.resolved
        assert (config.combiner.name, config.seed, config.name) == (run.method, run.seed, run.method)
        assert (config.total_timesteps, config.agent.batch_size, config.threads) == (800, 32, 1)
        assert config.agent.learning_rate == load_config("point").agent.learning_rate


OTHER_THAN_COMBINERS = {
    "mt10_alignment": "agent.policy_kwargs.",
    "point_rotated": "agent.policy_kwargs.",
    "point_reweighting": "reweighting.rank",
}


def test_the_presets_are_fair():
    for name in comparisons():
        made = load_plan(name)
        # Combiners are compared on equal terms; the comparisons of alignment and reweighting say in what they differ.
        differs = OTHER_THAN_COMBINERS.get(name)
        assert all(differs is not None and difference.startswith(differs) for difference in made.differences)
        assert bool(made.differences) == (differs is not None)
        few = {"point": 3, "mt10": 3, "mt10_laptop": 3, "pendulums": 5, "when": 10}
        assert len(set(made.config.seeds)) == few.get(name, 30 if differs is None else 5)
        assert made.folder == Path("runs") / f"compare_{name}"
    assert {run.method for run in load_plan("mt10").runs} == {"mean", "pcgrad", "transference", "random_drop"}
    assert {run.planned.config.total_timesteps for run in load_plan("mt10").runs} == {500_000}


def test_a_method_keeps_or_drops_the_bases_combiner_settings(tmp_path: Path):
    text = COMPARISON.replace(
        "config:", "config:\n  combiner: {name: transference, kwargs: {every: 7}}"
    ).replace("baseline", "  \nbaseline")  # fmt: skip
    text = text.replace("seeds:", "  ours: {}\n  often: {combiner: {kwargs: {every: 1}}}\nseeds:")
    kwargs = {run.method: run.planned.config.combiner.kwargs for run in plan(tmp_path / "c", text=text).runs}
    below = load_config("point").combiner.kwargs
    assert kwargs == {"mean": {}, "pcgrad": {}, "ours": {**below, "every": 7}, "often": {**below, "every": 1}}


def test_a_difference_is_refused_and_named_unless_allowed(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    text = COMPARISON.replace("{name: pcgrad}}", "{name: pcgrad}, agent: {gamma: 0.5}}")
    made = plan(tmp_path / "c", "allow_differences=true", text=text)
    assert made.differences == ("agent.gamma: mean has 0.8, pcgrad has 0.5",)
    code = cli.compare([str(tmp_path / "c" / "comparison.yaml")])
    told = capsys.readouterr().err
    assert code == 2
    assert made.differences[0] in told
    assert "unless allow_differences=true" in told


def test_other_tasks_are_refused_whatever_is_allowed(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    text = COMPARISON.replace("{name: pcgrad}}", "{name: pcgrad}, env: {id: Point-5}, agent: {batch_size: 40}}")
    plan_of = tmp_path / "comparison.yaml"
    plan_of.write_text(text, encoding="utf-8")
    assert cli.compare([str(plan_of), "allow_differences=true"]) == 2
    assert "methods should have the same tasks, also with allow_differences=true" in capsys.readouterr().err
    plan_of.write_text(COMPARISON.replace("{name: pcgrad}}", "{name: pcgrad}, env: {worker_timeout: 9}}"), "utf-8")
    assert load_plan(str(plan_of)).differences == ()  # which changes nothing that is learned


def test_a_printed_comparison_is_the_preset(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert cli.compare(["--print-config", "point"]) == 0
    (tmp_path / "c.yaml").write_text(capsys.readouterr().out, encoding="utf-8")
    printed, preset = load_plan(str(tmp_path / "c.yaml")), load_plan("point")
    assert printed.runs == preset.runs
    assert printed.config.model_copy(update={"base": preset.config.base}) == preset.config


def test_keys_of_a_comparison_are_printed(capsys: pytest.CaptureFixture[str]):
    assert cli.compare(["--keys"]) == 0
    printed = [line.split(" = ")[0] for line in capsys.readouterr().out.splitlines()[::2]]
    assert printed == list(CompareConfig.model_fields)


# Added to the command line, and what the message must say.
BAD = [
    ("", "COMPARISON"),
    ("pont", "did you mean point?"),
    ("point seeds=[]", "seeds"),
    ("point seeds=[1,1]", "names a seed twice"),
    ("point seeds=[-1]", "seeds"),
    ("point seed=1", "did you mean seeds?"),
    ("point methods=mean", "methods='mean'"),
    ("point methods.a/b={}", "methods.a/b='a/b' should be letters"),
    ("point methods.x=null", "methods.x=None should be a mapping"),
    ("--keys methd", "did you mean methods?"),
    ("--print-config pont", "did you mean point?"),
    ("point baseline=men", "did you mean mean?"),
    ("point methods.x.combiner.name=pcgrd", "methods.x: combiner.name='pcgrd' does not exist; did you mean pcgrad?"),
    ("point methods.x.agent.tua=1", "methods.x: unknown key agent.tua; did you mean agent.tau?"),
    ("point methods.x.agent.gamma=0.9", "agent.gamma: mean has 0.8"),
    ("point methods.x.total_timesteps=9000", "total_timesteps: mean has"),
    ("point methods.x.env.id=Point-8", "env.id: mean has"),
    ("point config.total_timesteps=many", "total_timesteps='many'"),
    ("point config.agent.batch_size=9", "multiple of the 7 tasks"),
    ("point base=nothing", "no config 'nothing'"),
    ("point base=3", "base=3"),
    ("point name=a/b", "name='a/b'"),
    ("point engine=slurm", "'local' or 'ray'"),
    ("point engine=ray workers=2", "workers=2 is for engine=local"),
    ("point address=x", "address='x' is for engine=ray"),
    ("point workers=0", "workers=0"),
    ("point gpus_per_run=-1 engine=ray", "gpus_per_run=-1"),
    ("point allow_differences=perhaps", "allow_differences='perhaps'"),
    ("point x", "key=value"),
    ("point threads=1", "unknown key threads; did you mean config.threads?"),
    (f"point folder={__file__}", "is a file, expected a folder"),
]


@pytest.mark.parametrize(("line", "told"), BAD, ids=[line or "empty" for line, _ in BAD])
def test_bad_comparisons(line: str, told: str, capsys: pytest.CaptureFixture[str]):
    code = cli.compare(line.split())
    printed = capsys.readouterr().err
    assert code == 2
    assert told in printed
    assert "Traceback" not in printed
    assert list(Path.cwd().iterdir()) == []


def test_a_comparison_without_methods(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "c.yaml").write_text("name: x\nbase: point\nmethods: {}\nseeds: [1]\nbaseline: mean\n", "utf-8")
    assert cli.compare([str(tmp_path / "c.yaml")]) == 2
    assert "methods={} " in capsys.readouterr().err


def test_what_all_methods_have_wrong_is_told_once(capsys: pytest.CaptureFixture[str]):
    assert cli.compare(["point", "config.agent.gamma=2", "methods.pcgrad.agent.tau=2"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert sum("agent.gamma" in line for line in lines) == 1
    assert any(line.strip().startswith("methods.pcgrad: agent.tau=2") for line in lines)
