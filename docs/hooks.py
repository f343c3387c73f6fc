"""Parts of the guide that are written by the code itself, so that they cannot differ from it.

A page asks for a part by a line `<!-- generated: PART -->`, and for the API reference of a package by
`<!-- api: PACKAGE -->`. A line *Made by `make docs` ...* below it is for readers of the source, and is replaced too.
"""

from __future__ import annotations

import html
import importlib
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from mtrl_transfer import COMBINERS, choosing
from mtrl_transfer.agents.runs.compare.schema import CompareConfig
from mtrl_transfer.agents.runs.config.reference import keys_of, sections
from mtrl_transfer.agents.runs.config.schema import RunConfig
from mtrl_transfer.agents.runs.config.yaml_files import comparisons, presets

DOCS = Path(__file__).parent
REQUEST = re.compile(r"^<!-- (generated|api): ([\w.]+) -->(?:\n\*Made by `make docs`.*)?$", re.MULTILINE)
DIRECTIVE = re.compile(r"^::: mtrl_transfer\.(?:combiners|choosing)\.(\w+)$", re.MULTILINE)


def on_page_markdown(markdown: str, **_: Any) -> str:
    """MkDocs calls this with every page's source."""
    return REQUEST.sub(lambda request: PARTS[request[1]](request[2]), markdown)


# --- configs ----------------------------------------------------------------------------------------------------------


def config_reference() -> str:
    """Every key of a run's config: one table per section, from the schema."""
    return "\n\n".join(_section(prefix, section) for prefix, section in sections(RunConfig))


def comparison_reference() -> str:
    """Every key of a comparison."""
    return _section("", CompareConfig, "All keys")


def _section(prefix: str, section: type[BaseModel], title: str = "The run") -> str:
    title = f"`{prefix[:-1]}`" if prefix else title
    rows = [
        f"| `{key.name}` | {_prose(key.kind)} | {_default(key.default)} | {_prose(key.meaning)} |"
        for key in keys_of(section, prefix)
    ]
    head = "| key | value | default | what it is |\n| --- | --- | --- | --- |"
    return f"## {title}\n\n{_prose(section.__doc__ or '')}\n\n" + "\n".join([head, *rows])


def _prose(text: str) -> str:
    """One line of Markdown that a table can hold; `<` and `|` mean themselves."""
    parts = " ".join(text.replace("``", "`").replace("|", "\\|").split()).split("`")
    return "`".join(part if number % 2 else html.escape(part, quote=False) for number, part in enumerate(parts))


def _default(default: str) -> str:
    return "**required**" if default == "required" else f"`{default}`"


def preset_table(files: dict[str, Path] | None = None) -> str:
    """The presets, by the comment that each begins with."""
    rows = []
    for name, path in (presets() if files is None else files).items():
        first = path.read_text(encoding="utf-8").splitlines()[0]
        rows.append(f"| `{name}` | {first.removeprefix('# ')} |")
    return "\n".join(["| preset | what it is |", "| --- | --- |", *rows])


# --- combiners --------------------------------------------------------------------------------------------------------


def combiner_pages() -> dict[str, str]:
    """Page, relative to docs/, by name of the class in `combiners` or `choosing` that it describes."""
    pages = sorted(DOCS.rglob("*.md"))
    described = {page: DIRECTIVE.findall(page.read_text(encoding="utf-8")) for page in pages}
    return {name: page.relative_to(DOCS).as_posix() for page, names in described.items() for name in names}


def _anchor(name: str) -> str:
    """Return the anchor of a class on the page that describes it."""
    return f"mtrl_transfer.{'choosing' if name in choosing.__all__ else 'combiners'}.{name}"


def combiner_table() -> str:
    """Every combiner by name, with its page and what it asks of the caller."""
    pages = combiner_pages()
    rows = []
    for name, combiner in COMBINERS.items():
        page = Path(pages[combiner.__name__]).name  # KeyError: a combiner without a page
        first = (combiner.__doc__ or "").split("\n\n")[0]
        link = f"[`{name}`]({page}#{_anchor(combiner.__name__)})"
        rows.append(f"| {link} | {_prose(first)} | {_needs(combiner)} |")
    return "\n".join(["| name | what it does | needs |", "| --- | --- | --- |", *rows])


def _needs(combiner: Any) -> str:
    asked = {
        "Gramian": combiner.needs_gramian,
        "context": combiner.needs_context,
        "`after_step`": combiner.needs_after_step,
    }
    return ", ".join(name for name, needed in asked.items() if needed is True) or "nothing"


# --- API reference ----------------------------------------------------------------------------------------------------


def api_reference(package: str) -> str:
    """All public names of a package; combiners have pages of their own."""
    pages = combiner_pages()
    parts = []
    for name in importlib.import_module(package).__all__:
        if package == "mtrl_transfer" and name in pages:
            parts.append(f"## `{name}`\n\nHas [its own page](../{pages[name]}#{_anchor(name)}).")
        else:
            parts.append(f"::: {package}.{name}")
    return "\n\n".join(parts)


GENERATED: dict[str, Callable[[], str]] = {
    "configs": config_reference,
    "presets": preset_table,
    "comparison": comparison_reference,
    "comparisons": lambda: preset_table(comparisons()),
    "combiners": combiner_table,
}
PARTS: dict[str, Callable[[str], str]] = {"generated": lambda part: GENERATED[part](), "api": api_reference}
