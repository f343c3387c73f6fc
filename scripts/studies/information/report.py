"""The synthetic study as Markdown and figures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from studies.information import sweeps
from studies.information.figures import curves
from studies.information.settings import Settings
from studies.information.sweeps import Curve
from studies.supervised.statistics import interval


class Section(NamedTuple):
    """One sweep, as it is told: what was swept, and what it is to show."""

    name: str
    title: str
    condition: str
    text: str
    found: Sequence[Curve]


def sections(settings: Settings) -> list[Section]:
    """Run all sweeps."""
    linear = sweeps.similarities(settings, sweeps.LINEAR_WIDTH)
    relu = sweeps.similarities(settings, sweeps.RELU_WIDTH)
    turned = (
        "The source task is the target seen through a rotation: same function, other covariance. At 0 degrees the "
        "covariance similarity is {:.2f} (below 1, for several directions hold the spectrum), at 90 degrees {:.2f}. "
    )
    return [
        Section(
            "capacity",
            "Capacity: a trunk as wide as the number of tasks permits no transfer",
            "width of the trunk",
            f"{sweeps.CAPACITY_TASKS} linear tasks with nothing in common, inputs of their own, "
            f"{sweeps.CAPACITY_ROWS} rows. Narrower trunks harm them; from {sweeps.CAPACITY_TASKS} features on, every "
            "task is served as if alone.",
            [sweeps.capacity(settings)],
        ),
        Section(
            "similarity_linear",
            "Linear tasks: from positive to negative transfer as similarity falls",
            "angle of the source's covariance (degrees)",
            turned.format(linear[0], linear[-1])
            + f"{sweeps.LINEAR_ROWS[0]} rows of the target, {sweeps.LINEAR_ROWS[1]} of the source, a trunk of one "
            "feature, fitted to its optimum. The noisier the labels, the less alike a source may be and still help. "
            "Alignment can only undo harm here: `R_t B a_t` reaches any vector, so that its optimum is the single-task "
            "model, with transfer 0.",
            sweeps.similarity_linear(settings),
        ),
        Section(
            "similarity_relu",
            "ReLU networks: the same transition, and alignment restores transfer",
            "angle of the source's covariance (degrees)",
            turned.format(relu[0], relu[-1])
            + f"{sweeps.RELU_ROWS[0]} rows of the target, {sweeps.RELU_ROWS[1]} of the source, {sweeps.RELU_HIDDEN} "
            f"neurons and one feature, label noise {sweeps.RELU_NOISE}. `R_t` has {sweeps.RELU_WIDTH**2} parameters "
            "where the trunk has many more, so that few rows can fit it. Where tasks are aligned already, it costs.",
            sweeps.similarity_relu(settings),
        ),
        Section(
            "reweighting",
            "SVD weights under label noise",
            "label noise of the noisy tasks",
            f"{sweeps.LABEL_TASKS} linear tasks of the same {sweeps.LABEL_ROWS} rows and {sweeps.LABEL_RANK} common "
            f"features; {sweeps.LABEL_NOISY} of them get more label noise ({sweeps.CLEAN_NOISE} in the others). "
            "Transfer to the others. Labels are of unit variance for both methods.",
            sweeps.reweighting(settings),
        ),
    ]


def draw(folder: Path, found: Sequence[Section]) -> None:
    """A figure a sweep, as PNG."""
    for section in found:
        log = section.name == "reweighting"
        curves(section.found, section.title, section.condition, log).savefig(folder / f"{section.name}.png")


def markdown(settings: Settings, found: Sequence[Section]) -> str:
    """The report's text, with links to its figures."""
    parts = [
        "# Information transfer between tasks",
        f"Synthetic tasks after Wu, Zhang and Ré (arXiv 2005.00944); {settings.trials} independent draws, seed "
        f"{settings.seed}. Transfer is ln(single-task error / multi-task error) on noiseless rows: above 0 tasks help, "
        "below 0 they harm, 0.69 halves the error. Means and 95% intervals over draws.",
    ]
    for section in found:
        parts += [
            f"## {section.title}",
            section.text,
            f"![{section.title}]({section.name}.png)",
            _table(section),
        ]
    return "\n\n".join(parts) + "\n"


def _table(section: Section) -> str:
    lines = [
        f"| {section.condition} | {' | '.join(curve.name for curve in section.found)} |",
        "| --- |" + " --- |" * len(section.found),
    ]
    for row, point in enumerate(section.found[0].points):
        cells = [_cell(curve, row) for curve in section.found]
        lines.append(f"| {point:g} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(curve: Curve, row: int) -> str:
    mean, low, high = (value if abs(value) >= 0.005 else 0.0 for value in interval(curve.values[row]))
    return f"{mean:.2f} [{low:.2f}, {high:.2f}]"
