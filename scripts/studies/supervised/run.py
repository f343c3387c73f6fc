"""A study of one suite, from settings to report: every group trained, groups chosen by affinity, combiners compared."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure
from rich.console import Console
from rich.markdown import Markdown

from mtrl_transfer.agents.monitoring.figures import heatmap
from mtrl_transfer.agents.runs.config.loading import section
from mtrl_transfer.agents.runs.errors import InputError
from mtrl_transfer.agents.runs.grouping.figures import dendrogram, over_groups, predicted_and_realised
from mtrl_transfer.agents.runs.report.document import Report, digits
from mtrl_transfer.agents.runs.report.numbers import write_json
from mtrl_transfer.agents.runs.run_folder import RUNS, folder_problems
from mtrl_transfer.agents.runs.torch_settings import torch_settings
from studies.supervised.all_groups import train_every_group
from studies.supervised.combiners import Compared, compare_combiners
from studies.supervised.groupings import Truth, controls, costs, predictions, study, truth
from studies.supervised.settings import Settings
from studies.supervised.suites import SUITES, Suite

TEMPLATE = Path(__file__).with_name("report.md.jinja")


@torch_settings(threads=1)  # the products are too small for more
def run_study(overrides: Sequence[str], console: Console) -> Path:
    """Do the study that ``key=value`` overrides describe.

    Returns:
        The folder with ``report.html``, ``report.md``, its figures and ``results.json``.

    Raises:
        InputError: for a bad setting, or where scikit-learn is missing.
    """
    settings = section(Settings, overrides)
    folder = Path(settings.out) if settings.out is not None else RUNS / f"supervised_{settings.suite}"
    problems = folder_problems("out", folder)
    if settings.every >= settings.steps:  # before the first step nothing can be measured
        problems.append(f"every={settings.every} should be below steps={settings.steps}: no affinity would be measured")
    if problems:
        raise InputError(problems)
    suite = SUITES[settings.suite]()
    compared = compare_combiners(suite, settings, console)
    console.print(f"Every group: {settings.seeds * (2**suite.n_tasks - 1)} networks at once ...", highlight=False)
    found = truth(train_every_group(suite, settings).numpy())
    report = write_results(folder, suite, settings, found, compared)
    console.print(Markdown(report.markdown))
    console.print(f"Written to {folder}", highlight=False, soft_wrap=True)
    return folder


def write_results(folder: Path, suite: Suite, settings: Settings, found: Truth, compared: Compared) -> Report:
    """Write ``results.json`` and the report.

    Args:
        folder: takes the files.
        suite: the tasks.
        settings: settings of the study.
        found: results of every group.
        compared: results of the joint runs.
    """
    rows, predicted = study(found, compared.affinities), predictions(found, compared.affinities)
    numbers = {
        "settings": settings.model_dump(),
        "tasks": suite.names,
        "relative_losses_of_groups": found.relative,
        "affinity": compared.affinities,
        "combiners": compared.relative,
        "groupings": rows,
        "controls": controls(found),
        "measurement_overhead": compared.overhead,
        "rank_correlation": predicted.correlation,
    }
    best = min(rows, key=lambda row: row.chosen.value)
    values = {
        **{"suite": suite, "settings": settings, "digits": digits, "rows": rows, "best": best},
        **{"overhead": compared.overhead, "combiners": compared.relative, "ranks": predicted.correlation},
        "controls": numbers["controls"],
        "costs": costs(suite.n_tasks, best, compared.overhead),
    }
    affinity = compared.affinities.mean(axis=0)
    lines = {
        "best": [row.best for row in rows],
        "chosen": [row.chosen.value for row in rows],
        "clusters": [row.clustered.value for row in rows],
        "random": [row.random for row in rows],
        "all together": [1.0] * len(rows),
    }
    figures: dict[str, Figure] = {
        "groups": over_groups(lines, "Test loss over that of all tasks together", "relative loss, mean over tasks"),
        "affinity": heatmap(affinity, suite.names, "Affinity", "gives", "receives"),
        "dendrogram": dendrogram(affinity, suite.names, "Tasks by mutual affinity"),
        "predicted_realised": predicted_and_realised(
            predicted.predicted, predicted.realised, suite.names, "Every group of two or more", "realised gain"
        ),
    }
    report = Report(TEMPLATE, values, figures)
    report.write(folder)
    write_json(folder / "results.json", numbers)
    return report
