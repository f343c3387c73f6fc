"""From settings to the report on information transfer."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.markdown import Markdown

from mtrl_transfer.agents.runs.config.loading import section
from mtrl_transfer.agents.runs.errors import InputError
from mtrl_transfer.agents.runs.run_folder import folder_problems, write_text
from mtrl_transfer.agents.runs.torch_settings import torch_settings
from studies.information.report import draw, markdown, sections
from studies.information.settings import Settings


@torch_settings(threads=1)  # the products are too small for more
def report(overrides: Sequence[str], console: Console) -> Path:
    """Run the synthetic study that ``key=value`` overrides describe.

    Returns:
        The folder with ``report.md``, its figures and ``results.json``.

    Raises:
        InputError: for a bad setting, or a folder that cannot be written to.
    """
    settings = section(Settings, overrides)
    folder = Path(settings.out)
    if problems := folder_problems("out", folder):
        raise InputError(problems)
    folder.mkdir(parents=True, exist_ok=True)
    found = sections(settings)
    results = {
        part.name: {curve.name: {"points": curve.points, "transfer": curve.values.tolist()} for curve in part.found}
        for part in found
    }
    write_text(folder / "results.json", json.dumps(results, indent=1) + "\n")
    draw(folder, found)
    text = markdown(settings, found)
    write_text(folder / "report.md", text)
    console.print(Markdown(text))
    console.print(f"Written to {folder}", highlight=False, soft_wrap=True)
    return folder
