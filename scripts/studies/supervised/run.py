"""From settings to a report of a supervised study."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.markdown import Markdown

from mtrl_transfer.agents.runs.config.loading import section
from mtrl_transfer.agents.runs.errors import InputError, did_you_mean
from mtrl_transfer.agents.runs.run_folder import RUNS, folder_problems, write_text
from mtrl_transfer.agents.runs.torch_settings import torch_settings
from studies.supervised.all_groups import train_every_group
from studies.supervised.combiners import compare_combiners
from studies.supervised.report import draw, markdown
from studies.supervised.settings import Settings
from studies.supervised.study import make_study
from studies.supervised.suites import SUITES


@torch_settings(threads=1)  # the products are too small for more
def run_study(overrides: Sequence[str], console: Console) -> Path:
    """Do the study that ``key=value`` overrides describe.

    Returns:
        The folder with ``report.md``, its figures and ``results.json``.

    Raises:
        InputError: for a bad setting, or where scikit-learn is missing.
    """
    settings = section(Settings, overrides)
    if settings.suite not in SUITES:
        raise InputError(f"suite={settings.suite!r} does not exist{did_you_mean(settings.suite, SUITES, 'suites')}")
    folder = Path(settings.out) if settings.out is not None else RUNS / f"supervised_{settings.suite}"
    problems = folder_problems("out", folder)
    if settings.every >= settings.steps:  # before the first step nothing can be measured
        problems.append(f"every={settings.every} should be below steps={settings.steps}: no affinity would be measured")
    if problems:
        raise InputError(problems)
    suite = SUITES[settings.suite]()
    folder.mkdir(parents=True, exist_ok=True)
    compared = compare_combiners(suite, settings, console)
    console.print(f"Every group: {settings.seeds * (2**suite.n_tasks - 1)} networks at once ...", highlight=False)
    study = make_study(suite, settings, train_every_group(suite, settings).numpy(), compared)
    write_text(folder / "results.json", json.dumps(study.as_json(), indent=1) + "\n")
    draw(folder, study)
    write_text(folder / "report.md", markdown(study))
    console.print(Markdown(markdown(study)))
    console.print(f"Written to {folder}", highlight=False, soft_wrap=True)
    return folder
