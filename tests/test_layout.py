"""Import rules of the design, checked in the source of every file."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# Each part and the parts of this project that it may import besides itself, the most specific first.
ARROWS = {
    "scripts": {"mtrl_transfer.agents.runs", "mtrl_transfer.agents", "mtrl_transfer.envs", "mtrl_transfer"},
    "mtrl_transfer.agents.runs": {"mtrl_transfer.agents", "mtrl_transfer.envs", "mtrl_transfer"},
    "mtrl_transfer.agents": {"mtrl_transfer"},
    "mtrl_transfer.envs": {"mtrl_transfer"},
    "mtrl_transfer": set(),
}
SCRIPT_PACKAGES = ("benchmarks", "studies")
TOP = {"scripts": "", "agents": "mtrl_transfer.", "envs": "mtrl_transfer.", "mtrl_transfer": ""}
TRANSFER_LIBRARIES = {"torch", "numpy", "scipy", "torchjd"}


def part_of(module: str) -> str | None:
    """The part that a dotted module name belongs to."""
    if module.partition(".")[0] in SCRIPT_PACKAGES or module == "mtrl_transfer.__main__":
        return "scripts"
    return next((part for part in ARROWS if module == part or module.startswith(part + ".")), None)


def sources() -> list[Path]:
    """All source files; the links in mtrl_transfer/ are not followed."""
    return sorted(path for top in TOP for path in (ROOT / top).rglob("*.py") if "configs" not in path.parts)


def core_sources() -> list[Path]:
    return [path for path in sources() if part_of(module_name(path)) == "mtrl_transfer"]


def imported(source: str, module: str) -> set[str]:
    """Absolute names of all that a module imports, at any depth of its code."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            package = module.split(".")[: -node.level] if node.level else []
            origin = ".".join([*package, node.module] if node.module else package)
            # `from mtrl_transfer.agents import runs` imports the module mtrl_transfer.agents.runs.
            names |= {origin} | {f"{origin}.{alias.name}" for alias in node.names if f"{origin}.{alias.name}" in ARROWS}
    return names


def violations(source: str, module: str) -> set[str]:
    """The imports that break an arrow, seen from a module."""
    own = part_of(module)
    assert own is not None, module
    parts = {name: part_of(name) for name in imported(source, module)}
    return {name for name, part in parts.items() if part not in (None, own) and part not in ARROWS[own]}


def module_name(path: Path) -> str:
    relative = path.relative_to(ROOT).with_suffix("")
    return TOP[relative.parts[0]] + ".".join(part for part in relative.parts if part != "__init__")


def runtime_imports(path: Path, modules: set[str]) -> set[str]:
    """Modules of this project that a file imports when it is loaded: at module level, outside ``if TYPE_CHECKING``."""
    module = module_name(path)
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    names = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            origin = ".".join([*base, node.module] if node.module else base)
            inside = {f"{origin}.{alias.name}" for alias in node.names} & modules
            names |= inside or {origin}
    return (names & modules) - {module}


def circle(graph: dict[str, set[str]]) -> list[str]:
    """One circle of a directed graph, as a path that ends where it begins; empty where there is none."""
    done: set[str] = set()

    def visit(node: str, path: list[str]) -> list[str]:
        if node in path:
            return [*path[path.index(node) :], node]
        if node in done:
            return []
        for other in sorted(graph[node]):
            if found := visit(other, [*path, node]):
                return found
        done.add(node)
        return []

    return next((found for node in sorted(graph) if (found := visit(node, []))), [])


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_follow_the_arrows(path: Path):
    assert violations(path.read_text(encoding="utf-8"), module_name(path)) == set()


@pytest.mark.parametrize("path", core_sources(), ids=lambda path: str(path.relative_to(ROOT)))
def test_the_core_knows_no_rl(path: Path):
    tops = {name.partition(".")[0] for name in imported(path.read_text(encoding="utf-8"), module_name(path))}
    assert tops <= TRANSFER_LIBRARIES | {"mtrl_transfer"} | sys.stdlib_module_names


def test_no_modules_import_each_other_in_a_circle():
    paths = {module_name(path): path for path in sources() if path.parent != ROOT / "scripts"}
    assert circle({module: runtime_imports(path, set(paths)) for module, path in paths.items()}) == []


def test_a_circle_is_found():
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c", "b"]
    assert circle({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []


@pytest.mark.parametrize("top", ["agents", "envs"])
def test_top_folders_have_at_most_a_dozen_entries(top: str):
    assert len([entry for entry in (ROOT / top).iterdir() if entry.name != "__pycache__"]) <= 12


@pytest.mark.parametrize("top", ["agents", "envs"])
def test_the_package_links_to_the_top_folders(top: str):
    assert (ROOT / "mtrl_transfer" / top).resolve() == ROOT / top


def test_every_part_has_sources():
    """An emptied or renamed folder must not pass unseen."""
    assert {part_of(module_name(path)) for path in sources()} == set(ARROWS)


@pytest.mark.parametrize(
    ("module", "source", "broken"),
    [
        ("mtrl_transfer.agents.mtsac", "import mtrl_transfer.envs", {"mtrl_transfer.envs"}),
        ("mtrl_transfer.agents.mtsac", "def f():\n    from mtrl_transfer.envs import x", {"mtrl_transfer.envs"}),
        ("mtrl_transfer.agents.mtsac", "from mtrl_transfer.agents import runs", {"mtrl_transfer.agents.runs"}),
        ("mtrl_transfer.agents.mtsac", "from .runs import config", {"mtrl_transfer.agents.runs"}),
        ("mtrl_transfer.agents.mtsac", "from mtrl_transfer import PCGrad", set()),
        ("mtrl_transfer.envs.point", "from mtrl_transfer.agents import MTSAC", {"mtrl_transfer.agents"}),
        ("mtrl_transfer.envs.point", "from mtrl_transfer.choices import nearest", set()),
        ("mtrl_transfer.combiners.mean", "import mtrl_transfer.agents.x", {"mtrl_transfer.agents.x"}),
        ("mtrl_transfer.combiners.mean", "from ..gradients import x", set()),
        ("mtrl_transfer.agents.runs.train", "from mtrl_transfer.agents import MTSAC", set()),
        ("mtrl_transfer.agents.runs.train", "import benchmarks.update", {"benchmarks.update"}),
        ("scripts.train", "from mtrl_transfer.agents.runs.cli import train", set()),
        ("studies.x", "from mtrl_transfer.envs import make_vec_env\nimport benchmarks", set()),
    ],
)
def test_a_forbidden_import_is_found(module: str, source: str, broken: set[str]):
    assert violations(source, module) == broken


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(ROOT)))
def test_module_docstrings_begin_with_a_noun_or_verb(path: Path):
    first = (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "-").split()[0]
    assert first not in {"What", "Whether", "How"}
