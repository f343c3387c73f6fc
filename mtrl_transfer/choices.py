"""Checks of arguments, with errors that name the value, what was expected and the nearest valid choice."""

from __future__ import annotations

import copy
import difflib
import inspect
from collections.abc import Callable, Iterable, Mapping
from numbers import Integral
from typing import Any


def nearest(name: object, known: Iterable[str]) -> str | None:
    """Return the known name most like `name`, in upper or lower case, or None where nothing is near."""
    lowered = {choice.lower(): choice for choice in known}
    matches = difflib.get_close_matches(str(name).lower(), lowered, n=1, cutoff=0.5)
    return lowered[matches[0]] if matches else None


def did_you_mean(name: object, known: Iterable[str], listed: str | None = "known") -> str:
    """Return a hint to append to an error: the nearest known name, or all of them where nothing is near.

    Args:
        name: what was given.
        known: the valid names.
        listed: how to call the list, e.g. `"presets"`; None: it is not given.
    """
    known = sorted(known)
    near = nearest(name, known)
    if near is None and listed is None:
        return ""
    return f"; did you mean {near}?" if near else f" ({listed}: {', '.join(known)})"


def check_choice(name: str, value: object, choices: Iterable[str | None]) -> None:
    """Raise `ValueError` unless `value` is one of `choices`."""
    choices = list(choices)
    if value not in choices:
        raise ValueError(f"unknown {name}: {value!r}{did_you_mean(value, map(str, choices))}")


def check_whole(name: str, value: object, least: int = 1) -> None:
    """Raise `ValueError` unless `value` is a whole number of at least `least`."""
    if isinstance(value, bool) or not isinstance(value, Integral) or value < least:
        raise ValueError(f"{name}={value!r} must be a whole number of at least {least}")


def check_number(name: str, value: object, least: float, below: float = float("inf")) -> None:
    """Raise `ValueError` unless `value` is a number of at least `least` and below `below`."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value < below:
        bound = "" if below == float("inf") else f" and below {below:g}"
        raise ValueError(f"{name}={value!r} must be a number of at least {least:g}{bound}")


def check_positive(name: str, value: object) -> None:
    """Raise `ValueError` unless `value` is a positive, finite number."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < float("inf"):
        raise ValueError(f"{name}={value!r} must be a positive number")


def check_flag(name: str, value: object) -> None:
    """Raise `ValueError` unless `value` is True or False."""
    if not isinstance(value, bool):
        raise ValueError(f"{name}={value!r} must be True or False")


def made(argument: str, value: Any, kinds: Mapping[str, Callable[..., Any]], default: str) -> Any:
    """Return the object that an argument stands for.

    Args:
        argument: its name, for errors.
        value: a name in `kinds`; a dict of settings, with the kind under `name`; or an object, which is copied, since
            it may have a state.
        kinds: classes by name.
        default: the kind of a dict without `name`.

    Raises:
        ValueError: for an unknown kind or setting; the nearest one is named.
    """
    settings = {"name": value} if isinstance(value, str) else value
    if isinstance(settings, Mapping):
        settings = dict(settings)
        name = settings.pop("name", default)
        check_choice(argument, name, kinds)
        for setting in settings:
            check_choice(f"setting of {argument} {name!r}", setting, inspect.signature(kinds[name]).parameters)
        return kinds[name](**settings)
    if not callable(value):
        raise ValueError(
            f"{argument}={value!r} must be a name ({', '.join(map(repr, kinds))}), a dict such as "
            f"{{'name': {default!r}}}, or an object"
        )
    return copy.deepcopy(value)
