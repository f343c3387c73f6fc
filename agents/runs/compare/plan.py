"""Plan of a comparison: its YAML, checked and turned into runs."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from mtrl_transfer.agents.declarations import problems_by_key
from mtrl_transfer.agents.runs.compare.engine import engine_problems
from mtrl_transfer.agents.runs.compare.planned import PlannedRun
from mtrl_transfer.agents.runs.compare.schema import CompareConfig
from mtrl_transfer.agents.runs.config.checks import task_names
from mtrl_transfer.agents.runs.config.loading import validated
from mtrl_transfer.agents.runs.config.schema import RunConfig
from mtrl_transfer.agents.runs.config.yaml_files import (
    Tree,
    comparisons,
    find_config,
    merge,
    parse_overrides,
    presets,
    read_mapping,
    read_tree,
)
from mtrl_transfer.agents.runs.errors import InputError
from mtrl_transfer.agents.runs.run_folder import HARMLESS, RUNS, flat, folder_problems
from mtrl_transfer.choices import did_you_mean

THE_METHOD = ("combiner",)
"""Sections in which methods may differ."""
NOT_THE_PROTOCOL = (*HARMLESS, "name", "seed", "agent.cuda_graph", "agent.compile")
"""Keys and sections that may differ between runs that are compared."""


@dataclass(frozen=True)
class MethodRun:
    """A planned run of a method with one of its seeds."""

    method: str
    seed: int
    planned: PlannedRun


@dataclass(frozen=True)
class Plan:
    """A comparison, ready to be run.

    Attributes:
        config: as resolved.
        folder: where runs and report lie.
        runs: methods times seeds, seed by seed, so that an interrupted comparison has all methods equally often.
        differences: sentences about differences of methods other than the combiner.
    """

    config: CompareConfig
    folder: Path
    runs: tuple[MethodRun, ...]
    differences: tuple[str, ...]


def load_plan(argument: str, overrides: Sequence[str] = ()) -> Plan:
    """Read, override and check a comparison.

    Args:
        argument: a path, or the name of a preset comparison.
        overrides: ``key.sub=value`` texts, which win over the file.

    Raises:
        InputError: with everything that is wrong at once; for methods that differ in more than the combiner, what
            differs.
    """
    path = find_config(argument, comparisons())
    above, unreadable = parse_overrides(overrides)
    config, problems = _comparison(merge(read_mapping(path), above))
    if config is None or unreadable:
        raise InputError([*unreadable, *(_as_run_key(problem) for problem in problems)])
    folder = Path(config.folder) if config.folder is not None else RUNS / f"compare_{config.name}"
    problems += folder_problems("folder", folder)
    problems += _names(config) + engine_problems(config)
    configs, more = _method_configs(config, path)
    differences = _differences(configs)
    if differences and not config.allow_differences:
        more += [*differences, "methods may differ in the combiner only, unless allow_differences=true"]
    elif config.allow_differences:
        more += _other_tasks(configs)
    if problems or more:
        raise InputError([*problems, *more])
    runs = tuple(_run(method, configs[method], seed, folder) for seed in config.seeds for method in configs)
    return Plan(config, folder, runs, tuple(differences))


def protocol_of(config: RunConfig) -> dict[str, Any]:
    """Dotted keys and values that must be equal wherever methods are compared."""
    return {
        key: value
        for key, value in flat(config).items()
        if not {key, key.split(".")[0]} & {*NOT_THE_PROTOCOL, *THE_METHOD} and value is not None
    }


def method_of(config: RunConfig) -> dict[str, Any]:
    """Dotted keys and values that make the method."""
    return {key: value for key, value in flat(config).items() if key.split(".")[0] in THE_METHOD}


def different_keys(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """Keys whose values differ, or that only one has."""
    return sorted(key for key in one.keys() | other.keys() if one.get(key) != other.get(key))


def _comparison(tree: Tree) -> tuple[CompareConfig | None, list[str]]:
    try:
        return CompareConfig.model_validate(tree), []
    except ValidationError as error:
        return None, list(problems_by_key(error, CompareConfig).values())


def _names(config: CompareConfig) -> list[str]:
    problems = []
    if config.baseline not in config.methods:
        nearest = did_you_mean(config.baseline, config.methods)
        problems.append(f"baseline={config.baseline!r} is none of the methods{nearest}")
    return problems


def _method_configs(config: CompareConfig, path: Path) -> tuple[dict[str, RunConfig], list[str]]:
    """Each method's run config, and problems; one that all methods have is listed once."""
    beside = path.parent / config.base
    base = merge(read_tree(beside if beside.is_file() else find_config(config.base, presets())), config.config)
    found: dict[str, RunConfig] = {}
    problems: dict[str, list[str]] = {}
    for method, own in config.methods.items():
        made, wrong = validated(merge(base, own))
        if made is not None:
            found[method] = made
        for problem in wrong:
            problems.setdefault(problem, []).append(method)
    everywhere = len(config.methods)
    return found, [
        problem if len(methods) == everywhere > 1 else f"methods.{', '.join(methods)}: {problem}"
        for problem, methods in problems.items()
    ]


def _differences(configs: Mapping[str, RunConfig]) -> list[str]:
    protocols = {method: protocol_of(config) for method, config in configs.items()}
    keys = {key for one in protocols.values() for other in protocols.values() for key in different_keys(one, other)}
    return [
        f"{key}: " + ", ".join(f"{method} has {protocol.get(key)!r}" for method, protocol in protocols.items())
        for key in sorted(keys)
    ]


def _other_tasks(configs: Mapping[str, RunConfig]) -> list[str]:
    """Problems of methods with different tasks: their scores cannot be compared, whatever is allowed."""
    tasks = {method: task_names(config) for method, config in configs.items()}
    if len(set(tasks.values())) <= 1:
        return []
    told = (f"{method} has {', '.join(names)}" for method, names in tasks.items())
    return [f"methods should have the same tasks, also with allow_differences=true: {'; '.join(told)}"]


def _as_run_key(problem: str) -> str:
    """Improve the hint for an unknown key that a run config has."""
    found = re.match(r"unknown key (\w+)", problem)
    if found is None or found[1] not in RunConfig.model_fields or f"{found[1]}s" in CompareConfig.model_fields:
        return problem
    return f"unknown key {found[1]}; did you mean config.{found[1]}?"


def _run(method: str, config: RunConfig, seed: int, folder: Path) -> MethodRun:
    label = f"{method}_s{seed}"
    own = config.model_copy(update={"name": method, "seed": seed})
    return MethodRun(method, seed, PlannedRun(label, own, folder / "runs" / label))
