"""Progress of several runs in the terminal: state, transitions, success and time left of each."""

from __future__ import annotations

import time
from collections.abc import Sequence
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, Task, TextColumn, TimeRemainingColumn

from mtrl_transfer.agents.runs.compare.planned import PlannedRun, is_finished
from mtrl_transfer.agents.runs.logs.metrics import METRICS_FILE
from mtrl_transfer.agents.runs.outcome import parse_metrics, read_evaluation
from mtrl_transfer.agents.runs.run_folder import EVALUATION_FILE
from mtrl_transfer.agents.runs.streams import say
from mtrl_transfer.agents.runs.tables import duration

LOOK_SECONDS, LINE_SECONDS = 1.0, 60.0
"""Seconds between two looks at the run folders: for a terminal's table, and for lines elsewhere."""
RATE_SECONDS = 600.0
"""Time over which rates are taken."""
COLUMNS = (
    TextColumn("{task.description}", markup=False),
    TextColumn("{task.fields[state]}"),
    BarColumn(20),
    TextColumn("{task.completed:,.0f}", justify="right"),
    TextColumn("{task.fields[success]}", justify="right"),
    TimeRemainingColumn(),
)


class Follower:
    """Progress of a run, read from its log as the file grows.

    Attributes:
        step: transitions done.
        success: mean success of the last evaluation; before the first evaluation, that of training, or None.
    """

    def __init__(self, run: PlannedRun) -> None:
        self._path, self._evaluation = run.run_dir / METRICS_FILE, run.run_dir / EVALUATION_FILE
        self._last_line = 0
        self._evaluated = False
        self.step = 0
        self.success: float | None = None

    def look(self) -> None:
        """Read the lines that were added; the last one may have been completed since, so it is read again."""
        if not self._path.is_file():
            return
        if self._path.stat().st_size < self._last_line:
            self._last_line = 0  # a resumed run has rewritten the file
        with self._path.open("rb") as file:
            file.seek(self._last_line)
            whole = file.read().rpartition(b"\n")[0]
        self._last_line += whole.rfind(b"\n") + 1
        for row in parse_metrics(whole.split(b"\n"))[0]:
            self.step = int(row["step"])
            evaluated = row.get("success/mean")
            if evaluated is not None:
                self.success, self._evaluated = evaluated, True
            elif not self._evaluated:
                self.success = row.get("train_success/mean", self.success)

    def end(self) -> None:
        """Look at a run that has finished, and take the success of its final evaluation."""
        self.look()
        if self._evaluation.is_file():
            self.success = read_evaluation(self._evaluation)["mean_success"]


class Overview:
    """A table that lives in a terminal; elsewhere a line whenever a run starts or ends, and one a minute.

    Use it as a context manager around the runs.

    Args:
        runs: all runs, also finished ones.
        console: where it is shown.
    """

    def __init__(self, runs: Sequence[PlannedRun], console: Console) -> None:
        self._console = console
        self._followers = {run.label: Follower(run) for run in runs}
        self._looked = time.monotonic()
        self.table = Progress(
            *COLUMNS, console=console, auto_refresh=False, transient=True, speed_estimate_period=RATE_SECONDS
        )
        for run in runs:
            total, follower = run.config.total_timesteps, self._followers[run.label]
            follower.look()
            state, done = ("finished", total) if is_finished(run) else ("waiting", follower.step)
            self.table.add_task(run.label, total=total, completed=done, state=state, success="")
        self._tasks = {task.description: task for task in self.table.tasks}
        total = sum(run.config.total_timesteps for run in runs)
        self.table.add_task("all", total=total, completed=self._done, state="", success="")
        self._all = self.table.tasks[-1]

    def __enter__(self) -> Overview:
        if self._console.is_terminal:
            self.table.start()
        self.say(f"{len(self._tasks)} runs, {len(self._in_state('finished'))} of them finished already.")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._console.is_terminal:
            self.table.stop()

    def say(self, text: str) -> None:
        """Print a line above the table."""
        say(self._console, text)

    def started(self, label: str) -> None:
        """Note that a run begins or goes on."""
        self.table.update(self._tasks[label].id, state="running")
        self.say(f"{label}: started")

    def ended(self, label: str, error: str | None) -> None:
        """Note that a run is finished, or failed with ``error``."""
        task = self._tasks[label]
        follower = self._followers[label]
        if error is None:
            follower.end()
        else:
            follower.look()
        self._show(task)
        self.table.update(task.id, state="finished" if error is None else "failed")
        success = f", success {task.fields['success']}" if task.fields["success"] else ""
        self.say(f"{label}: finished{success}" if error is None else f"{label}: failed: {error}")

    def refresh(self) -> None:
        """Look at the run folders and show what is new, if it is time again."""
        now = time.monotonic()
        if now - self._looked < (LOOK_SECONDS if self._console.is_terminal else LINE_SECONDS):
            return
        self._looked = now
        for task in self._in_state("running"):
            self._look(task)
        self.table.update(self._all.id, completed=self._done)
        if self._console.is_terminal:
            self.table.refresh()
        else:
            self.say(self.summary())

    def summary(self) -> str:
        """Number of runs in each state, and the time left for all of them at the present rate."""
        counts = {state: len(self._in_state(state)) for state in ("finished", "running", "failed")}
        told = ", ".join(f"{count} {state}" for state, count in counts.items() if count)
        left = self._all.time_remaining
        return told if left is None else f"{told}; about {duration(left)} left"

    @property
    def _done(self) -> int:
        return sum(int(task.completed) for task in self._tasks.values())

    def _in_state(self, state: str) -> list[Task]:
        return [task for task in self._tasks.values() if task.fields["state"] == state]

    def _look(self, task: Task) -> None:
        self._followers[task.description].look()
        self._show(task)

    def _show(self, task: Task) -> None:
        follower = self._followers[task.description]
        success = "" if follower.success is None else f"{follower.success:.2f}"
        self.table.update(task.id, completed=follower.step, success=success)
