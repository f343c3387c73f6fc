"""The study of groups as a report and in TensorBoard."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from torch.utils.tensorboard import SummaryWriter

from mtrl_transfer.agents.mtsac.roles import ROLES
from mtrl_transfer.agents.runs.grouping.choose import ALONE, TOGETHER
from mtrl_transfer.agents.runs.grouping.figures import groups_and_gains, over_groups, predicted_and_realised
from mtrl_transfer.agents.runs.grouping.history import AffinityHistory
from mtrl_transfer.agents.runs.grouping.results import Results
from mtrl_transfer.agents.runs.report.document import Report, digits, table
from mtrl_transfer.agents.runs.report.numbers import Estimate, mean_with_interval
from mtrl_transfer.grouping import Grouping

TEMPLATE = Path(__file__).with_name("report.md.jinja")
EVENTS = "report"
"""Folder of TensorBoard's events."""


def write_report(results: Results, history: AffinityHistory) -> Path:
    """Write ``report.html``, ``report.md``, the figures and TensorBoard's events.

    Args:
        results: results of all groupings.
        history: affinity of the joint run.

    Returns:
        The HTML page.
    """
    names = results.choices.names
    ranks = zip(names, results.rank_correlation().tolist(), strict=True)
    figures = _figures(results)
    values = {
        **{"config": results.plan.config, "options": results.plan.options, "names": names, "digits": digits},
        "named": lambda groups: _named(names, groups),
        "results": list(_rows(results)),
        "ranks": {name: rank for name, rank in ranks if np.isfinite(rank)},
        "per_task": _per_task(results),
        "company": _company(results, history),
        "selections": results.choices.selections,
        "reliabilities": results.choices.reliabilities,
    }
    folder = results.plan.folder
    _write_events(folder / EVENTS, results, figures)
    return Report(TEMPLATE, values, figures).write(folder)


def _figures(results: Results) -> dict[str, Figure]:
    figures, names, choices = {}, results.choices.names, results.choices
    number = min(results.plan.options.n_groups)
    for name, affinity in choices.affinities.items():
        row = next(row for row in choices.selections[name] if row["n_groups"] == number)
        shown = {"one network per task": ALONE, "all together": TOGETHER, "these groups": f"{name}_{number}"}
        success = {
            said: results.values(label, "success").mean(axis=0)
            for said, label in shown.items()
            if label in results.evaluations
        }
        grouping = Grouping(row["groups"], row["assignment"])
        title = f"By {name}: {number} networks at most"
        figures[f"groups_{name}"] = groups_and_gains(affinity, names, grouping, success, title)
    lines = {name: [row["score"] for row in rows] for name, rows in choices.selections.items()}
    figures["score"] = over_groups(lines, "Total affinity of the chosen groups", "standard deviations")
    figures["predicted_realised"] = predicted_and_realised(
        results.predicted, results.gains, names, "Predicted and realised gain", "return beyond all together's"
    )
    return figures


def _company(results: Results, history: AffinityHistory) -> tuple[str, dict[str, str | None]] | None:
    """Each task's gain from company beside the affinity that it receives, and how the two agree."""
    gains, options = results.company_gains, results.plan.options
    if gains is None:
        return None
    kinds = dict.fromkeys(name.removesuffix("_critic").removesuffix("_actor") for name in options.by)
    received = {f"{kind}_{role}": history.received(f"{kind}_{role}", options.part) for kind in kinds for role in ROLES}
    success = {label: results.values(label, "success").mean(axis=0) for label in (ALONE, TOGETHER)}
    rows = [
        [name, *(digits(one[task]) for one in success.values()), _gain(gains[:, task])]
        + [f"{one[task]:.2g}" for one in received.values()]
        for task, name in enumerate(results.choices.names)
    ]
    means = [results.mean_success(label) for label in (ALONE, TOGETHER)]
    rows.append(["mean", *(digits(one.mean()) for one in means), _gain(means[1] - means[0]), *[None] * len(received)])
    header = ("task", "alone", "together", "gain", *(f"received, {name}" for name in received))
    ranks = {name: results.foretold(one) for name, one in received.items()}
    return table(header, rows), {name: one and _told(one, len(gains)) for name, one in ranks.items()}


def _told(estimate: Estimate, seeds: int) -> str | None:
    return str(estimate) if seeds > 1 else digits(estimate.value)


def _gain(gains: np.ndarray) -> str | None:
    return str(mean_with_interval(gains)) if len(gains) > 1 else digits(gains.mean())


def _rows(results: Results) -> Iterator[tuple[object, ...]]:
    """Label, groups, mean success, its range over seeds, transitions and steps of each grouping."""
    for candidate in results.choices.candidates:
        label, success = candidate.label, results.mean_success(candidate.label)
        spread = f"{success.min():.2f}–{success.max():.2f}"
        steps = f"{results.updates(label):,}"
        yield label, candidate.grouping.groups, success.mean(), spread, results.transitions(label), steps
    for number in sorted(set(results.plan.options.n_groups)):
        best = results.best_found(number)
        if best is not None:
            groups = best[0].groups
            transitions = sum(map(len, groups)) * results.updates(TOGETHER)
            yield f"best found in hindsight, {number}", groups, best[1], None, transitions, None


def _per_task(results: Results) -> str:
    rows = []
    for candidate in results.choices.candidates:
        means = (results.values(candidate.label, name).mean(axis=0) for name in ("success", "return"))
        rows.append([candidate.label, *(f"{s:.2f} ({r:.1f})" for s, r in zip(*means, strict=True))])
    return table(("grouping", *results.choices.names), rows)


def _named(names: tuple[str, ...], groups: Iterable[Iterable[int]]) -> str:
    return "; ".join(", ".join(names[task] for task in group) for group in groups)


def _write_events(folder: Path, results: Results, figures: dict[str, Figure]) -> None:
    """Write figures, the score by the number of networks, and each grouping's mean success by the same number."""
    shutil.rmtree(folder, ignore_errors=True)  # of an earlier report
    with SummaryWriter(str(folder)) as writer:
        for name, figure in figures.items():
            writer.add_figure(f"groups/{name}", figure, close=False)
        for name, rows in results.choices.selections.items():
            for row in rows:
                writer.add_scalar(f"groups_score/{name}", row["score"], row["n_groups"])
        for candidate in results.choices.candidates:
            method = candidate.label.rpartition("_")[0] if candidate.label[-1].isdigit() else candidate.label
            success = float(results.mean_success(candidate.label).mean())
            writer.add_scalar(f"groups_success/{method}", success, len(candidate.grouping.groups))
