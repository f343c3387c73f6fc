"""Reports: what is written is what was said, in HTML, Markdown and JSON."""

from __future__ import annotations

import html
import json
import re
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from mtrl_transfer.agents.runs.report.document import Code, Document, Picture, Section, Table, Text
from mtrl_transfer.agents.runs.report.numbers import Estimate, mean_with_interval, write_csv, write_json

TEXT = "a < b & `c|d`"


def document() -> Document:
    parts = [Text(TEXT), Text("beware", warning=True), Code("run <this>")]
    table = Table(["name", "x|y"], [["one|two", Estimate(0.5, -0.001, 1.0)], ["none", None]])
    picture = Picture("drawn", 'a "picture"', Figure())
    return Document(
        "A & B", [Section("First", [*parts, table]), Section("Later", [picture], folded=True), Section("None")]
    )


def test_html_escapes_texts_and_embeds_pictures():
    page = document().html()
    assert "<title>A &amp; B</title>" in page
    assert "<p>a &lt; b &amp; <code>c|d</code></p>" in page
    assert '<p class="warning">beware</p>' in page
    assert "<pre>run &lt;this&gt;</pre>" in page
    assert "<td>one|two</td><td>0.50 [0.00, 1.00]</td>" in page
    assert "<td>none</td><td>–</td>" in page
    assert f'alt="{html.escape("a ")}&#34;picture&#34;"' in page
    assert re.findall(r'(?:src|href)="(.{26})', page) == ["data:image/svg+xml;base64,"]
    assert page.index("<details><summary>Later") < page.index("<figure>")
    assert "None" not in page


def test_markdown_has_tables_and_links_to_pictures():
    assert document().markdown().splitlines() == [
        *("# A & B", "", "## First", "", TEXT, "", "**beware**", ""),
        *("```sh", "run <this>", "```", ""),
        *("| name | x\\|y |", "| --- | ---: |", "| one\\|two | 0.50 [0.00, 1.00] |", "| none | – |", ""),
        *("## Later", "", '![a "picture"](figures/drawn.svg)'),
    ]


def test_written_pictures_replace_those_of_an_earlier_report(tmp_path: Path):
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures" / "old.svg").touch()
    assert document().write(tmp_path) == tmp_path / "report.html"
    assert [path.name for path in (tmp_path / "figures").iterdir()] == ["drawn.svg"]
    assert (tmp_path / "report.md").read_text(encoding="utf-8") == document().markdown()
    assert document().html() == document().html()


def test_numbers_are_plain_json_and_csv(tmp_path: Path):
    content = {
        1: np.arange(2),
        "nan": [np.float32("nan"), float("inf")],
        "of": (Estimate(1.0, 0.0, 2.0), np.bool_(True)),
    }
    write_json(tmp_path / "x.json", content)
    expected = {"1": [0, 1], "nan": [None, None], "of": [{"value": 1.0, "low": 0.0, "high": 2.0}, True]}
    assert json.loads((tmp_path / "x.json").read_text(encoding="utf-8")) == expected
    write_csv(tmp_path / "x.csv", ("a", "b"), [(1, "x,y")])
    assert (tmp_path / "x.csv").read_text(encoding="utf-8") == 'a,b\n1,"x,y"\n'


def test_the_interval_of_a_mean_is_students():
    found = mean_with_interval([1.0, 2.0, 3.0, 4.0])
    assert found.value == 2.5
    assert found.high - found.value == found.value - found.low == pytest.approx(3.182446 * np.sqrt(5 / 3) / 2, rel=1e-5)
    assert f"{found:.1f}" == "2.5 [0.4, 4.6]"
