"""From a CONFIG argument and overrides to a checked :class:`~mtrl_transfer.agents.runs.config.schema.RunConfig`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from mtrl_transfer.agents.runs.config.checks import inconsistencies
from mtrl_transfer.agents.runs.config.schema import RunConfig, Section
from mtrl_transfer.agents.runs.config.yaml_files import Tree, find_config, merge, parse_overrides, read_tree
from mtrl_transfer.agents.runs.errors import InputError, nearest

_STAND_INS = {"name": "unnamed", "total_timesteps": 1, "env": {"id": "Point-3"}}
"""For required values that are bad, so that the others can still be judged."""

SectionT = TypeVar("SectionT", bound=Section)


def load_config(argument: str, overrides: Sequence[str] = ()) -> RunConfig:
    """Read, merge, override and check a config.

    Args:
        argument: a path, or a preset's name.
        overrides: ``key.sub=value`` texts, which win over the file.

    Raises:
        InputError: with every bad key and value at once.
    """
    above, unreadable = parse_overrides(overrides)
    config, problems = validated(merge(read_tree(find_config(argument)), above))
    if config is None or unreadable:
        raise InputError([*unreadable, *problems])
    return config


def validated(tree: Tree) -> tuple[RunConfig | None, list[str]]:
    """The tree as a config, or None and what is wrong, a sentence each: with the schema, and between the values."""
    try:
        config = RunConfig.model_validate(tree)
    except ValidationError as error:
        bad = problems_by_key(error, RunConfig)
        sound = RunConfig.model_validate(merge(_STAND_INS, _without(tree, bad)))
        return None, [*bad.values(), *inconsistencies(sound, unknown=set(bad))]
    problems = inconsistencies(config)
    return (None if problems else config), problems


def to_yaml(config: RunConfig) -> str:
    """The resolved config as YAML, readable as a config again."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, default_flow_style=None, width=120)


def keys(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Every dotted key of the schema, sections included."""
    for name, field in model.model_fields.items():
        yield prefix + name
        if _is_section(field.annotation):
            yield from keys(field.annotation, f"{prefix}{name}.")  # type: ignore[arg-type]


def _is_section(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def problems_by_key(error: ValidationError, model: type[BaseModel]) -> dict[str, str]:
    """One sentence per dotted key; a union's alternatives are joined."""
    details: dict[str, list[ErrorDetails]] = {}
    for detail in error.errors(include_url=False):
        details.setdefault(_dotted(detail["loc"], model), []).append(detail)
    return {path: _sentence(path, found, model) for path, found in details.items()}


def _dotted(location: tuple[str | int, ...], model: type[BaseModel]) -> str:
    """The config's key of an error: pydantic appends the names of a union's alternatives and list positions."""
    leaves = {key for key in keys(model) if not _children(key, model)}
    parts: list[str] = []
    for part in map(str, location):
        if ".".join(parts) in leaves:
            break
        parts.append(part)
    return ".".join(parts)


def _sentence(path: str, details: list[ErrorDetails], model: type[BaseModel]) -> str:
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
    return text[0].lower() + text[1:]


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _children(path: str, model: type[BaseModel]) -> list[str]:
    prefix = path + "." if path else ""
    return [key for key in keys(model) if key.startswith(prefix) and "." not in key.removeprefix(prefix)]


def _nearest_key(path: str, model: type[BaseModel]) -> str:
    """Hint for an unknown key: the nearest at its level, else the same name elsewhere, else the nearest of all."""
    parent, _, name = path.rpartition(".")
    siblings = {key.rpartition(".")[2]: key for key in _children(parent, model)}
    near = nearest(name, siblings)
    elsewhere = (key for key in keys(model) if key.rpartition(".")[2] == name)
    found = siblings[near] if near else next(elsewhere, nearest(path, keys(model)))
    return f"; did you mean {found}?" if found else f" (known: {', '.join(siblings.values())})"


def _without(tree: Mapping[str, Any], problems: Mapping[str, str], prefix: str = "") -> Tree:
    """The tree without the values that have a problem of their own."""
    sound: Tree = {}
    for key, value in tree.items():
        path = prefix + key
        if path not in problems:
            sound[key] = _without(value, problems, path + ".") if isinstance(value, Mapping) else value
    return sound


def section(model: type[SectionT], overrides: Sequence[str]) -> SectionT:
    """Options of one command from ``key=value`` arguments.

    Raises:
        InputError: naming everything that is wrong at once.
    """
    tree, problems = parse_overrides(overrides)
    try:
        options = model.model_validate(tree)
    except ValidationError as error:
        problems += problems_by_key(error, model).values()
    if problems:
        raise InputError(problems)
    return options
