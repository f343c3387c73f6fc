"""Look-up of names with a helpful error."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def unknown_name(kind: str, name: object, known: Iterable[str]) -> ValueError:
    """Return the error for a name that does not exist. It names the nearest ones, or all if none is near."""
    choices = list(known)
    lowered = {choice.lower(): choice for choice in choices}
    near = [lowered[match] for match in difflib.get_close_matches(str(name).lower(), lowered, n=3, cutoff=0.5)]
    hint = f"did you mean {' or '.join(map(repr, near))}?" if near else f"known: {', '.join(choices)}"
    return ValueError(f"unknown {kind} {name!r}; {hint}")
