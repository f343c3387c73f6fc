"""Public names of a package that are imported when they are first asked for, so that importing it takes no time."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from typing import Any


def lazy_names(package: str) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Return `__getattr__` and `__dir__` of a package whose names are those of its module `public`, and its modules."""

    def attribute(name: str) -> Any:
        private = name.startswith("_") and name != "__all__"
        if not private and find_spec(f"{package}.{name}"):
            return import_module(f"{package}.{name}")
        public = None if private else import_module(f"{package}.public")
        if not hasattr(public, name):
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(public, name)

    return attribute, lambda: attribute("__all__")
