"""From a CONFIG argument and overrides to a checked `RunConfig`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import yaml
from pydantic import ValidationError

from mtrl_transfer.agents.declarations import Section, problems_by_key
from mtrl_transfer.agents.runs.config.checks import inconsistencies
from mtrl_transfer.agents.runs.config.schema import RunConfig
from mtrl_transfer.agents.runs.config.yaml_files import Tree, find_config, merge, parse_overrides, read_tree
from mtrl_transfer.agents.runs.errors import InputError

_STAND_INS = {"name": "unnamed", "total_timesteps": 1, "env": {"id": "Point-3"}}
"""Stand-ins for required values that are bad, so that the others can still be judged."""

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
        origin = "" if overrides else f"{argument}: "
        raise InputError([*unreadable, *(f"{origin}{problem}" for problem in problems)])
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
