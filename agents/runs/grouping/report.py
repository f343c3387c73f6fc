"""The study of groups as one HTML page and in TensorBoard."""

from __future__ import annotations

import base64
import html
import io
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from torch.utils.tensorboard import SummaryWriter

from mtrl_transfer.agents.monitoring.figures import heatmap
from mtrl_transfer.agents.runs.grouping.figures import dendrogram, over_groups, predicted_and_realised
from mtrl_transfer.agents.runs.grouping.history import PARTS, ROLES, AffinityHistory
from mtrl_transfer.agents.runs.grouping.results import Results
from mtrl_transfer.agents.runs.run_folder import write_text

REPORT_FILE = "report.html"
EVENTS = "report"
STYLE = (
    "body{font:16px/1.5 sans-serif;max-width:70em;margin:2em auto;padding:0 1em}"
    "table{border-collapse:collapse}td,th{border:1px solid #ccc;padding:.2em .6em;text-align:left}"
    "img{max-width:32em;width:48%;vertical-align:top}"
)


def write_report(results: Results, history: AffinityHistory) -> Path:
    """Write ``report.html`` and TensorBoard's events.

    Args:
        results: of all groupings.
        history: of the joint run's affinity.

    Returns:
        The page.
    """
    figures = _figures(results, history)
    config, options = results.plan.config, results.plan.options
    about = (
        f"{config.name}: {len(history.names)} tasks, {config.total_timesteps:,} transitions of all together, seeds "
        f"{', '.join(map(str, options.seeds))}; affinity of the joint run ({options.network}, {options.part}), "
        f"{int(history.measurements.sum()):,} measurements. Equal for all groupings: {options.equal}."
    )
    parts = [
        f"<h1>Which tasks share a network</h1><p>{html.escape(about)}</p>",
        "<h2>Results</h2>",
        _table(
            ("grouping", "networks", "groups", "mean success", "of seeds", "transitions", "steps a run"), _rows(results)
        ),
        f"<p>{html.escape(_correlation(results))}</p>",
        "<h2>Per task: success (return), means over seeds</h2>",
        _table(("grouping", *history.names), _per_task(results)),
        "<h2>Chosen groups by the number of networks</h2>",
        _table(("networks, at most", "groups", "score", "bound"), _selections(results)),
        "<h2>Affinity and predictions</h2>",
        *(_image(name, figure) for name, figure in figures.items()),
    ]
    page = results.plan.folder / REPORT_FILE
    head = f"<!doctype html><html lang=en><meta charset=utf-8><title>Groups of {html.escape(config.name)}</title>"
    write_text(page, f"{head}<style>{STYLE}</style>{''.join(parts)}</html>\n")
    _write_events(results, figures)
    return page


def _figures(results: Results, history: AffinityHistory) -> dict[str, Figure]:
    figures = {}
    for role in ROLES:
        for part in PARTS:
            affinity = history.affinity(role, part)
            figures[f"affinity_{role}_{part}"] = heatmap(
                affinity, history.names, f"Affinity, {role}, {part}", "gives", "receives"
            )
            figures[f"dendrogram_{role}_{part}"] = dendrogram(affinity, history.names, f"{role}, {part}")
    scores = [row["score"] for row in results.choices.selections]
    figures["score"] = over_groups({"predicted": scores}, "Total affinity of the chosen groups", "standard deviations")
    figures["predicted_realised"] = predicted_and_realised(
        results.predicted, results.gains, history.names, "Did predictions come true?", "return beyond all together's"
    )
    return figures


def _rows(results: Results) -> Iterable[Sequence[str]]:
    for candidate in results.choices.candidates:
        success = results.mean_success(candidate.label)
        yield (
            candidate.label,
            str(len(candidate.grouping.groups)),
            _named(results, candidate.grouping.groups),
            f"{success.mean():.3f}",
            f"{success.min():.2f}–{success.max():.2f}",
            f"{results.transitions(candidate.label):,.0f}",
            f"{results.updates(candidate.label):,}",
        )
    for number in sorted(set(results.plan.options.n_groups)):
        best = results.best_found(number)
        if best is not None:
            size = sum(map(len, best[0].groups)) * results.updates("together")
            groups = _named(results, best[0].groups)
            label = f"best found in hindsight, {number}"
            yield label, str(len(best[0].groups)), groups, f"{best[1]:.3f}", "", f"{size:,}", ""


def _per_task(results: Results) -> Iterable[Sequence[str]]:
    for candidate in results.choices.candidates:
        success = results.values(candidate.label, "success").mean(axis=0)
        returns = results.values(candidate.label, "return").mean(axis=0)
        yield candidate.label, *(f"{s:.2f} ({r:.1f})" for s, r in zip(success, returns, strict=True))


def _selections(results: Results) -> Iterable[Sequence[str]]:
    for row in results.choices.selections:
        # Plus zero: what rounds to nothing has no sign.
        yield (
            str(row["n_groups"]),
            _named(results, row["groups"]),
            *(f"{round(row[name], 3) + 0.0:.3f}" for name in ("score", "bound")),
        )


def _correlation(results: Results) -> str:
    ranks = results.rank_correlation()
    known = np.isfinite(ranks)
    told = "Rank correlation (Spearman) of predicted with realised gain in return, over groups of two or more: "
    if not known.any():
        return told + "not known, for a task needs three different ones."
    pairs = zip(results.choices.names, ranks.tolist(), strict=True)
    each = ", ".join(f"{name} {rank:.2f}" for name, rank in pairs if np.isfinite(rank))
    return f"{told}{each}; mean {ranks[known].mean():.2f} over {known.sum()} tasks."


def _named(results: Results, groups: Iterable[Iterable[int]]) -> str:
    return "; ".join(", ".join(results.choices.names[task] for task in group) for group in groups)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = ["".join(f"<th>{html.escape(cell)}" for cell in head)]
    lines += ["".join(f"<td>{html.escape(cell)}" for cell in row) for row in rows]
    return "<table>" + "".join(f"<tr>{line}" for line in lines) + "</table>"


def _image(name: str, figure: Figure) -> str:
    file = io.BytesIO()
    figure.savefig(file, format="png")
    return f'<img alt="{name}" src="data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}">'


def _write_events(results: Results, figures: dict[str, Figure]) -> None:
    """Figures, the score by the number of networks, and each grouping's mean success by its number of networks."""
    folder = results.plan.folder / EVENTS
    shutil.rmtree(folder, ignore_errors=True)  # of an earlier report
    with SummaryWriter(str(folder)) as writer:
        for name, figure in figures.items():
            writer.add_figure(f"groups/{name}", figure, close=False)
        for row in results.choices.selections:
            writer.add_scalar("groups/predicted_score", row["score"], row["n_groups"])
        for candidate in results.choices.candidates:
            method = candidate.label.rpartition("_")[0] if candidate.label[-1].isdigit() else candidate.label
            success = float(results.mean_success(candidate.label).mean())
            writer.add_scalar(f"groups_success/{method}", success, len(candidate.grouping.groups))
