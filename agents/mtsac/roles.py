"""A combiner each for the critic and the actor."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any

from mtrl_transfer import make_combiner
from mtrl_transfer.combiners import Combiner

ROLES = ("critic", "actor")


def role_combiners(
    combiner: str | Mapping[str, Any] | Combiner, kwargs: Mapping[str, Any] | None, seeds: Iterator[int]
) -> dict[str, Combiner]:
    """Return the combiners of the critic and the actor, each with its own random stream.

    Args:
        combiner: a name; an object, which is copied for each role; or a dict with one for each role, ``critic`` and
            ``actor``: a name, or a dict with a ``name`` and arguments.
        kwargs: arguments for a named combiner; the keys ``critic`` and ``actor`` may hold what differs for one role: a
            dict of arguments, with the ``name`` of another combiner if it has one, or that name alone.
        seeds: gives a seed for each role.

    Raises:
        ValueError: for an unknown name or argument, or arguments beside an object or a dict.
    """
    if kwargs and not isinstance(combiner, str):
        raise ValueError(
            f"combiner_kwargs={kwargs} go with a combiner's name; set them in combiner={combiner!r} instead"
        )
    if isinstance(combiner, Combiner):
        made = {role: copy.deepcopy(combiner) for role in ROLES}
    elif isinstance(combiner, str):
        made = {role: _made(combiner, kwargs or {}, role) for role in ROLES}
    elif isinstance(combiner, Mapping) and set(combiner) == set(ROLES):
        made = {role: _made("", combiner, role) for role in ROLES}
    else:
        raise ValueError(
            f"combiner={combiner!r} must be a name, a mtrl_transfer.Combiner, or a dict with one name each for "
            f"{' and '.join(ROLES)}"
        )
    for one in made.values():
        one.seed(next(seeds))
    return made


def _made(combiner: str, kwargs: Mapping[str, Any], role: str) -> Combiner:
    """Make the combiner of a role; common arguments go with the common name."""
    own = kwargs.get(role, {})
    if not isinstance(own, str | Mapping):
        raise ValueError(f"{role}={own!r} must be a combiner's name, or a dict of arguments for the {role} alone")
    own = {"name": own} if isinstance(own, str) else dict(own)
    name = own.pop("name", combiner)
    common = {key: value for key, value in kwargs.items() if key not in ROLES} if name == combiner else {}
    return make_combiner(name, **merged(common, own))


def merged(common: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """Return a role's arguments: its own over the common ones, dicts (of a measure, say) entry by entry."""
    both = dict(common)
    for name, value in own.items():
        amends = isinstance(value, dict) and isinstance(both.get(name), dict)
        both[name] = {**both[name], **value} if amends else value
    return both
