"""The user guide: it builds without warnings, says everything that the code has, and its code runs."""

from __future__ import annotations

import importlib
import os
import re
import shlex
import subprocess
import sys
import zlib
from html.parser import HTMLParser
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from urllib.parse import unquote, urlsplit

import pytest
import yaml

from mtrl_transfer import COMBINERS
from mtrl_transfer.agents.declarations import keys
from mtrl_transfer.agents.runs import cli, estimate
from mtrl_transfer.agents.runs.compare.plan import load_plan
from mtrl_transfer.agents.runs.compare.schema import CompareConfig
from mtrl_transfer.agents.runs.config.loading import load_config
from mtrl_transfer.agents.runs.config.schema import RunConfig
from mtrl_transfer.agents.runs.config.yaml_files import comparisons, presets
from mtrl_transfer.agents.runs.outcome import read_metrics

ROOT = Path(__file__).parents[1]
PAGES = [*sorted((ROOT / "docs").rglob("*.md")), ROOT / "README.md"]
SHORTER = {
    "README.md": {
        "model.learn(1_000_000, MeasureTransference(every=100), progress_bar=True)": "model.learn(300)",
        "n_eval_episodes=50": "n_eval_episodes=1",
    }
}
"""Replacements that shorten a page's code for the test; the guide's own blocks are short as they stand."""


@pytest.fixture(autouse=True)
def _module_of_the_guide(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tasks of `own-tasks.md`, as far as a config needs them: their names."""
    module = ModuleType("my_tasks")
    module.TASKS = dict.fromkeys(("moon", "mars", "earth"), object)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "my_tasks", module)


def page_id(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


class Page(HTMLParser):
    """Links, loaded files, anchors and tables of a built page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loads: list[str] = []
        self.ids: set[str] = set()
        self.rows: list[list[str]] = []
        self._in_cell = False
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value or "" for name, value in attrs}
        self.ids |= {found[name] for name in ("id", "name") if name in found}
        target = found.get("href") or found.get("src")
        if target:
            (self.links if tag == "a" else self.loads).append(target)
        if tag == "tr":
            self.rows.append([])
        if tag == "td":
            self.rows[-1].append("")
            self._in_cell = True

    def handle_data(self, data: str) -> None:
        if self._in_cell:
            self.rows[-1][-1] += data

    def handle_endtag(self, tag: str) -> None:
        if tag == "td":
            self._in_cell = False


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The guide as `make docs` builds it."""
    pytest.importorskip("mkdocs")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (built.returncode, built.stdout + built.stderr) == (0, "")
    return folder


@pytest.fixture(scope="session")
def built(site: Path) -> dict[str, Page]:
    """Every page by its path in the site."""
    found = {path.relative_to(site).as_posix(): path for path in site.rglob("*.html")}
    return {name: Page(path.read_text(encoding="utf-8")) for name, path in found.items()}


def test_internal_links_resolve(site: Path, built: dict[str, Page]):
    broken = []
    for name, page in built.items():
        for link in page.links + page.loads:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (site / name).parent / unquote(parts.path) if parts.path else site / name
            inside = target.resolve().relative_to(site.resolve()).as_posix() if target.is_file() else None
            anchor = unquote(parts.fragment)
            if inside is None or (anchor and inside in built and anchor not in built[inside].ids):
                broken.append(f"{name}: {link}")
    # 404.html is served from anywhere, so its links are absolute.
    assert [one for one in broken if not one.startswith("404.html: /")] == []


def test_nothing_is_loaded_from_elsewhere(built: dict[str, Page]):
    assert [load for page in built.values() for load in page.loads if urlsplit(load).netloc] == []


def test_every_config_key_is_explained_with_its_default(built: dict[str, Page]):
    rows = {row[0]: row[1:] for row in built["configs.html"].rows if len(row) == 4}
    every = set(keys(RunConfig))
    leaves = {key for key in every if not any(other.startswith(f"{key}.") for other in every)}
    assert set(rows) == leaves
    assert all(kind and about for kind, _, about in rows.values())
    defaults = RunConfig(name="x", total_timesteps=1, env={"id": "Point-3"}).model_dump(mode="json")
    for key, (_, default, _) in rows.items():
        value = defaults
        for part in key.split("."):
            value = value[part]
        assert (
            default == "required" if key in ("name", "total_timesteps", "env.id") else yaml.safe_load(default) == value
        )


def test_bounds_and_choices_are_told(built: dict[str, Page]):
    kinds = {row[0]: row[1] for row in built["configs.html"].rows if len(row) == 4}
    assert kinds["total_timesteps"] == "integer ≥ 1"
    assert kinds["agent.tau"] == "number > 0, ≤ 1"
    assert kinds["agent.batch_size"] == "integer ≥ 1 or null"
    assert kinds["matmul_precision"] == "highest or high or medium"
    assert kinds["agent.target_entropy"] == "number or auto"


def test_every_key_of_a_comparison_is_explained(built: dict[str, Page]):
    rows = {row[0]: row[1:] for row in built["compare.html"].rows if len(row) == 4}
    assert set(rows) == set(CompareConfig.model_fields)
    assert all(kind and about for kind, _, about in rows.values())


def test_every_preset_and_combiner_is_listed(built: dict[str, Page]):
    listed = {row[0] for row in built["configs.html"].rows if len(row) == 2}
    assert listed == set(presets())
    assert {row[0] for row in built["compare.html"].rows if len(row) == 2} >= set(comparisons())
    assert {row[0] for row in built["combiners/index.html"].rows if len(row) == 3} == set(COMBINERS)


@pytest.mark.parametrize("package", ["mtrl_transfer", "mtrl_transfer.agents", "mtrl_transfer.envs"])
def test_every_public_name_has_a_reference(site: Path, package: str):
    inventory = (site / "objects.inv").read_bytes().split(b"\n", 4)[4]
    documented = {line.split()[0] for line in zlib.decompress(inventory).decode().splitlines()}
    public = importlib.import_module(package).__all__
    assert [name for name in public if f"{package}.{name}" not in documented] == []


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "yaml")], ids=page_id)
def test_configs_in_the_guide_are_valid(page: Path, tmp_path: Path):
    for text in blocks(page, "yaml"):
        tree = yaml.safe_load(text)
        if "methods" in tree:
            (tmp_path / "comparison.yaml").write_text(text, encoding="utf-8")
            load_plan(str(tmp_path / "comparison.yaml"))
            continue
        tree["base"] = str(presets()[Path(tree.get("base", "point.yaml")).stem])
        (tmp_path / "config.yaml").write_text(yaml.safe_dump(tree), encoding="utf-8")
        load_config(str(tmp_path / "config.yaml"))


def training_commands(page: Path) -> list[tuple[str, list[str]]]:
    """Config and overrides of every command that trains."""
    lines = [line for text in blocks(page, "sh") for line in text.replace("\\\n", "").splitlines()]
    found = []
    for line in lines:
        words = shlex.split(line, comments=True)
        if words[:1] == ["mtrl-train"]:
            found.append((words[1], words[2:]))
        elif words[:2] == ["make", "train"]:
            settings = dict(word.split("=", 1) for word in words[2:])
            found.append((settings.get("CONFIG", "configs/mt10_quick.yaml"), shlex.split(settings.get("ARGS", ""))))
    return found


@pytest.mark.parametrize("page", [page for page in PAGES if training_commands(page)], ids=page_id)
def test_training_commands_are_valid(page: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(ROOT)
    for config, overrides in training_commands(page):
        load_config(config, overrides)


def test_the_citation_is_of_this_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == version("mtrl-transfer")
    assert f"version = {{{citation['version']}}}" in (ROOT / "docs" / "cite.md").read_text(encoding="utf-8")


def test_targets_of_make_exist():
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    named = {name for page in PAGES for name in re.findall(r"^ *make ([\w-]+)", page.read_text("utf-8"), re.MULTILINE)}
    assert named
    assert named <= targets


@pytest.mark.slow
@pytest.mark.parametrize(
    "page", [page for page in PAGES if blocks(page, "python") and page.stem != "ecosystem"], ids=page_id
)
def test_python_blocks_run(page: Path, tmp_path: Path):
    """A page's blocks in order, as one program in an empty folder."""
    program = "\n".join(blocks(page, "python"))
    for long, short in SHORTER.get(page.name, {}).items():
        assert long in program  # else the table above is out of date
        program = program.replace(long, short)
    (tmp_path / "page.py").write_text(program, encoding="utf-8")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "page.py"], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def documented_tags() -> set[str]:
    """TensorBoard tags that the guide explains, the actor's spelt out."""
    text = (ROOT / "docs" / "monitoring.md").read_text(encoding="utf-8")
    cells = [line.split("|")[1] for line in text.splitlines() if line.startswith("| `")]
    tags = {tag for cell in cells for tag in re.findall(r"`([^`]+/[^`]+)`", cell)}
    both = {tag for tag in tags if "critic" in tag and not tag.startswith("critic_loss")}
    return tags | {tag.replace("critic", "actor") for tag in both}


@pytest.mark.slow
def test_the_guide_explains_exactly_the_tags_of_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    monkeypatch.setattr(estimate, "ENOUGH_SECONDS", 0.02)
    overrides = (
        "env.id=Point-3 total_timesteps=900 agent.learning_starts=90 agent.batch_size=24 measure.every=20 "
        "agent.policy_kwargs.net_arch=[8] reweighting.rank=1 evaluation.every=300 "
        "evaluation.n_goals=1 evaluation.final_n_goals=1 log.every=150 log.figures_every=300 log.progress=false "
        f"run_dir={tmp_path / 'run'}"
    )
    assert cli.train(["point", *overrides.split()]) == 0
    written = {tag for row in read_metrics(tmp_path / "run" / "metrics.jsonl")[0] for tag in row} - {"step"}
    events = EventAccumulator(str(tmp_path / "run")).Reload()
    written |= {*events.Tags()["images"]}
    names = "point-a0|point-b0|noise"
    assert {re.sub(rf"/({names})$", "/<task>", tag) for tag in written} == documented_tags()
