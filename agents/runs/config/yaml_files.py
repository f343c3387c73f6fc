"""Reading YAML: files with a base, presets by name, ``key.sub=value`` overrides."""

from __future__ import annotations

import re
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

import mtrl_transfer
from mtrl_transfer.agents.runs.errors import InputError
from mtrl_transfer.choices import did_you_mean

Tree = dict[str, Any]


class _Loader(yaml.SafeLoader):
    """YAML as people write it: ``3e-4`` is a number (YAML 1.2); a key given twice, or without a value, is an error."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Hashable, Any]:
        seen = set()
        for key_node, value_node in node.value:
            key = self.construct_object(key_node, deep=True)
            is_empty = isinstance(value_node, yaml.ScalarNode) and not value_node.value and value_node.style is None
            faults = {
                "is not a name": not isinstance(key, str),
                "is given twice": key in seen,
                "has no value; null means none": is_empty,
            }
            for fault in (fault for fault, found in faults.items() if found):
                raise yaml.constructor.ConstructorError(None, None, f"key {key!r} {fault}", key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?(\d[\d_]*\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)


def presets_folder() -> Path:
    """Folder of the presets: inside the package when installed from a wheel, beside it in a checkout."""
    package = Path(mtrl_transfer.__file__).parent
    installed = package / "configs"
    return installed if installed.is_dir() else package.parent / "configs"


def presets() -> dict[str, Path]:
    """The presets' files by name, e.g. ``"mt10_quick"``."""
    return {path.stem: path for path in sorted(presets_folder().glob("*.yaml")) if path.stem != "base"}


def comparisons() -> dict[str, Path]:
    """The files of preset comparisons by name, e.g. ``"point"``."""
    return {path.stem: path for path in sorted((presets_folder() / "compare").glob("*.yaml"))}


def find_config(argument: str, known: Mapping[str, Path] | None = None) -> Path:
    """The file meant by the command line's CONFIG: a path, or a preset's bare name.

    Args:
        argument: what was given.
        known: presets by name; None: those of runs.

    Raises:
        InputError: if there is neither, naming what is nearest.
    """
    path = Path(argument)
    if path.is_file():
        return path
    known = presets() if known is None else known
    if argument in known:
        return known[argument]
    if path.is_dir():
        raise InputError(f"{argument} is a folder, expected a config file or one of the presets {', '.join(known)}")
    beside = {str(path.parent / found.name) for found in path.parent.glob("*.yaml")} if argument != path.name else set()
    raise InputError(f"no config {argument!r}" + did_you_mean(argument, {*known, *beside}, listed="presets"))


def read_tree(path: Path, chain: tuple[Path, ...] = ()) -> Tree:
    """A config file merged onto its base, and that onto its own.

    A base is a file, relative to the one that names it, or a preset.

    Args:
        path: the file.
        chain: the files that named this one as their base.

    Raises:
        InputError: for what is unreadable, is no mapping, or names itself as base.
    """
    if path.resolve() in chain:
        raise InputError(f"{path} names itself as its base, by way of {chain[-1].name}")
    tree = read_mapping(path, f", the base of {chain[-1].name}" if chain else "")
    base = tree.pop("base", None)
    if base is None:
        return tree
    if not isinstance(base, str):
        raise InputError(f"{path}: base should be the name of a file, not {base!r}")
    beside = path.parent / base
    below = beside if beside.is_file() else presets().get(base.removesuffix(".yaml"), beside)
    return merge(read_tree(below, (*chain, path.resolve())), tree)


def read_mapping(path: Path, named_by: str = "") -> Tree:
    """One file's keys and values, as they stand.

    Args:
        path: the file.
        named_by: who asked for it, for the error.

    Raises:
        InputError: for what is unreadable or is no mapping.
    """
    try:
        tree = _load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"cannot read {path}{named_by}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not a text file in UTF-8") from error
    except yaml.YAMLError as error:
        raise InputError(f"{path} is not valid YAML: {_one_line(error)}") from error
    if tree is None:
        tree = {}
    if not isinstance(tree, dict):
        raise InputError(f"{path} should hold key: value pairs, but holds a {_kind(tree)}")
    return tree


def _load(text: str) -> Any:
    """Parse YAML; impossible dates, huge numbers and deep nesting are a YAMLError too."""
    try:
        return yaml.load(text, Loader=_Loader)
    except (ValueError, RecursionError) as error:
        raise yaml.YAMLError(str(error)) from None


def merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> Tree:
    """``above`` laid over ``below``, mapping by mapping; any other value replaces what it covers.

    A mapping ``combiner`` that names another combiner replaces the one below: settings belong to the combiner that
    they were written for.
    """
    merged = dict(below)
    for key, value in above.items():
        covered = merged.get(key)
        if not (isinstance(value, Mapping) and isinstance(covered, Mapping)) or (
            key == "combiner" and value.get("name", covered.get("name")) != covered.get("name")
        ):
            merged[key] = value
        else:
            merged[key] = merge(covered, value)
    return merged


def parse_overrides(arguments: Sequence[str]) -> tuple[Tree, list[str]]:
    """``["agent.learning_rate=1e-3", "seed=3"]`` as a tree; values are YAML.

    Returns:
        The tree, and one sentence for each argument that cannot be read or contradicts another.
    """
    tree: Tree = {}
    problems = []
    for argument in arguments:
        key, equals, text = argument.partition("=")
        parts = key.split(".")
        if not equals or not all(parts):
            problems.append(f"{argument!r}: expected key=value or key.sub=value, e.g. agent.learning_rate=1e-3")
            continue
        if not text.strip():
            problems.append(f"{argument!r}: the value is missing; {key}=null means none, where a key may have none")
            continue
        try:
            value = _load(text)
        except yaml.YAMLError as error:
            problems.append(f"{argument!r}: the value is not valid YAML: {_one_line(error)}")
            continue
        if not _place(tree, parts, value):
            problems.append(f"{argument!r}: {key} is given twice")
    return tree, problems


def _place(tree: Tree, parts: list[str], value: Any) -> bool:
    """Put a value at its path; False where something lies there or on the way."""
    for part in parts[:-1]:
        tree = tree.setdefault(part, {})
        if not isinstance(tree, dict):
            return False
    if parts[-1] in tree:
        return False
    tree[parts[-1]] = value
    return True


def _one_line(error: yaml.YAMLError) -> str:
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        return f"{error.problem} (line {error.problem_mark.line + 1})"
    return " ".join(str(error).split())


def _kind(value: Any) -> str:
    return "text" if isinstance(value, str) else type(value).__name__
