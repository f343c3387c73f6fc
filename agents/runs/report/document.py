"""A report from a Markdown template and its figures, written as Markdown, as one HTML page and as SVG files."""

from __future__ import annotations

import base64
import html
import io
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from string import Template

import matplotlib as mpl
from jinja2 import Environment, StrictUndefined
from markdown_it import MarkdownIt
from markupsafe import Markup
from matplotlib.figure import Figure

from mtrl_transfer.agents.runs.run_folder import write_text

HTML, MARKDOWN, FIGURES = "report.html", "report.md", "figures"
PAGE = Path(__file__).with_name("page.html")
PICTURE = re.compile(rf'<p><img src="{FIGURES}/([^"]+)\.svg" alt="([^"]*)" /></p>')


@dataclass(frozen=True)
class Report:
    """A report whose text is a Jinja template of Markdown.

    Values that the template inserts are escaped, and None becomes a dash. A picture is a paragraph
    ``![caption](figures/NAME.svg)`` with a name of ``figures``; a quotation is shown as a warning.

    Args:
        template: file of the template; its first line is the title.
        values: what the template names.
        figures: by name; the template may ask for them as ``figures``.
    """

    template: Path
    values: Mapping[str, object]
    figures: Mapping[str, Figure]

    @cached_property
    def markdown(self) -> str:
        """The text, with links to the pictures in the folder ``figures``."""
        environment = Environment(undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, finalize=_escaped)
        template = environment.from_string(self.template.read_text(encoding="utf-8"))
        text = template.render(self.values, figures=self.figures)
        return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"

    @cached_property
    def pictures(self) -> dict[str, str]:
        """The figures as SVG; equal figures give equal texts."""
        return {name: _svg(figure) for name, figure in self.figures.items()}

    def html(self) -> str:
        """Return the same as one page that needs no other file: styles and pictures are inside."""
        body = MarkdownIt("commonmark").enable("table").render(self.markdown)
        title = html.escape(html.unescape(self.markdown.partition("\n")[0].removeprefix("# ")))
        page = Template(PAGE.read_text(encoding="utf-8"))
        return page.substitute(title=title, body=PICTURE.sub(self._embedded, body))

    def write(self, folder: Path) -> Path:
        """Write page, Markdown and pictures into a folder, and remove pictures of an earlier report.

        Returns:
            The HTML file.
        """
        figures = folder / FIGURES
        figures.mkdir(parents=True, exist_ok=True)
        for old in figures.glob("*.svg"):
            old.unlink()
        for name, svg in self.pictures.items():
            write_text(figures / f"{name}.svg", svg)
        write_text(folder / MARKDOWN, self.markdown)
        write_text(folder / HTML, self.html())
        return folder / HTML

    def _embedded(self, picture: re.Match[str]) -> str:
        name, caption = picture.groups()
        data = base64.b64encode(self.pictures[name].encode()).decode()
        image = f'<img src="data:image/svg+xml;base64,{data}" alt="{caption}">'
        return f"<figure>{image}<figcaption>{caption}</figcaption></figure>"


def table(header: Sequence[object], rows: Iterable[Sequence[object]]) -> Markup:
    """Markdown of a table; all columns but the first are numbers."""
    rule = ["---", *["---:"] * (len(header) - 1)]
    lines = [[str(_escaped(cell)) for cell in row] for row in (header, rule, *rows)]
    return Markup("\n".join(f"| {' | '.join(line)} |" for line in lines))


def digits(value: float | None, places: int = 2) -> str | None:
    """A number with some decimal places; None stays None, as does nan."""
    return (
        None if value is None or math.isnan(value) else f"{round(value, places) + 0.0:.{places}f}"
    )  # no minus before a zero


def _escaped(value: object) -> object:
    """Text that means itself in HTML, Markdown's tables included."""
    if isinstance(value, Markup):
        return value
    return "–" if value is None else html.escape(str(value), quote=False).replace("|", "&#124;")


def _svg(figure: Figure) -> str:
    buffer = io.StringIO()
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "report"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()
