"""Errors that name the value, what was expected and the nearest valid choice."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def check_choice(name: str, value: object, choices: Iterable[str]) -> None:
    """Raise `ValueError` unless `value` is one of `choices`."""
    known = sorted(choices)
    if value in known:
        return
    nearest = difflib.get_close_matches(str(value), known, n=1)
    hint = f" Did you mean {nearest[0]!r}?" if nearest else ""
    raise ValueError(f"unknown {name}: {value!r}; choose one of {', '.join(map(repr, known))}.{hint}")
