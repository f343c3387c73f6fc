"""Look-up of names with a helpful error."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable, Sequence


def unknown_name(kind: str, name: object, known: Iterable[str]) -> ValueError:
    """Return the error for a name that does not exist. It names the nearest ones, or all if none is near."""
    choices = list(known)
    lowered = {choice.lower(): choice for choice in choices}
    near = [lowered[match] for match in difflib.get_close_matches(str(name).lower(), lowered, n=3, cutoff=0.5)]
    hint = f"did you mean {' or '.join(map(repr, near))}?" if near else f"known: {', '.join(choices)}"
    return ValueError(f"unknown {kind} {name!r}; {hint}")


def checked_tasks(names: Sequence[str], known: Collection[str], kind: str = "task") -> tuple[str, ...]:
    """Return the task names, or raise ValueError if there is none, one does not exist or one is there twice."""
    if not names:
        raise ValueError("a list of tasks needs at least one task name")
    for position, name in enumerate(names):
        if name not in known:
            raise unknown_name(kind, name, known)
        if name in names[:position]:
            raise ValueError(f"task {name!r} is listed twice; every task must have another name")
    return tuple(names)
