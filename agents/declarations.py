"""Arguments declared once: a signature holds names, types, ranges and defaults, the docstring the meaning.

`section_of` reads them off. Configs, checks, archives and the guide use what it gives.
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Annotated, Any, ClassVar, get_origin, get_type_hints

import numpy as np
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    WrapValidator,
    create_model,
)
from pydantic_core import ErrorDetails

from mtrl_transfer.choices import did_you_mean, nearest


def _not_a_boolean(value: Any) -> Any:
    """Python counts ``True`` as 1; a ``seed: true`` in a config is a mistake."""
    if isinstance(value, bool):
        raise ValueError("should be a number, not true or false")
    return value


def plain(value: Any) -> Any:
    """Arrays, NumPy's numbers and tuples as the lists and numbers that JSON holds; everything else unchanged."""
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    if isinstance(value, Mapping):
        return {key: plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    return value


def json_able(settings: Any) -> Any:
    """Settings as JSON holds them.

    Raises:
        ValueError: naming a setting that it cannot hold.
    """
    for name, value in settings.items() if isinstance(settings, Mapping) else ():
        try:
            json.dumps(plain(value))
        except TypeError:
            raise ValueError(
                f"holds {name}={value!r}, which cannot be stored: use numbers, text, lists and dicts"
            ) from None
    return plain(settings)


def explained(expectation: str) -> WrapValidator:
    """A validator that replaces the messages of a compound type by one: ``should be ...``."""

    def validate(value: Any, inner: Callable[[Any], Any]) -> Any:
        try:
            return inner(value)
        except ValidationError:
            raise ValueError(expectation) from None

    return WrapValidator(validate)


def _split(seeds: Any) -> Any:
    """Take ``1,2,3`` and ``1`` for lists."""
    if isinstance(seeds, str):
        return [seed.strip() for seed in seeds.split(",")]
    return [seeds] if isinstance(seeds, int) else seeds


def _all_different(seeds: tuple[int, ...]) -> tuple[int, ...]:
    if len(set(seeds)) < len(seeds):
        raise ValueError("names a seed twice")
    return seeds


Int = Annotated[int, BeforeValidator(_not_a_boolean)]
Float = Annotated[float, BeforeValidator(_not_a_boolean), Field(allow_inf_nan=False)]
Text = Annotated[str, Field(min_length=1)]
Count = Annotated[Int, Field(ge=1)]
Seed = Annotated[Int, Field(ge=0, lt=2**32)]
Seeds = Annotated[tuple[Seed, ...], BeforeValidator(_split), AfterValidator(_all_different), Field(min_length=1)]
"""A list, or ``1,2,3``."""
Positive = Annotated[Float, Field(gt=0)]
Fraction = Annotated[Float, Field(gt=0, le=1)]
Settings = Annotated[dict[str, Any], BeforeValidator(json_able)]
"""Keyword arguments that a file can hold."""


class Section(BaseModel):
    """A group of arguments, or a mapping in a config: frozen, and no unknown keys."""

    hints: ClassVar[Mapping[str, str]] = {}
    """Advice for names that it does not have: what to use instead."""
    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        use_attribute_docstrings=True,
        arbitrary_types_allowed=True,
        validate_default=True,
    )


def section_of(owner: type, without: Collection[str] = ()) -> type[Section]:
    """The arguments with defaults of a class's constructor, as a section.

    Args:
        owner: the class; its docstring explains each argument under ``Args:``.
        without: names to leave out.
    """
    hints = get_type_hints(owner.__init__, include_extras=True)  # type: ignore[misc]
    meanings = _meanings(inspect.getdoc(owner) or "")
    fields: dict[str, Any] = {
        name: (hints[name], Field(parameter.default, description=meanings[name]))
        for name, parameter in inspect.signature(owner).parameters.items()
        if parameter.default is not parameter.empty and name not in without and not name.startswith("_")
    }
    return create_model(f"{owner.__name__}Arguments", __base__=Section, **fields)


def _meanings(docstring: str) -> dict[str, str]:
    """Argument -> what its entry under ``Args:`` says, on one line."""
    _, _, rest = docstring.partition("\nArgs:\n")
    block = re.split(r"\n(?=\S)", rest)[0]
    entries = re.findall(r"^    (\w+): (.*(?:\n {5,}.*|\n(?=\n))*)", block, re.MULTILINE)
    return {name: " ".join(text.split()) for name, text in entries}


def checked(section: type[Section], arguments: Mapping[str, Any]) -> Section:
    """Validate arguments.

    Raises:
        ValueError: with one clause per bad argument: its name, its value and what was expected.
    """
    try:
        return section.model_validate(arguments)
    except ValidationError as error:
        raise ValueError("; ".join(problems_by_key(error, section).values())) from None


# --- errors in plain words --------------------------------------------------------------------------------------------


def keys(model: type[Section], prefix: str = "") -> Iterator[str]:
    """Every dotted key of the schema, sections included."""
    for name, field in model.model_fields.items():
        yield prefix + (field.alias or name)
        if is_section(field.annotation):
            yield from keys(field.annotation, f"{prefix}{name}.")  # type: ignore[arg-type]


def is_section(annotation: Any) -> bool:
    """Return whether a key holds keys itself."""
    # In Python 3.10 `dict[str, int]` is an instance of `type` too.
    return get_origin(annotation) is None and isinstance(annotation, type) and issubclass(annotation, BaseModel)


def problems_by_key(error: ValidationError, model: type[Section]) -> dict[str, str]:
    """One sentence per dotted key; a union's alternatives are joined."""
    details: dict[str, list[ErrorDetails]] = {}
    for detail in error.errors(include_url=False):
        details.setdefault(_dotted(detail["loc"], model), []).append(detail)
    return {path: _sentence(path, found, model) for path, found in details.items()}


def _dotted(location: tuple[str | int, ...], model: type[Section]) -> str:
    """The config's key of an error, with the key inside a mapping such as ``methods.mine``.

    Pydantic appends the names of a union's alternatives and list positions.
    """
    leaves = {key for key in keys(model) if not _children(key, model)}
    for depth in range(1, len(location)):
        path = ".".join(map(str, location[:depth]))
        if path in leaves:
            parent, _, name = path.rpartition(".")
            in_mapping = get_origin(_section_at(parent, model).model_fields[name].annotation) is dict
            return f"{path}.{location[depth]}" if in_mapping else path
    return ".".join(map(str, location))


def _sentence(path: str, details: list[ErrorDetails], model: type[Section]) -> str:
    kind, value = details[0]["type"], details[0]["input"]
    if kind == "missing":
        return f"{path} is missing"
    if kind == "extra_forbidden":
        return f"unknown key {path}{_nearest_key(path, model)}"
    if kind in ("model_type", "model_attributes_type"):
        return f"{path}={_short(value)} should hold keys of its own: {', '.join(_children(path, model))}"
    expected = dict.fromkeys(_expectation(detail) for detail in details)
    return f"{path}={_short(value)} {' or '.join(expected)}"


def _expectation(detail: ErrorDetails) -> str:
    text = detail["msg"].removeprefix("Value error, ").removeprefix("Input ")
    text = (text[0].lower() + text[1:]).replace("valid tuple", "list").replace("valid dictionary", "mapping of keys")
    if detail["type"] != "literal_error":
        return text
    return text + did_you_mean(detail["input"], re.findall(r"'(.*?)'", detail["ctx"]["expected"]), None)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _children(path: str, model: type[Section]) -> list[str]:
    prefix = path + "." if path else ""
    return [key for key in keys(model) if key.startswith(prefix) and "." not in key.removeprefix(prefix)]


def _section_at(path: str, model: Any) -> type[Section]:
    for name in path.split(".") if path else ():
        model = model.model_fields[name].annotation
    return model


def _nearest_key(path: str, model: type[Section]) -> str:
    """Hint for an unknown key: the nearest at its level, or the same name elsewhere, or all keys of its level."""
    parent, _, name = path.rpartition(".")
    if hint := _section_at(parent, model).hints.get(name):
        return f"; {hint}"
    siblings = {key.rpartition(".")[2]: key for key in _children(parent, model)}
    near = nearest(name, siblings)
    elsewhere = (key for key in keys(model) if key.rpartition(".")[2] == name)
    found = siblings[near] if near else next(elsewhere, None if parent else nearest(path, keys(model)))
    return f"; did you mean {found}?" if found else did_you_mean(name, siblings, f"{parent} has" if parent else "known")
