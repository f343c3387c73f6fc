"""Short runs of the Point suite through the command line."""

from __future__ import annotations

import json
from pathlib import Path

from mtrl_transfer import Recording
from mtrl_transfer.agents.runs import cli
from mtrl_transfer.agents.runs.outcome import read_metrics

SHORT = (
    "env.id=Point-3",
    "total_timesteps=900",  # 300 vector steps, 6 rounds of episodes
    "agent.learning_starts=90",
    "agent.batch_size=24",
    "measure.every=20",
    "agent.policy_kwargs.net_arch=[8]",
    "combiner.kwargs.every=5",
    "evaluation.every=300",
    "evaluation.n_goals=2",
    "evaluation.final_n_goals=3",
    "checkpoint.every=300",
    "checkpoint.keep=2",
    "log.every=150",
    "log.record_every=20",
    "log.progress=false",
    "seed=5",
)


class Run:
    """A run folder, as a reader sees it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def json(self, name: str) -> dict:
        return json.loads((self.folder / name).read_text(encoding="utf-8"))

    @property
    def metrics(self) -> list[dict]:
        return read_metrics(self.folder / "metrics.jsonl")[0]

    @property
    def recording(self) -> Recording:
        return Recording(self.folder / "transference.records")

    @property
    def checkpoints(self) -> list[str]:
        return sorted(path.name for path in (self.folder / "checkpoints").iterdir())


def arguments(folder: Path, *overrides: str) -> list[str]:
    """A command line of a short run; later overrides win over `SHORT`."""
    keys = [override.partition("=")[0] for override in overrides]
    kept = [line for line in SHORT if not any(f"{line.partition('=')[0]}.".startswith(f"{key}.") for key in keys)]
    return ["point", *kept, f"run_dir={folder}", *overrides]


def short_run(folder: Path, *overrides: str) -> Run:
    """Train to the end."""
    code = cli.train(arguments(folder, *overrides))
    assert code == 0, code
    return Run(folder)
