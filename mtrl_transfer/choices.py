"""Errors that name the value, what was expected and the nearest valid choice."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def nearest(name: object, known: Iterable[str]) -> str | None:
    """The known name most like `name`, or None where nothing is near."""
    matches = difflib.get_close_matches(str(name), list(known), n=1, cutoff=0.5)
    return matches[0] if matches else None


def check_choice(name: str, value: object, choices: Iterable[str]) -> None:
    """Raise `ValueError` unless `value` is one of `choices`."""
    known = sorted(choices)
    if value in known:
        return
    near = nearest(value, known)
    hint = f" Did you mean {near!r}?" if near else ""
    raise ValueError(f"unknown {name}: {value!r}; choose one of {', '.join(map(repr, known))}.{hint}")
