"""Print the lowest version of each dependency that ``pyproject.toml`` allows, as constraints for pip."""

from __future__ import annotations

import sys
from pathlib import Path

from packaging.requirements import Requirement

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # pytest's

EXTRAS = ("baselines", "video")


def main() -> None:
    """Print one ``name==version`` a line."""
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    listed = [*project["dependencies"], *(one for extra in EXTRAS for one in project["optional-dependencies"][extra])]
    for requirement in map(Requirement, listed):
        lowest = [bound.version for bound in requirement.specifier if bound.operator == ">="]
        print(f"{requirement.name}=={lowest[0]}")


if __name__ == "__main__":
    main()
