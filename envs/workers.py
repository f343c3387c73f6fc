"""Groups of tasks, in this process or in another one, behind one way to call them."""

from __future__ import annotations

import multiprocessing as mp
import signal
import traceback
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from typing import Any, Protocol

import gymnasium as gym
from stable_baselines3.common.vec_env.base_vec_env import CloudpickleWrapper

from envs.task_group import TaskGroup


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

    An exception of a task is raised here again, caused by a `WorkerTraceback`.

    Args:
        env_fns: One factory per task, picklable by cloudpickle.
        task_names: The tasks' names, for errors.
    """

    def __init__(self, env_fns: Sequence[Callable[[], gym.Env]], task_names: Sequence[str]) -> None:
        context = _context()
        self._task_names = list(task_names)
        self._pipe, child = context.Pipe()
        arguments = (child, CloudpickleWrapper(list(env_fns)), self._task_names)
        self._process = context.Process(target=_work, args=arguments, daemon=True)
        self._process.start()
        child.close()

    def send(self, method: str, *args: Any) -> None:
        """Send the call to the worker."""
        try:
            self._pipe.send((method, args))
        except OSError as error:
            raise self._died() from error

    def receive(self) -> Any:
        """Wait for the worker's answer."""
        try:
            result, failure = self._pipe.recv()
        except (EOFError, OSError) as error:
            raise self._died() from error
        if failure is not None:
            raise result from WorkerTraceback(failure)
        return result

    def close(self) -> None:
        """End the worker."""
        if self._process.is_alive():
            try:
                self.send("close")
                self.receive()
            except RuntimeError:
                pass  # it died on the way
        self._pipe.close()
        self._process.join()

    def _died(self) -> RuntimeError:
        self._process.join(timeout=1.0)
        names = ", ".join(self._task_names)
        return RuntimeError(f"the worker process of {names} has died (exit code {self._process.exitcode})")


def _context() -> Any:
    """How to start workers. Not by "fork": locks of the parent's threads stay locked, and pipes of others stay open."""
    if "forkserver" not in mp.get_all_start_methods():
        return mp.get_context("spawn")
    context = mp.get_context("forkserver")
    context.set_forkserver_preload(["envs.metaworld_suites"])  # imported once, shared by all workers
    return context


def _work(pipe: Connection, env_fns: CloudpickleWrapper, task_names: Sequence[str]) -> None:
    """Answer calls until told to close, or until the parent's end of the pipe is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    group = TaskGroup.__new__(TaskGroup)
    method, args = "__init__", (env_fns.var,)
    try:
        while True:
            pipe.send(_answer(group, method, args, task_names))
            if method == "close":
                break
            method, args = pipe.recv()
    except (EOFError, BrokenPipeError, ConnectionResetError):
        pass


def _answer(group: TaskGroup, method: str, args: tuple[Any, ...], task_names: Sequence[str]) -> tuple[Any, str | None]:
    try:
        return getattr(group, method)(*args), None
    except Exception as error:
        text = f"in task {task_names[group.current]!r}\n{traceback.format_exc()}"
        return _picklable(error), text


def _picklable(error: Exception) -> Exception:
    try:
        CloudpickleWrapper(error).__getstate__()
    except Exception:
        return RuntimeError(repr(error))
    return error
