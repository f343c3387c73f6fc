"""The study as Markdown and figures."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from mtrl_transfer.agents.monitoring.figures import heatmap
from mtrl_transfer.agents.runs.grouping.figures import dendrogram, over_groups, predicted_and_realised
from studies.supervised.groupings import costs
from studies.supervised.study import Study

FIGURES = ("groups", "affinity", "dendrogram", "predicted_realised")


def markdown(study: Study) -> str:
    """The report's text, with links to its figures."""
    suite, settings = study.suite, study.settings
    chosen = [f"- {row.n_groups}: {_in_words(study.named_groups(row.n_groups))}" for row in study.rows]
    parts = [
        f"# Supervised study: {settings.suite}",
        f"{suite.n_tasks} tasks ({', '.join(suite.names)}), {settings.seeds} seeds, {settings.steps} updates of "
        f"{settings.batch} rows, Adam at {settings.learning_rate:g}. All {len(study.found.members)} groups trained. "
        "Losses are of test rows, each task's over its loss when all tasks share one network, then averaged over "
        "tasks: below 1 is better than all together. Intervals are 95% over seeds.",
        "## Groups",
        _groups(study),
        "`best` is the lowest loss of any grouping into groups of two or more, `with single` of any at all, both found "
        "by training every group. `chosen` maximises the affinity of one joint run, for each seed by itself, measured "
        f"every {settings.every} updates on rows apart in {study.overhead:.0%} of that run's time; it has no groups of "
        f"one. One network per task: {study.controls['one per task']:.3f}.",
        _costs(study),
        _correlation(study),
        "Chosen from the mean affinity of all seeds, by the number of networks:",
        "\n".join(chosen),
        *(f"![{name}]({name}.png)" for name in FIGURES),
        "## Combiners",
        "All tasks in one network, the same starts and rows for each; loss over that of `mean` at the same seed.",
        _table(
            ("combiner", "loss over mean's"),
            ((name, "1" if name == "mean" else str(value)) for name, value in study.combiners.items()),
        ),
    ]
    return "\n\n".join(parts) + "\n"


def draw(folder: Path, study: Study) -> None:
    """Write the figures."""
    lines = {
        "best": [row.best for row in study.rows],
        "chosen": [row.chosen.mean for row in study.rows],
        "clusters": [row.clustered.mean for row in study.rows],
        "random": [row.random for row in study.rows],
        "all together": [1.0] * len(study.rows),
    }
    names, told = study.suite.names, study.predictions
    figures = (
        over_groups(lines, "Test loss over that of all tasks together", "relative loss, mean over tasks"),
        heatmap(study.affinity, names, "Affinity: what a step along one task does to another", "gives", "receives"),
        dendrogram(study.affinity, names, "Tasks by mutual affinity"),
        predicted_and_realised(told.predicted, told.realised, names, "Every group of two or more", "realised gain"),
    )
    for name, figure in zip(FIGURES, figures, strict=True):
        figure.savefig(folder / f"{name}.png")


def _groups(study: Study) -> str:
    head = ("networks, at most", "best", "with single", "chosen", "regret", "clusters", "random", "tasks trained")
    body = (
        (
            str(row.n_groups),
            f"{row.best:.3f}",
            f"{row.best_with_single:.3f}",
            str(row.chosen),
            f"{row.regret:.3f}",
            f"{row.clustered.mean:.3f}",
            f"{row.random:.3f}",
            f"{row.size:.1f}",
        )
        for row in study.rows
    )
    return _table(head, body)


def _costs(study: Study) -> str:
    best = min(study.rows, key=lambda row: row.chosen.mean)
    cost = costs(study.suite.n_tasks, best, study.overhead)
    return (
        f"With up to {best.n_groups} networks the chosen groups' loss is {1 - best.chosen.mean:.1%} below that of all "
        f"together. Measuring and then training them takes {cost['chosen']:.1f} trainings of one task: "
        f"{cost['every group'] / cost['chosen']:.1f} times less than training every group "
        f"({cost['every group']:.0f}), {cost['pairs'] / cost['chosen']:.1f} times less than training every pair and "
        "then the groups. TAG's authors report 10.0% below all together and 11.6 times cheaper than their rival, on "
        "data and networks of their own (arXiv 2109.04617)."
    )


def _correlation(study: Study) -> str:
    ranks = study.predictions.correlation
    each = ", ".join(f"{name} {rank:.2f}" for name, rank in zip(study.suite.names, ranks.tolist(), strict=True))
    return (
        "Rank correlation (Spearman) of predicted with realised gain over all groups of two or more: "
        f"{each}; mean {ranks.mean():.2f}."
    )


def _in_words(groups: list[list[str]]) -> str:
    return "; ".join(", ".join(group) for group in groups)


def _table(head: Iterable[str], body: Iterable[Iterable[str]]) -> str:
    lines = [list(head), *map(list, body)]
    lines.insert(1, ["---"] * len(lines[0]))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
