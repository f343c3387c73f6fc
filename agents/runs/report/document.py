"""A report as sections of text, tables and pictures, and its files.

The texts of all reports are rendered by the templates ``page.html`` and ``page.md``, which stand beside this file.
"""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import matplotlib as mpl
from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape
from markupsafe import Markup, escape
from matplotlib.figure import Figure

from mtrl_transfer.agents.runs.run_folder import write_text

HTML, MARKDOWN = "report.html", "report.md"
FIGURES = "figures"
"""Folder of the pictures as SVG files, for a paper or a README."""


@dataclass(frozen=True)
class Text:
    """A paragraph, in which backticks mark code. A ``warning`` stands out."""

    kind: ClassVar = "text"
    text: str
    warning: bool = False


@dataclass(frozen=True)
class Code:
    """Command lines to be copied."""

    kind: ClassVar = "code"
    text: str


@dataclass(frozen=True)
class Table:
    """Rows of cells: text, or anything that formats itself; None becomes a dash.

    All columns but the first hold numbers, or words if ``words`` is true.
    """

    kind: ClassVar = "table"
    header: Sequence[str]
    rows: Sequence[Sequence[object]]
    words: bool = False


@dataclass(frozen=True)
class Picture:
    """A figure with a caption; ``name`` is that of its file."""

    kind: ClassVar = "picture"
    name: str
    caption: str
    figure: Figure

    @cached_property
    def svg(self) -> str:
        """The figure as SVG; equal figures give equal text."""
        buffer = io.StringIO()
        with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "report"}):
            self.figure.savefig(buffer, format="svg", metadata={"Date": None})
        return buffer.getvalue()

    @property
    def data(self) -> str:
        """The SVG as an address that needs no file."""
        return "data:image/svg+xml;base64," + base64.b64encode(self.svg.encode()).decode()


Part = Text | Code | Table | Picture


@dataclass(frozen=True)
class Section:
    """Parts under a title. A ``folded`` section opens on a click; an empty one is left out."""

    title: str
    parts: Sequence[Part] = field(default_factory=list)
    folded: bool = False


@dataclass(frozen=True)
class Document:
    """A whole report."""

    title: str
    sections: Sequence[Section]

    @property
    def pictures(self) -> list[Picture]:
        """All pictures in their order."""
        return [part for section in self.sections for part in section.parts if isinstance(part, Picture)]

    def html(self) -> str:
        """Return one page that needs no other file: styles and pictures are inside."""
        return _templates().get_template("page.html").render(document=self)

    def markdown(self) -> str:
        """Return the same as Markdown, with links to the pictures in :data:`FIGURES`."""
        text = _templates().get_template("page.md").render(document=self, figures=FIGURES)
        return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"

    def write(self, folder: Path) -> Path:
        """Write page, Markdown and pictures into a folder, and remove pictures of an earlier report.

        Returns:
            The HTML file.
        """
        figures = folder / FIGURES
        figures.mkdir(parents=True, exist_ok=True)
        for old in figures.glob("*.svg"):
            old.unlink()
        for picture in self.pictures:
            write_text(figures / f"{picture.name}.svg", picture.svg)
        write_text(folder / MARKDOWN, self.markdown())
        write_text(folder / HTML, self.html())
        return folder / HTML


def _templates() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=select_autoescape(["html"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"cell": _cell, "prose": _prose}
    return environment


def _cell(value: object) -> str:
    return "–" if value is None else str(value)


def _prose(text: str) -> Markup:
    """HTML of a text whose backticks mark code."""
    return Markup(re.sub("`([^`]+)`", r"<code>\1</code>", str(escape(text))))
