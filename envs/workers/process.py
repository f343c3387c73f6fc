"""A process that holds some tasks and answers calls."""

from __future__ import annotations

import contextlib
import signal
import traceback
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from typing import Any

import gymnasium as gym
from stable_baselines3.common.vec_env.base_vec_env import CloudpickleWrapper

from mtrl_transfer.envs.workers.context import process_context
from mtrl_transfer.envs.workers.shard import TaskGroup

Answer = tuple[Any, str | None, Any]
"""A result or an exception; the exception's task and traceback; a snapshot, where one was asked for."""


class WorkerLost(Exception):
    """A worker process has died or does not answer; the message says which."""


class WorkerProcess:
    """A `TaskGroup` in a process of its own, which ends with this one.

    It answers once, when its environments stand, and then every call.

    Args:
        env_fns: One factory per task, picklable by cloudpickle.
        task_names: The tasks' names, for errors.
    """

    def __init__(self, env_fns: Sequence[Callable[[], gym.Env]], task_names: Sequence[str]) -> None:
        context = process_context(["mtrl_transfer.envs.metaworld.suites"])
        self._pipe, child = context.Pipe()
        arguments = (child, CloudpickleWrapper(list(env_fns)), list(task_names))
        self._process = context.Process(target=_work, args=arguments, daemon=True)
        self._process.start()
        child.close()

    def send(self, method: str, args: tuple[Any, ...], snapshot: bool = False) -> None:
        """Begin a method of `TaskGroup`, and ask for a snapshot after it; to a dead worker this does nothing."""
        with contextlib.suppress(OSError):  # `receive` tells
            self._pipe.send((method, args, snapshot))

    def receive(self, timeout: float | None = None) -> Answer:
        """The next answer.

        Raises:
            WorkerLost: If the process has died, or has not answered for `timeout` seconds.
        """
        try:
            if self._pipe.poll(timeout):
                return self._pipe.recv()
        except (EOFError, OSError):
            self._process.join(timeout=1.0)
            raise WorkerLost(f"has died (exit code {self._process.exitcode})") from None
        raise WorkerLost(f"has not answered for {timeout:g} s")

    def kill(self) -> None:
        """End the process, whatever it does."""
        self._process.kill()
        self._join()

    def close(self) -> None:
        """Close the environments and end the process."""
        if self._process.is_alive():
            self.send("close", ())
            with contextlib.suppress(WorkerLost):  # it died on the way
                self.receive()
        self._join()

    def _join(self) -> None:
        self._pipe.close()
        self._process.join()


def _work(pipe: Connection, env_fns: CloudpickleWrapper, task_names: Sequence[str]) -> None:
    """Answer calls until told to close, or until the parent's end of the pipe is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    group = TaskGroup.__new__(TaskGroup)
    method, args, snapshot = "__init__", (env_fns.var,), False
    try:
        while True:
            result, failure = _answer(group, method, args, task_names)
            pipe.send((result, failure, _snapshot(group) if snapshot and failure is None else None))
            if method == "close":
                break
            method, args, snapshot = pipe.recv()
    except (EOFError, BrokenPipeError, ConnectionResetError):
        pass


def _answer(group: TaskGroup, method: str, args: tuple[Any, ...], task_names: Sequence[str]) -> tuple[Any, str | None]:
    try:
        return getattr(group, method)(*args), None
    except Exception as error:
        text = f"in task {task_names[group.current]!r}\n{traceback.format_exc()}"
        return _picklable(error), text


def _snapshot(group: TaskGroup) -> Any:
    """None where a task's own `state_dict` fails: the calls since the last snapshot serve as well."""
    try:
        return group.snapshot()
    except Exception:
        return None


def _picklable(error: Exception) -> Exception:
    try:
        CloudpickleWrapper(error).__getstate__()
    except Exception:
        return RuntimeError(repr(error))
    return error
