"""A shard of the tasks in a worker process that is replaced when it is lost."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from mtrl_transfer.envs.workers.process import Answer, WorkerLost, WorkerProcess
from mtrl_transfer.envs.workers.shard import EnvFns

RESTARTS = 3
"""Most replacements of a worker in a row; after that the shard fails."""
SNAPSHOT_EVERY = 200
"""Steps between two snapshots of a worker's tasks: about the most calls that a new worker makes again."""
_SETTINGS = ("set_attr", "share_shapes")
_CHANGING = ("reset", "step", *_SETTINGS, "env_method", "load_state_dict")

Call = tuple[str, tuple[Any, ...]]


class WorkerTraceback(Exception):
    """The cause of an exception from a worker process: its traceback there, as text."""


class WorkerShard:
    """Tasks in a worker process.

    An exception of a task is raised here again, caused by a `WorkerTraceback`. A process that dies or hangs, during any
    call, is replaced with a warning: the new one gets the last snapshot of the tasks and makes the calls since then
    again, the interrupted one last. So the caller gets the same results.

    Args:
        env_fns: One factory per task, picklable by cloudpickle.
        task_names: The tasks' names, for errors.
        timeout: Seconds without a sign of life after which a process is considered hung, see `WorkerProcess`.
    """

    def __init__(self, env_fns: EnvFns, task_names: Sequence[str], timeout: float | None) -> None:
        self._arguments = (env_fns, list(task_names), timeout)
        self._names = ", ".join(task_names)
        self._call: Call = ("make", ())
        self._snapshot: Any = None
        self._since: list[Call] = []
        self._attributes: dict[Any, Call] = {}  # set before the snapshot, which does not hold them
        self._seen = np.zeros(0)
        self._restarts = 0
        self.process: WorkerProcess | None = WorkerProcess(*self._arguments)

    def send(self, method: str, *args: Any) -> None:
        """Send the call to the worker."""
        self._call = (method, args)
        if self.process is not None:
            self.process.send(method, args, self._snapshot_due())

    def receive(self) -> Any:
        """Wait for the worker's answer, or its replacement's.

        Raises:
            RuntimeError: If one process after the other dies or hangs.
        """
        for left in reversed(range(RESTARTS + 1)):
            try:
                process = self.process or self._replacement()
                return self._note(process.receive())
            except WorkerLost as lost:
                self._kill()
                message = f"the worker process of {self._names} {lost}"
                if not left:
                    raise RuntimeError(f"{message}; given up after {RESTARTS} restarts in a row") from None
                self._restarts += 1  # in the message, because Python shows equal warnings only once
                then = f"another one is started and goes on from there (restart {self._restarts})"
                warnings.warn(f"{message}; {then}", stacklevel=2)
        raise AssertionError

    def close(self) -> None:
        """End the worker."""
        if self.process is not None:
            self.process.close()

    def _kill(self) -> None:
        if self.process is not None:
            self.process.kill()
        self.process = None

    def _snapshot_due(self) -> bool:
        method, _ = self._call
        return method == "load_state_dict" or (method == "step" and (len(self._since) + 1) % SNAPSHOT_EVERY == 0)

    def _note(self, answer: Answer) -> Any:
        result, failure, snapshot = answer
        method, args = self._call
        if method in _CHANGING and not (method == "env_method" and args[0] == "render"):
            self._since.append(self._call)
        if failure is None:
            self._seen = _observations(method, result, self._seen)
        if snapshot is not None:
            self._snapshot = snapshot
            for made, (name, *rest) in self._since:
                if made in _SETTINGS:
                    self._attributes[made, name, tuple(rest[-1])] = (made, (name, *rest))
            self._since = []
        return _result(answer)

    def _replacement(self) -> WorkerProcess:
        """Return a new process that has repeated everything and has begun the present call."""
        process = self.process = WorkerProcess(*self._arguments)
        if self._call[0] == "make":
            return process
        _result(process.receive())
        now = np.zeros(0)
        restore: list[Call] = [] if self._snapshot is None else [("restore", (self._snapshot,))]
        for method, args in [*self._attributes.values(), *restore, *self._since]:
            process.send(method, args)
            result, failure, _ = process.receive()
            if failure is None:  # a task that raised an exception then does so again
                now = _observations(method, result, now)
        if not np.array_equal(now, self._seen, equal_nan=True):
            warnings.warn(
                f"the tasks {self._names} did not come back to where they were: one of them depends on "
                "more than its np_random and its actions. One transition of it is a jump",
                stacklevel=3,
            )
        process.send(*self._call, self._snapshot_due())
        return process


def _result(answer: Answer) -> Any:
    result, failure, _ = answer
    if failure is not None:
        raise result from WorkerTraceback(failure)
    return result


def _observations(method: str, result: Any, before: np.ndarray) -> np.ndarray:
    """Return the observations in the result of a call, or `before` if it has none."""
    if method in ("step", "reset"):
        return result[0]
    return result if method in ("restore", "load_state_dict") else before
