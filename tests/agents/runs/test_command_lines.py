"""Help, keys and configs that the commands print, and the forms in which they take keys."""

from __future__ import annotations

import subprocess
import sys

import pytest
import yaml

from mtrl_transfer.__main__ import main
from mtrl_transfer.agents.declarations import keys
from mtrl_transfer.agents.runs import cli
from mtrl_transfer.agents.runs.cli import as_overrides
from mtrl_transfer.agents.runs.config.loading import load_config
from mtrl_transfer.agents.runs.config.reference import reference
from mtrl_transfer.agents.runs.config.schema import RunConfig
from mtrl_transfer.agents.runs.grouping.stages import STAGES


def python(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("command", ["train", "evaluate", "compare", "group", "push"])
def test_help_needs_no_heavy_imports(command: str):
    """Torch alone takes seconds."""
    program = f"import sys; from mtrl_transfer.agents.runs import cli; cli.{command}(['--help'])"
    done = python("-c", f"{program}; print(sorted({{'torch', 'numpy', 'scipy', 'rich'}} & set(sys.modules)))")
    assert "examples:" in done.stdout
    assert done.stdout.splitlines()[-1] == "[]"


def test_agents_import_nothing_that_draws():
    """Nor anything else that is slow; what SB3 imports, some versions of it matplotlib, counts as its own."""
    program = "import sys, stable_baselines3; theirs = {*sys.modules}; from mtrl_transfer.agents import MTSAC"
    done = python("-c", f"{program}; print(sorted({{*sys.modules}} - theirs))")
    found = set(done.stdout.strip("[]\n").split(", "))
    assert "'mtrl_transfer.agents.mtsac.mtsac'" in found
    assert not {"'matplotlib'", "'scipy.stats'", "'scipy.optimize'", "'metaworld'"} & found


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("point --seed 3", "point seed=3"),
        ("--seed 3 point", "point seed=3"),
        ("point --seed=3 agent.tau=0.1", "point agent.tau=0.1 seed=3"),
        ("point --agent.learning_rate=1e-3", "point agent.learning_rate=1e-3"),
        ("point --total-timesteps 300", "point total_timesteps=300"),
        ("point --agent.target_entropy -3", "point agent.target_entropy=-3"),
        ("point --seed", "point --seed"),
        ("--keys agent", "--keys agent"),
        ("--help", "--help"),
    ],
)
def test_options_are_keys(line: str, expected: str):
    parser = cli._parser("mtrl-train", "", "")
    parser.add_argument("--keys")
    assert as_overrides(line.split(), parser) == expected.split()


def test_all_keys_are_printed(capsys: pytest.CaptureFixture[str]):
    assert cli.train(["--keys"]) == 0
    lines = capsys.readouterr().out.splitlines()
    printed = [line.split(" = ")[0] for line in lines[::2]]
    sections = {key for key in keys(RunConfig) if any(other.startswith(f"{key}.") for other in keys(RunConfig))}
    assert sorted(printed) == sorted(set(keys(RunConfig)) - sections)
    assert all(line.startswith("    ") and line.strip() for line in lines[1::2])


def test_keys_have_type_default_and_meaning(capsys: pytest.CaptureFixture[str]):
    assert cli.train(["--keys", "agent.batch"]) == 0
    about = next(key for key in reference(RunConfig) if key.name == "agent.batch_size")
    printed = capsys.readouterr().out
    assert printed == f"agent.batch_size = null    (integer ≥ 1 or null)\n    {about.meaning}\n"


def test_a_printed_config_is_the_preset(capsys: pytest.CaptureFixture[str]):
    assert cli.train(["--print-config", "point"]) == 0
    assert yaml.safe_load(capsys.readouterr().out) == load_config("point").model_dump(mode="json")


def test_the_package_runs_the_commands(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    assert python("-m", "mtrl_transfer", "--version").stdout.startswith("mtrl-train ")
    for line, code in (("train --keys seed", 0), ("trian", 2)):
        monkeypatch.setattr(sys, "argv", ["mtrl_transfer", *line.split()])
        assert main() == code
    assert capsys.readouterr().out.startswith("seed = 0")


def test_stages_are_those_of_grouping():
    assert tuple(STAGES) == cli.STAGES
