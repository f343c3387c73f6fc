"""Check of the names of tasks."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from mtrl_transfer.choices import check_choice


def checked_tasks(names: Sequence[str], known: Collection[str], kind: str = "task") -> tuple[str, ...]:
    """Return the task names, or raise ValueError if there is none, one does not exist or one is there twice."""
    if not names:
        raise ValueError("a list of tasks needs at least one task name")
    for position, name in enumerate(names):
        check_choice(kind, name, known)
        if name in names[:position]:
            raise ValueError(f"task {name!r} is listed twice; every task must have another name")
    return tuple(names)
