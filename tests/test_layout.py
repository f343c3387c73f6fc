"""Who may import whom: the arrows of the design, read from the source of every file."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# Each part and the parts of this project that it may import besides itself.
ARROWS = {
    "scripts": {"agents.runs"},
    "agents.runs": {"agents", "envs", "mtrl_transfer"},
    "agents": {"mtrl_transfer"},
    "envs": set(),
    "mtrl_transfer": set(),
}
TRANSFER_LIBRARIES = {"torch", "numpy", "scipy", "torchjd"}


def part_of(module: str) -> str | None:
    """The part that a dotted module name belongs to, the most specific first."""
    return next((part for part in ARROWS if module == part or module.startswith(part + ".")), None)


def sources() -> list[Path]:
    return sorted(path for top in ("scripts", "agents", "envs", "mtrl_transfer") for path in (ROOT / top).rglob("*.py"))


def imported(source: str, module: str) -> set[str]:
    """Absolute names of all that a module imports, at any depth of its code."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            package = module.split(".")[: -node.level] if node.level else []
            origin = ".".join([*package, node.module] if node.module else package)
            # `from agents import runs` imports the module agents.runs.
            names |= {origin} | {f"{origin}.{alias.name}" for alias in node.names if f"{origin}.{alias.name}" in ARROWS}
    return names


def violations(source: str, module: str) -> set[str]:
    """The imports that break an arrow, seen from a module."""
    own = part_of(module)
    assert own is not None, module
    parts = {name: part_of(name) for name in imported(source, module)}
    return {name for name, part in parts.items() if part not in (None, own) and part not in ARROWS[own]}


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_follow_the_arrows(path: Path):
    assert violations(path.read_text(encoding="utf-8"), module_name(path)) == set()


@pytest.mark.parametrize(
    "path", sorted((ROOT / "mtrl_transfer").rglob("*.py")), ids=lambda path: str(path.relative_to(ROOT))
)
def test_the_transference_library_knows_no_rl(path: Path):
    tops = {name.partition(".")[0] for name in imported(path.read_text(encoding="utf-8"), module_name(path))}
    assert tops <= TRANSFER_LIBRARIES | {"mtrl_transfer"} | sys.stdlib_module_names


def test_every_part_has_sources():
    """An emptied or renamed folder must not pass unseen."""
    assert {part_of(module_name(path)) for path in sources()} == set(ARROWS)


@pytest.mark.parametrize(
    ("module", "source", "broken"),
    [
        ("agents.mtsac", "import envs", {"envs"}),
        ("agents.mtsac", "def f():\n    from envs.point import PointEnv", {"envs.point"}),
        ("agents.mtsac", "from agents.runs.schema import RunConfig", {"agents.runs.schema"}),
        ("agents.mtsac", "from agents import runs", {"agents.runs"}),
        ("agents.mtsac", "from .runs import schema", {"agents.runs"}),
        ("agents.mtsac", "from mtrl_transfer import PCGrad", set()),
        ("envs.point", "from agents import MTSAC", {"agents"}),
        ("envs.point", "import mtrl_transfer", {"mtrl_transfer"}),
        ("mtrl_transfer.combiners.mean", "import agents.errors", {"agents.errors"}),
        ("mtrl_transfer.combiners.mean", "from ..gradients import x", set()),
        ("agents.runs.train", "from agents import MTSAC\nfrom envs import make_vec_env", set()),
        ("agents.runs.train", "import scripts.train", {"scripts.train"}),
        ("scripts.train", "from agents.runs.cli import train", set()),
        ("scripts.train", "from agents import MTSAC", {"agents"}),
    ],
)
def test_a_forbidden_import_is_found(module: str, source: str, broken: set[str]):
    assert violations(source, module) == broken
