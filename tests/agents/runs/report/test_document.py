"""Reports as HTML, Markdown and JSON have the content of template and values."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from jinja2 import UndefinedError
from matplotlib.figure import Figure

from mtrl_transfer.agents.runs.report.document import Report, digits, table
from mtrl_transfer.agents.runs.report.numbers import Estimate, mean_with_interval, write_csv, write_json

TEMPLATE = """
# Of {{ name }}
{% if name %}

> Beware of {{ name }} and `code`.

{% endif %}
{{ rows }}

<details><summary>Later</summary>

![The "{{ name }}" drawn](figures/drawn.svg)

</details>

```sh
{{ command | safe }}
```
"""
ROWS = table(["name", "x"], [["one|two", Estimate(0.5, -0.001, 1.0)], ["none", None]])


@pytest.fixture
def report(tmp_path: Path) -> Report:
    (tmp_path / "template.md").write_text(TEMPLATE, encoding="utf-8")
    values = {"name": "a <b> & c", "command": "run <this>", "rows": ROWS}
    return Report(tmp_path / "template.md", values, {"drawn": Figure()})


def test_markdown_escapes_values_and_links_to_pictures(report: Report):
    assert report.markdown.splitlines() == [
        *("# Of a &lt;b&gt; &amp; c", "", "> Beware of a &lt;b&gt; &amp; c and `code`.", ""),
        *("| name | x |", "| --- | ---: |", "| one&#124;two | 0.50 [0.00, 1.00] |", "| none | – |", ""),
        *("<details><summary>Later</summary>", "", '![The "a &lt;b&gt; &amp; c" drawn](figures/drawn.svg)', ""),
        *("</details>", "", "```sh", "run <this>", "```"),
    ]


def test_html_is_complete_and_self_contained(report: Report):
    page = report.html()
    assert "<title>Of a &lt;b&gt; &amp; c</title>" in page
    assert "<h1>Of a &lt;b&gt; &amp; c</h1>" in page
    assert "<p>Beware of a &lt;b&gt; &amp; c and <code>code</code>.</p>\n</blockquote>" in page
    assert re.search(r"<td>one(\||&#124;)two</td>\n<td[^>]*>0.50 \[0.00, 1.00\]</td>", page)
    assert re.search(r"<td>none</td>\n<td[^>]*>–</td>", page)
    assert re.findall(r'(?:src|href)="(.{26})', page) == ["data:image/svg+xml;base64,"]
    assert "<figcaption>The &quot;a &lt;b&gt; &amp; c&quot; drawn</figcaption>" in page
    assert page.index("<summary>Later") < page.index("<figure>") < page.index("</details>")
    assert "run &lt;this&gt;" in page
    assert page == report.html()


def test_new_report_replaces_old_pictures(report: Report, tmp_path: Path):
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures" / "old.svg").touch()
    assert report.write(tmp_path) == tmp_path / "report.html"
    assert [path.name for path in (tmp_path / "figures").iterdir()] == ["drawn.svg"]
    assert (tmp_path / "report.md").read_text(encoding="utf-8") == report.markdown
    assert (tmp_path / "report.html").read_text(encoding="utf-8") == report.html()


def test_missing_template_value_is_an_error(report: Report):
    with pytest.raises(UndefinedError, match="'command' is undefined"):
        _ = Report(report.template, {"name": "", "rows": ROWS}, {}).markdown


def test_digits_rounds_and_keeps_none():
    assert [digits(value, 1) for value in (0.25, -0.01, None, float("nan"))] == ["0.2", "0.0", None, None]


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


def test_interval_of_a_mean_is_students():
    found = mean_with_interval([1.0, 2.0, 3.0, 4.0])
    assert found.value == 2.5
    half = pytest.approx(3.182446 * np.sqrt(5 / 3) / 2, rel=1e-5)
    assert (found.high - found.value, found.value - found.low) == (half, half)
    assert f"{found:.1f}" == "2.5 [0.4, 4.6]"
