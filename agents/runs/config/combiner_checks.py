"""Checks of a combiner's settings against its constructor: names, types, values, and what they need of each other."""

from __future__ import annotations

import re
import typing
from collections.abc import Set
from typing import Any

from pydantic import TypeAdapter, ValidationError

from mtrl_transfer import COMBINERS, make_combiner
from mtrl_transfer.agents.mtsac.roles import ROLES, merged
from mtrl_transfer.agents.runs.config.schema import CombinerConfig
from mtrl_transfer.choices import did_you_mean

Settings = dict[str, tuple[str, Any]]
"""Name of a setting -> its dotted key in the config, and its value."""


def combiner_problems(combiner: CombinerConfig) -> list[str]:
    """One sentence per problem, beginning with the key."""
    sections = {"kwargs": combiner.kwargs, "critic": combiner.critic, "actor": combiner.actor}
    names = {section: settings.get("name", combiner.name) for section, settings in sections.items() if section in ROLES}
    keys = {
        f"combiner.{section}.name" if "name" in sections[section] else "combiner.name": names[section]
        for section in ROLES
    }
    problems = [
        f"{key}={name!r} does not exist{did_you_mean(name, COMBINERS)}"
        for key, name in {"combiner.name": combiner.name, **keys}.items()
        if name not in COMBINERS
    ]
    if problems:
        return problems
    names["kwargs"] = combiner.name
    mistyped: set[str] = set()
    sound: dict[str, Settings] = {}
    for section, values in sections.items():
        own = {name: value for name, value in values.items() if section == "kwargs" or name != "name"}
        keyed = {name: (f"combiner.{section}.{name}", value) for name, value in own.items()}
        told = {name: _wrong_type(names[section], name, key, value) for name, (key, value) in keyed.items()}
        problems += [problem for problem in told.values() if problem]
        mistyped |= {name for name, problem in told.items() if problem}
        sound[section] = {name: keyed[name] for name, problem in told.items() if not problem}
    roles = {role: _merged(sound["kwargs"] if names[role] == combiner.name else {}, sound[role]) for role in ROLES}
    for role, settings in roles.items():
        problems += _wrong_values(names[role], settings, mistyped)
    return [*dict.fromkeys(problems), *_actor_scale(roles["actor"])]


def _merged(common: Settings, own: Settings) -> Settings:
    """Return the settings of a role; one that amends a common one is named by the role's key."""
    values = merged(
        {name: value for name, (_, value) in common.items()}, {name: value for name, (_, value) in own.items()}
    )
    return {name: ({**common, **own}[name][0], value) for name, value in values.items()}


def task_problems(combiner: CombinerConfig, n_tasks: int) -> list[str]:
    """Return problems of sound settings that name tasks which do not exist."""
    problems: list[str] = []
    for section in ("kwargs", "critic", "actor"):
        settings = getattr(combiner, section)
        rates, candidates = settings.get("rates"), settings.get("candidates")
        if isinstance(rates, list) and len(rates) != n_tasks:
            problems.append(f"combiner.{section}.rates has {len(rates)} entries for {n_tasks} tasks")
        subsets = [part for part in candidates if isinstance(part, list)] if isinstance(candidates, list) else []
        problems += [
            f"combiner.{section}.candidates names task {task!r}, but tasks are numbered 0 to {n_tasks - 1}"
            for task in dict.fromkeys(task for subset in subsets for task in subset)
            if type(task) is not int or not 0 <= task < n_tasks
        ]
        if [] in subsets:
            problems.append(f"combiner.{section}.candidates contains an empty subset; the step along no task is none")
    return problems


def _types(name: str) -> dict[str, Any]:
    """The settings that a config can make; a generator is none of them."""
    hints = typing.get_type_hints(COMBINERS[name].__init__)
    return {setting: hint for setting, hint in hints.items() if setting not in ("return", "generator")}


def _wrong_type(combiner: str, name: str, key: str, value: Any) -> str | None:
    types = _types(combiner)
    if name in ROLES:
        return f"unknown key {key}; did you mean combiner.{name}?"
    if name in (renamed := COMBINERS[combiner].renamed):
        return f"{key} is now {renamed[name]}"
    if name not in types:
        return f"unknown key {key}" + (did_you_mean(name, types) if types else " (this combiner has no settings)")
    try:
        TypeAdapter(types[name]).validate_python(value, strict=True)
    except ValidationError as error:
        expected = dict.fromkeys(detail["msg"].removeprefix("Input ") for detail in error.errors())
        return f"{key}={value!r} {' or '.join(expected)}"
    return None


def _wrong_values(name: str, settings: Settings, told: Set[str]) -> list[str]:
    """Make the combiner of all settings together; while it refuses, tell why and leave out the one that it refuses.

    Errors that mention a setting that was already removed (one of ``told``) are skipped: they judge the others by that
    setting's default.
    """
    problems: list[str] = []
    left, gone = dict(settings), set(told)
    refusal = _refusal(name, left)
    while refusal is not None:
        guilty = next((one for one in left if _refusal(name, _except(left, one)) != refusal), None)
        if guilty is None:  # no setting's fault: the combiner itself cannot be had here
            return [*problems, f"combiner.name={name!r}: {refusal}"]
        if not any(re.search(rf"\b{other}\b", refusal) for other in gone):
            problems.append(f"{left[guilty][0]}: {refusal}")
        left = _except(left, guilty)
        gone.add(guilty)
        refusal = _refusal(name, left)
    return problems


def _refusal(name: str, settings: Settings) -> str | None:
    try:
        make_combiner(name, **{setting: value for setting, (_, value) in settings.items()})
    except (ImportError, TypeError, ValueError) as error:
        return str(error)
    return None


def _except(settings: Settings, name: str) -> Settings:
    return {setting: value for setting, value in settings.items() if setting != name}


def _actor_scale(actor: Settings) -> list[str]:
    key, scale = actor.get("scale", ("", None))
    if scale != "ratio" and not (isinstance(scale, dict) and scale.get("name") == "ratio"):
        return []
    return [f"{key}={scale!r} needs positive losses, and the actor's are not; set combiner.actor.scale=ema"]
