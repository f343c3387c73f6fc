"""Keys of a schema, each with its kind, default and meaning, for ``--keys`` and the guide."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from mtrl_transfer.agents.declarations import is_section


class Key(NamedTuple):
    """A key of a config; code is in backticks.

    - `name`: dotted.
    - `kind`: the values that it takes, in words.
    - `default`: as YAML, or ``required``.
    - `meaning`: in one line.
    """

    name: str
    kind: str
    default: str
    meaning: str


def reference(model: type[BaseModel], prefix: str = "") -> Iterator[Key]:
    """All keys of a schema, those of its sections included."""
    for name, section in sections(model, prefix):
        yield from keys_of(section, name)


def sections(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, type[BaseModel]]]:
    """A schema and all of its sections, each with the prefix of its keys."""
    yield prefix, model
    for name, field in model.model_fields.items():
        if is_section(field.annotation):
            yield from sections(field.annotation, f"{prefix}{name}.")  # type: ignore[arg-type]


def keys_of(section: type[BaseModel], prefix: str = "") -> Iterator[Key]:
    """The documented keys of one section, without those of its own sections."""
    for name, field in section.model_fields.items():
        if not is_section(field.annotation) and field.description is not None:
            yield Key(
                prefix + (field.alias or name),
                _kind(field.annotation, field.metadata),
                _default(field),
                _yaml(field.description),
            )


def _yaml(text: str) -> str:
    """A docstring's words on one line, in those of YAML: ``null`` for ``None``."""
    return " ".join(re.sub(r"\bNone\b", "null", text.replace("``", "`")).split())


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    default = field.get_default(call_default_factory=True, validated_data={})
    if isinstance(default, int) and default >= 10_000:
        return f"{default:_}"
    listed = list(default) if isinstance(default, tuple) else default
    return listed if isinstance(listed, str) else json.dumps(listed)


def _kind(annotation: Any, metadata: Iterable[Any] = ()) -> str:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _kind(arguments[0], (*arguments[1:], *metadata))
    if origin in (Union, UnionType):
        return " or ".join(_kind(one) for one in arguments)
    if origin is Literal:
        return " or ".join(f"`{choice}`" for choice in arguments)
    if origin in (list, tuple):
        return f"list of {_kind(arguments[0])}"
    if origin is dict and get_origin(arguments[0]) is Literal:
        return f"mapping of {' and '.join(f'`{key}`' for key in get_args(arguments[0]))}"
    names = {str: "text", int: "integer", float: "number", bool: "`true` or `false`", NoneType: "`null`"}
    return f"{names.get(annotation, 'mapping')} {', '.join(_bounds(metadata))}".rstrip()


def _bounds(metadata: Iterable[Any]) -> list[str]:
    """``≥ 1`` and the like, also from a nested ``Field(...)``."""
    flat = [part for one in metadata for part in (one.metadata if isinstance(one, FieldInfo) else [one])]
    signs = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}
    return [
        f"{sign} {'2³²' if getattr(part, name) == 2**32 else getattr(part, name)}"
        for part in flat
        for name, sign in signs.items()
        if hasattr(part, name)
    ]
