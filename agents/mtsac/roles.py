"""A combiner each for the critic and the actor."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

from mtrl_transfer import make_combiner
from mtrl_transfer.combiners import Combiner

ROLES = ("critic", "actor")


def role_combiners(
    combiner: str | Combiner, kwargs: dict[str, Any] | None, seeds: Iterator[int]
) -> dict[str, Combiner]:
    """Two combiners of one kind with random streams of their own.

    Args:
        combiner: a name, or an object that is copied for each role.
        kwargs: arguments for a named combiner; the keys ``critic`` and ``actor`` may hold dicts for one role only.
        seeds: gives a seed for each role.

    Raises:
        ValueError: for an unknown name or argument, or arguments beside an object.
    """
    if isinstance(combiner, str):
        common = {name: value for name, value in (kwargs or {}).items() if name not in ROLES}
        made = {role: make_combiner(combiner, **merged(common, _own(kwargs, role))) for role in ROLES}
    elif isinstance(combiner, Combiner):
        if kwargs:
            raise ValueError(f"combiner_kwargs={kwargs} go with a combiner's name; set them on the object instead")
        made = {role: copy.deepcopy(combiner) for role in ROLES}
    else:
        raise ValueError(f"combiner={combiner!r} must be a name or a mtrl_transfer.Combiner")
    for one in made.values():
        one.seed(next(seeds))
    return made


def merged(common: dict[str, Any], own: dict[str, Any]) -> dict[str, Any]:
    """Return a role's arguments: its own over the common ones, dicts (of a measure, say) entry by entry."""
    both = dict(common)
    for name, value in own.items():
        amends = isinstance(value, dict) and isinstance(both.get(name), dict)
        both[name] = {**both[name], **value} if amends else value
    return both


def _own(kwargs: dict[str, Any] | None, role: str) -> dict[str, Any]:
    own = (kwargs or {}).get(role, {})
    if not isinstance(own, dict):
        raise ValueError(f"combiner_kwargs[{role!r}]={own!r} must be a dict of arguments for the {role} alone")
    return own
