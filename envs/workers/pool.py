"""Groups of tasks, in this process or in another one, behind one way to call them."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import gymnasium as gym
import numpy as np

from mtrl_transfer.envs.workers.process import Answer, WorkerLost, WorkerProcess
from mtrl_transfer.envs.workers.shard import TaskGroup

RESTARTS = 3
"""How often in a row a worker is replaced before it is given up."""
SNAPSHOT_EVERY = 200
"""Steps between two snapshots of a worker's tasks: about as many calls a new worker makes again at most."""
_CHANGING = ("reset", "step", "set_attr", "env_method", "load_state_dict")
_TIMED = ("reset", "step")

Call = tuple[str, tuple[Any, ...]]


class Group(Protocol):
    """A group of tasks that is given a call, and asked for its result later."""

    def send(self, method: str, *args: Any) -> None:
        """Begin a method of `TaskGroup`."""

    def receive(self) -> Any:
        """The result of the last `send`; raises what the method raised."""

    def close(self) -> None:
        """Close the environments and end the process."""


class LocalGroup:
    """Tasks of this process; the call runs when its result is asked for."""

    def __init__(self, env_fns: Sequence[Callable[[], gym.Env]]) -> None:
        self._group = TaskGroup(env_fns)
        self._call: tuple[str, tuple[Any, ...]] = ("", ())

    def send(self, method: str, *args: Any) -> None:
        """Note the call."""
        self._call = (method, args)

    def receive(self) -> Any:
        """Make the call."""
        method, args = self._call
        return getattr(self._group, method)(*args)

    def close(self) -> None:
        """Close the environments."""
        self._group.close()


class WorkerTraceback(Exception):
    """The cause of an exception from a worker process: the task's name and the traceback there, as text."""


class WorkerGroup:
    """Tasks in a process of their own, which ends with this one.

    An exception of a task is raised here again, caused by a `WorkerTraceback`. A process that dies or hangs is replaced
    by a new one, with a warning: it gets the last snapshot of the tasks and makes the calls since then again, last of
    all the interrupted one. So the caller gets the results that it would have got.

    Args:
        env_fns: One factory per task, picklable by cloudpickle.
        task_names: The tasks' names, for errors.
        timeout: Seconds without an answer to a `step` or `reset` after which the process is held to hang; None: never.
    """

    def __init__(
        self, env_fns: Sequence[Callable[[], gym.Env]], task_names: Sequence[str], timeout: float | None
    ) -> None:
        self._env_fns, self._task_names, self._timeout = env_fns, list(task_names), timeout
        self._call: Call = ("", ())
        self._snapshot: Any = None
        self._since: list[Call] = []
        self._attributes: dict[Any, Call] = {}  # set before the snapshot, which does not hold them
        self._seen = np.zeros(0)
        self._process: WorkerProcess | None = WorkerProcess(env_fns, task_names)

    def wait(self) -> None:
        """Return when the environments stand; raises what their making raised."""
        assert self._process is not None
        try:
            _result(self._process.receive())
        except WorkerLost as lost:
            raise RuntimeError(self._tell(lost)) from None

    def send(self, method: str, *args: Any) -> None:
        """Send the call to the worker."""
        self._call = (method, args)
        if self._process is not None:
            self._process.send(method, args, self._snapshot_due())

    def receive(self) -> Any:
        """Wait for the worker's answer, or its replacement's.

        Raises:
            RuntimeError: If one process after the other dies or hangs.
        """
        for left in reversed(range(RESTARTS + 1)):
            try:
                process = self._process or self._replacement()
                return self._note(process.receive(self._limit(self._call[0])))
            except WorkerLost as lost:
                if self._process is not None:
                    self._process.kill()
                self._process = None
                if not left:
                    raise RuntimeError(f"{self._tell(lost)}; given up after {RESTARTS} restarts in a row") from None
                warnings.warn(f"{self._tell(lost)}; another one is started and goes on from there", stacklevel=2)
        raise AssertionError

    def close(self) -> None:
        """End the worker."""
        if self._process is not None:
            self._process.close()

    def _tell(self, lost: WorkerLost) -> str:
        return f"the worker process of {', '.join(self._task_names)} {lost}"

    def _limit(self, method: str) -> float | None:
        return self._timeout if method in _TIMED else None

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
                if made == "set_attr":
                    self._attributes[name, tuple(rest[-1])] = (made, (name, *rest))
            self._since = []
        return _result(answer)

    def _replacement(self) -> WorkerProcess:
        """A new process in which all has happened again, and the present call has begun."""
        process = self._process = WorkerProcess(self._env_fns, self._task_names)
        _result(process.receive())
        now = np.zeros(0)
        restore: list[Call] = [] if self._snapshot is None else [("restore", (self._snapshot, self._task_names))]
        for method, args in [*self._attributes.values(), *restore, *self._since]:
            process.send(method, args)
            result, failure, _ = process.receive(self._limit(method))
            if failure is None:  # a task that raised an exception then does so again
                now = _observations(method, result, now)
        if not np.array_equal(now, self._seen, equal_nan=True):
            warnings.warn(
                f"the tasks {', '.join(self._task_names)} did not come back to where they were: one of them depends on "
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
    """Those of a call that shows them, else `before`."""
    if method in ("step", "reset"):
        return result[0]
    return result if method in ("restore", "load_state_dict") else before
