"""Parts of the guide that are written by the code itself, so that they cannot differ from it.

A page asks for a part by a line `<!-- generated: PART -->`, and for the API reference of a package by
`<!-- api: PACKAGE -->`.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from agents.runs.schema import RunConfig
from agents.runs.yaml_files import presets
from mtrl_transfer.combiners import COMBINERS

DOCS = Path(__file__).parent
REQUEST = re.compile(r"^<!-- (generated|api): (\w+) -->$", re.MULTILINE)
DIRECTIVE = re.compile(r"^::: mtrl_transfer\.combiners\.(\w+)$", re.MULTILINE)
Schema = dict[str, Any]


def on_page_markdown(markdown: str, **_: Any) -> str:
    """MkDocs calls this with every page's source."""
    return REQUEST.sub(lambda request: PARTS[request[1]](request[2]), markdown)


# --- configs ----------------------------------------------------------------------------------------------------------


def config_reference() -> str:
    """Every key of a run's config: one table per section, from the schema."""
    schema = RunConfig.model_json_schema()
    return "\n\n".join(_section(section, prefix, schema) for prefix, section in _sections(schema, schema))


def _sections(section: Schema, schema: Schema, prefix: str = "") -> Iterator[tuple[str, Schema]]:
    yield prefix, section
    for name, value in section["properties"].items():
        if "$ref" in value:
            yield from _sections(_resolved(value, schema), schema, f"{prefix}{name}.")


def _resolved(value: Schema, schema: Schema) -> Schema:
    return schema["$defs"][value["$ref"].rpartition("/")[2]] if "$ref" in value else value


def _section(section: Schema, prefix: str, schema: Schema) -> str:
    title = f"`{prefix[:-1]}`" if prefix else "The run"
    rows = [
        f"| `{prefix}{name}` | {_kind(value)} | {_default(name, value, section)} | {_prose(value['description'])} |"
        for name, value in section["properties"].items()
        if "$ref" not in value
    ]
    head = "| key | value | default | what it is |\n| --- | --- | --- | --- |"
    return f"## {title}\n\n{_prose(section['description'])}\n\n" + "\n".join([head, *rows])


def _prose(text: str) -> str:
    return " ".join(text.replace("``", "`").split()).replace("|", "\\|")


def _default(name: str, value: Schema, section: Schema) -> str:
    if name in section.get("required", []):
        return "**required**"
    default = value["default"]
    shown = {None: "null", True: "true", False: "false"}.get(default) if not isinstance(default, list | dict) else None
    return f"`{default if shown is None else shown}`"


def _kind(value: Schema) -> str:
    """What a value may be, in words."""
    if "anyOf" in value:
        return " or ".join(dict.fromkeys(_kind(part) for part in value["anyOf"]))
    if "enum" in value or "const" in value:
        return " or ".join(f"`{choice}`" for choice in value.get("enum", [value.get("const")]))
    if value["type"] == "array":
        return f"list of: {_kind(value['items'])}"
    names = {"string": "text", "boolean": "`true` or `false`", "null": "`null`", "object": "mapping"}
    return names.get(value["type"], value["type"]) + _bounds(value)


def _bounds(value: Schema) -> str:
    signs = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    limits = [f"{sign} {value[name]}" for name, sign in signs.items() if name in value]
    return " " + ", ".join(limits) if limits else ""


def preset_table() -> str:
    """The presets, by the comment that each begins with."""
    rows = []
    for name, path in presets().items():
        first = path.read_text(encoding="utf-8").splitlines()[0]
        rows.append(f"| `{name}` | {first.removeprefix('# ')} |")
    return "\n".join(["| preset | what it is |", "| --- | --- |", *rows])


# --- combiners --------------------------------------------------------------------------------------------------------


def combiner_pages() -> dict[str, str]:
    """Page, relative to docs/, by name of the class in `mtrl_transfer.combiners` that it describes."""
    pages = sorted(DOCS.rglob("*.md"))
    described = {page: DIRECTIVE.findall(page.read_text(encoding="utf-8")) for page in pages}
    return {name: page.relative_to(DOCS).as_posix() for page, names in described.items() for name in names}


def combiner_table() -> str:
    """Every combiner by name, with its page and what it asks of the caller."""
    pages = combiner_pages()
    rows = []
    for name, combiner in COMBINERS.items():
        page = Path(pages[combiner.__name__]).name  # KeyError: a combiner without a page
        first = (combiner.__doc__ or "").split("\n\n")[0]
        link = f"[`{name}`]({page}#mtrl_transfer.combiners.{combiner.__name__})"
        rows.append(f"| {link} | {_prose(first)} | {_needs(combiner)} |")
    return "\n".join(["| name | what it does | needs |", "| --- | --- | --- |", *rows])


def _needs(combiner: Any) -> str:
    asked = {"Gramian": combiner.needs_gramian, "context": combiner.needs_context, "`after_step`": False}
    asked["`after_step`"] = combiner.needs_after_step
    return ", ".join(name for name, needed in asked.items() if needed) or "nothing"


# --- API reference ----------------------------------------------------------------------------------------------------


def api_reference(package: str) -> str:
    """All public names of a package; combiners have pages of their own."""
    pages = combiner_pages()
    parts = []
    for name in importlib.import_module(package).__all__:
        if package == "mtrl_transfer" and name in pages:
            parts.append(f"## `{name}`\n\nHas [its own page](../{pages[name]}#mtrl_transfer.combiners.{name}).")
        else:
            parts.append(f"::: {package}.{name}")
    return "\n\n".join(parts)


GENERATED: dict[str, Callable[[], str]] = {
    "configs": config_reference,
    "presets": preset_table,
    "combiners": combiner_table,
}
PARTS: dict[str, Callable[[str], str]] = {"generated": lambda part: GENERATED[part](), "api": api_reference}
