"""Are decisions by transference true? Each is judged by the true lead of what it chose, for every measure."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure
from rich.console import Console
from rich.markdown import Markdown

from mtrl_transfer.agents.runs.config.loading import section
from mtrl_transfer.agents.runs.errors import InputError
from mtrl_transfer.agents.runs.report.document import Report, digits
from mtrl_transfer.agents.runs.report.numbers import Estimate, write_json
from mtrl_transfer.agents.runs.torch_settings import torch_settings
from studies.decisions.judge import Judged, judge, load_agent
from studies.decisions.settings import Settings

TEMPLATE = Path(__file__).with_name("report.md.jinja")
REPETITIONS = 2_000


class Decider(NamedTuple):
    """A decider: a role, a measure, its candidates, rows of each task, and whether leads must be significant."""

    role: str
    measure: str
    candidates: str
    rows: int
    significant: bool


class Worth(NamedTuple):
    """Worth of a decider's decisions, means over agents with bootstrap intervals over each agent's decisions.

    - `lead`: true lead of what was chosen, in units of the full set's true gain (its root mean square).
    - `headroom`: the same of the truly best candidate; None of weights.
    - `differs`: share of decisions that are not the full set.
    - `rank`: rank correlation of scores with the truth; None of weights.
    - `n`: number of decisions.
    """

    lead: Estimate
    headroom: Estimate | None
    differs: float
    rank: Estimate | None
    n: int


@torch_settings(matmul_precision="highest", threads=1)
def run_study(overrides: Sequence[str], console: Console) -> Path:
    """Judge the decisions of all agents that are not judged yet, and write the report.

    Returns:
        The folder with ``report.md``, ``report.html``, ``results.json`` and the decisions of each agent.

    Raises:
        InputError: for a bad setting, or an agent that cannot be read.
    """
    settings = section(Settings, overrides)
    if settings.truth_rows in settings.rows:
        raise InputError(f"truth_rows={settings.truth_rows} should differ from rows={list(settings.rows)}")
    folder = Path(settings.out)
    folder.mkdir(parents=True, exist_ok=True)
    judged = {name: _judged(Path(name), settings, folder, console) for name in settings.agents}
    worths = worth_of(list(judged.values()))
    values = {"settings": settings, "worths": worths, "digits": digits}
    report = Report(TEMPLATE, values, {"leads": drawn(worths)})
    report.write(folder)
    rows = [{**who._asdict(), **worth._asdict()} for who, worth in worths.items()]
    write_json(folder / "results.json", {"settings": settings.model_dump(), "deciders": rows})
    console.print(Markdown(report.markdown))
    return folder


def _judged(agent: Path, settings: Settings, folder: Path, console: Console) -> list[Judged]:
    file = folder / ("_".join(part for part in agent.parts[-3:] if part not in ("/", "checkpoints")) + ".json")
    if not file.is_file():
        console.print(f"Judging {agent} ...", highlight=False)
        write_json(file, {"decisions": [one._asdict() for one in judge(load_agent(agent), settings)]})
    return [Judged(**one) for one in json.loads(file.read_text(encoding="utf-8"))["decisions"]]


def worth_of(agents: Sequence[Sequence[Judged]]) -> dict[Decider, Worth]:
    """Return the worth of every decider, from the decisions of each agent."""
    generator = np.random.default_rng(0)
    deciders = dict.fromkeys(Decider(*(getattr(one, name) for name in Decider._fields)) for one in agents[0])
    return {who: _worth([_own(who, agent) for agent in agents], generator) for who in deciders}


def _own(who: Decider, judged: Sequence[Judged]) -> list[Judged]:
    return [one for one in judged if all(getattr(one, name) == getattr(who, name) for name in Decider._fields)]


def _worth(agents: Sequence[Sequence[Judged]], generator: np.random.Generator) -> Worth:
    leads, gains = ([np.array([getattr(one, name) for one in own]) for own in agents] for name in ("lead", "gain"))
    alike = agents[0][0].rank is not None
    rooms, ranks = (
        [np.array([getattr(one, name) for one in own], float) for own in agents] if alike else None
        for name in ("headroom", "rank")
    )
    every = [one for own in agents for one in own]
    return Worth(
        lead=_share(leads, gains, generator),
        headroom=None if rooms is None else _share(rooms, gains, generator),
        differs=float(np.mean([one.differs for one in every])),
        rank=None if ranks is None else _share(ranks, [np.ones_like(rank) for rank in ranks], generator),
        n=len(every),
    )


def _share(values: Sequence[np.ndarray], units: Sequence[np.ndarray], generator: np.random.Generator) -> Estimate:
    """Mean over agents of `mean(values) / rms(units)`, with its interval; decisions of each agent are drawn anew."""
    scaled = [own / np.sqrt(np.square(unit).mean()) for own, unit in zip(values, units, strict=True)]
    draws = [generator.integers(len(own), size=(REPETITIONS, len(own))) for own in scaled]
    samples = np.mean([own[at].mean(1) for own, at in zip(scaled, draws, strict=True)], axis=0)
    value = np.mean([own.mean() for own in scaled])
    return Estimate(float(value), *np.quantile(samples, [0.025, 0.975]).tolist())


def drawn(worths: dict[Decider, Worth]) -> Figure:
    """Draw the true leads over the number of rows: a panel for each role and kind of candidates."""
    panels = list(dict.fromkeys((who.role, who.candidates) for who in worths))
    figure = Figure(figsize=(3.6 * len(panels), 3.8), layout="constrained")
    for axes, panel in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        own = {who: worth for who, worth in worths.items() if (who.role, who.candidates) == panel}
        for place, measure in enumerate(dict.fromkeys(who.measure for who in own)):
            for significant in (False, True):
                line = {
                    who.rows: w.lead
                    for who, w in own.items()
                    if (who.measure, who.significant) == (measure, significant)
                }
                xs = np.array(list(line)) * (1 + 0.05 * (place + 0.4 * significant))
                values = np.array([estimate.value for estimate in line.values()])
                errors = np.abs(np.array([[e.value - e.low, e.high - e.value] for e in line.values()]).T)
                label = measure + ", significant" * significant
                style = {"linestyle": "-" if significant else ":", "marker": "o" if significant else "x"}
                axes.errorbar(xs, values, errors, label=label, color=f"C{place}", capsize=2, linewidth=1, **style)
        axes.axhline(0, color="grey", linewidth=1)
        axes.set_xscale("log")
        axes.set_xticks(sorted({who.rows for who in own}), [str(rows) for rows in sorted({who.rows for who in own})])
        axes.minorticks_off()
        axes.set_title(f"{panel[0]}, {panel[1].replace('_', ' ')}", fontsize=10)
        axes.set(xlabel="held-out rows of a task")
        axes.legend(fontsize=6)
    figure.axes[0].set_ylabel("true lead of the choice, in gains of the full set")
    return figure
