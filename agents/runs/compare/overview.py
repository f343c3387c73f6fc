"""What the terminal shows while runs are running: each one's progress, success, rate and time left."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from types import TracebackType
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from mtrl_transfer.agents.runs.compare.planned import PlannedRun, is_finished
from mtrl_transfer.agents.runs.logs.metrics import METRICS_FILE
from mtrl_transfer.agents.runs.outcome import parse_metrics
from mtrl_transfer.agents.runs.tables import duration

LOOK_SECONDS, LINE_SECONDS = 1.0, 60.0
"""Between two looks at the run folders: for a terminal's table, and for lines elsewhere."""
REMEMBERED = 20
"""Logged steps over which a run's rate is taken."""


class Follower:
    """What a run has logged so far, read as its file grows.

    Attributes:
        step: transitions done.
        success: mean success of the last evaluation, before the first one that of training; None before either.
    """

    def __init__(self, run: PlannedRun) -> None:
        self._path = run.run_dir / METRICS_FILE
        self._last_line = 0
        self._seen: deque[tuple[float, int]] = deque(maxlen=REMEMBERED)
        self._evaluated = False
        self.step = 0
        self.success: float | None = None

    def look(self) -> None:
        """Read what has been added."""
        before = self.step
        for row in self._new_rows():
            self.step = int(row["step"])
            evaluated = row.get("success/mean")
            if evaluated is not None:
                self.success, self._evaluated = evaluated, True
            elif not self._evaluated:
                self.success = row.get("train_success/mean", self.success)
        if self.step != before:
            self._seen.append((time.monotonic(), self.step))

    def rate(self) -> float | None:
        """Transitions a second lately; None where too little was seen."""
        if len(self._seen) < 2:
            return None
        (began, first), (ended, last) = self._seen[0], self._seen[-1]
        return (last - first) / (ended - began) if ended > began and last > first else None

    def _new_rows(self) -> list[dict[str, Any]]:
        """Whole lines, from the last one seen on, for it may have been completed since."""
        if not self._path.is_file():
            return []
        if self._path.stat().st_size < self._last_line:
            self._last_line = 0  # a resumed run has rewritten the file
        with self._path.open("rb") as file:
            file.seek(self._last_line)
            whole = file.read().rpartition(b"\n")[0]
        self._last_line += whole.rfind(b"\n") + 1
        return parse_metrics(whole.split(b"\n"))[0]


class Overview:
    """A table that lives in a terminal; elsewhere a line whenever a run starts or ends, and one a minute.

    Use it as a context manager around the runs.

    Args:
        runs: all of them, also those that are finished already.
        console: where it is shown.
    """

    def __init__(self, runs: Sequence[PlannedRun], console: Console) -> None:
        self._runs = list(runs)
        self._console = console
        self._state = {run.label: "finished" if is_finished(run) else "waiting" for run in runs}
        self._followers = {run.label: Follower(run) for run in runs}
        self._live = Live(console=console, auto_refresh=False, transient=True)
        self._looked = time.monotonic()

    def __enter__(self) -> Overview:
        if self._console.is_terminal:
            self._live.start()
        done = sum(state == "finished" for state in self._state.values())
        self.say(f"{len(self._runs)} runs, {done} of them finished already.")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._live.stop()

    def say(self, text: str) -> None:
        """Print a line above the table."""
        self._console.print(text, highlight=False, soft_wrap=True, markup=False)

    def started(self, label: str) -> None:
        """A run begins or goes on."""
        self._state[label] = "running"
        self.say(f"{label}: started")

    def ended(self, label: str, error: str | None) -> None:
        """A run is finished, or failed with ``error``."""
        self._state[label] = "finished" if error is None else "failed"
        follower = self._followers[label]
        follower.look()
        success = "" if follower.success is None else f", success {follower.success:.2f}"
        self.say(f"{label}: finished{success}" if error is None else f"{label}: failed: {error}")

    def refresh(self) -> None:
        """Look at the run folders and show what is new, where it is time again."""
        now = time.monotonic()
        if now - self._looked < (LOOK_SECONDS if self._live.is_started else LINE_SECONDS):
            return
        self._looked = now
        for label, follower in self._followers.items():
            if self._state[label] != "waiting":
                follower.look()
        if self._live.is_started:
            self._live.update(self.table(), refresh=True)
        else:
            self.say(self._summary())

    def table(self) -> RenderableType:
        """All runs as they are now."""
        table = Table(expand=False)
        for column in ("run", "", "transitions", "success", "per second", "time left"):
            table.add_column(column, justify="left" if column in ("run", "") else "right", no_wrap=True)
        for run in self._runs:
            table.add_row(*self._row(run))
        return Group(table, Text(self._summary()))

    def _row(self, run: PlannedRun) -> list[RenderableType]:
        follower, state, total = self._followers[run.label], self._state[run.label], run.config.total_timesteps
        done = total if state == "finished" else follower.step
        success = "" if follower.success is None else f"{follower.success:.2f}"
        rate = follower.rate() if state == "running" else None
        left = "" if rate is None else duration((total - done) / rate)
        bar: RenderableType = ProgressBar(total=total, completed=done, width=20) if state == "running" else state
        return [run.label, bar, f"{done:,}", success, "" if rate is None else f"{rate:,.0f}", left]

    def _summary(self) -> str:
        counts = {state: list(self._state.values()).count(state) for state in ("finished", "running", "failed")}
        rates = [self._followers[run.label].rate() or 0.0 for run in self._runs if self._state[run.label] == "running"]
        missing = sum(
            run.config.total_timesteps - self._followers[run.label].step
            for run in self._runs
            if self._state[run.label] in ("waiting", "running")
        )
        left = f"; about {duration(missing / sum(rates))} left" if sum(rates) > 0 else ""
        return ", ".join(f"{count} {state}" for state, count in counts.items() if count) + left
