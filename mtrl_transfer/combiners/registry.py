"""Combiners by name."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, TypeVar

from mtrl_transfer.choices import check_choice
from mtrl_transfer.combiners.base import Combiner

COMBINERS: dict[str, type[Combiner]] = {}
"""Every combiner class by the name that configs use."""

Class = TypeVar("Class", bound=type[Combiner])


def register(name: str) -> Callable[[Class], Class]:
    """Class decorator that makes a combiner known by `name`."""

    def add(combiner: Class) -> Class:
        COMBINERS[name] = combiner
        return combiner

    return add


def make_combiner(name: str, **kwargs: Any) -> Combiner:
    """Return the combiner of that name.

    Raises:
        ValueError: for an unknown name or argument; the message lists the known ones and the nearest.
    """
    check_choice("combiner", name, COMBINERS)
    kind = COMBINERS[name]
    parameters = inspect.signature(kind).parameters
    for argument in kwargs:
        if argument in kind.renamed:
            raise ValueError(f"argument {argument!r} of combiner {name!r} is now {kind.renamed[argument]}")
        check_choice(f"argument of combiner {name!r}", argument, parameters)
    return kind(**kwargs)
