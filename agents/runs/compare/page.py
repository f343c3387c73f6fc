"""A report as sections of text, tables and pictures, and as one HTML or Markdown file with everything in it."""

from __future__ import annotations

import base64
import html
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from string import Template

TEMPLATE = Path(__file__).with_name("page.html")


@dataclass(frozen=True)
class Text:
    """A paragraph; a ``warning`` stands out."""

    text: str
    warning: bool = False


@dataclass(frozen=True)
class Code:
    """Lines to be copied."""

    text: str


@dataclass(frozen=True)
class Table:
    """Cells as text; all columns but the first are numbers, or of ``facts`` words."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    facts: bool = False


@dataclass(frozen=True)
class Picture:
    """An SVG, and what it shows in words."""

    title: str
    svg: str


@dataclass(frozen=True)
class Section:
    """Parts under a title; ``folded`` ones open on a click."""

    title: str
    parts: list[Text | Code | Table | Picture] = field(default_factory=list)
    folded: bool = False


def to_html(title: str, sections: Sequence[Section]) -> str:
    """One file that needs no other: styles and pictures are inside."""
    body = "\n".join(_html_section(section) for section in sections)
    return Template(TEMPLATE.read_text(encoding="utf-8")).substitute(title=html.escape(title), body=body)


def to_markdown(title: str, sections: Sequence[Section]) -> str:
    """The same as Markdown; pictures are at its end, as data."""
    lines, pictures = [f"# {title}"], list[str]()
    for section in sections:
        lines.append(f"## {section.title}")
        for part in section.parts:
            if isinstance(part, Picture):
                pictures.append(f"[picture-{len(pictures) + 1}]: {_data(part.svg)}")
                lines.append(f"![{part.title}][picture-{len(pictures)}]")
            else:
                lines.append(_markdown(part))
    return "\n\n".join([*lines, "\n".join(pictures)]).rstrip() + "\n"


def pictures(sections: Sequence[Section]) -> dict[str, str]:
    """SVGs of what is not folded, by a name for a file: the title up to its first colon."""
    shown = [part for section in sections if not section.folded for part in section.parts if isinstance(part, Picture)]
    return {picture.title.partition(":")[0].lower().replace(" ", "_"): picture.svg for picture in shown}


def _html_section(section: Section) -> str:
    parts = "\n".join(_html(part) for part in section.parts)
    title = html.escape(section.title)
    if section.folded:
        return f"<details><summary>{title}</summary>\n{parts}\n</details>"
    return f"<section><h2>{title}</h2>\n{parts}\n</section>"


def _html(part: Text | Code | Table | Picture) -> str:
    if isinstance(part, Picture):
        title = html.escape(part.title)
        return f'<figure><img src="{_data(part.svg)}" alt="{title}"><figcaption>{title}</figcaption></figure>'
    if isinstance(part, Code):
        return f"<pre>{html.escape(part.text)}</pre>"
    if isinstance(part, Text):
        kind = ' class="warning"' if part.warning else ""
        return f"<p{kind}>{html.escape(part.text)}</p>"
    head = "".join(f"<th>{html.escape(cell)}</th>" for cell in part.header)
    rows = "\n".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in part.rows)
    kind = ' class="facts"' if part.facts else ""
    return f'<div class="table"><table{kind}>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{rows}\n</tbody></table></div>'


def _markdown(part: Text | Code | Table) -> str:
    if isinstance(part, Code):
        return f"```sh\n{part.text}\n```"
    if isinstance(part, Text):
        return f"**{part.text}**" if part.warning else part.text
    rule = ["---", *["---" if part.facts else "---:"] * (len(part.header) - 1)]
    rows = [part.header, rule, *part.rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows)


def _data(svg: str) -> str:
    return "data:image/svg+xml;base64," + base64.b64encode(svg.encode()).decode()
