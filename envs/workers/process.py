"""A worker process that holds a shard of the tasks and answers calls."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import socket
import struct
import sys
import threading
import traceback
from collections.abc import Sequence
from multiprocessing.connection import Connection
from multiprocessing.reduction import ForkingPickler
from multiprocessing.util import Finalize
from typing import Any

from stable_baselines3.common.vec_env.base_vec_env import CloudpickleWrapper

from mtrl_transfer.envs.workers.context import process_context
from mtrl_transfer.envs.workers.shard import EnvFns, TaskShard

NAME = "mtrl_transfer worker"
START = 10
"""Multiple of the timeout allowed for importing modules and for making each environment."""
DEATH_SECONDS = 10.0
"""Longest wait for a killed process to be gone."""

Answer = tuple[Any, str | None, Any]
"""A result or an exception; the exception's traceback; a snapshot, if one was asked for."""


class WorkerLost(Exception):
    """A worker process has died or does not answer; the message says which."""


class WorkerProcess:
    """A `TaskShard` in a separate process, which ends with this one.

    It answers once after its environments are made, and then every call. No method waits longer than the timeout
    without a sign of life from the process.

    Args:
        env_fns: One factory per task, picklable by cloudpickle.
        task_names: The tasks' names, for errors.
        timeout: Seconds without a sign of life after which `receive` gives up; None: never. `START` times as many while
            environments are made.
    """

    def __init__(self, env_fns: EnvFns, task_names: Sequence[str], timeout: float | None) -> None:
        context = process_context(["mtrl_transfer.envs.metaworld.suites"])
        self._pipe, child = context.Pipe()
        self._timeout = timeout
        self._limit = None if timeout is None else START * timeout
        if timeout is not None:
            _limit_transfers(self._pipe, timeout)
        arguments = (child, CloudpickleWrapper(list(env_fns)), list(task_names))
        self._process = context.Process(target=_work, args=arguments, name=NAME, daemon=True)
        self._process.start()
        # Also called when this object is collected and when this process exits: multiprocessing's own exit waits for
        # stopped processes without limit.
        self._end = Finalize(self, _kill, (self._process,), exitpriority=0)
        child.close()

    @property
    def pid(self) -> int:
        """Number of the process."""
        return self._process.pid

    def send(self, method: str, args: tuple[Any, ...], snapshot: bool = False) -> None:
        """Begin a method of `TaskShard`, followed by a snapshot if asked for. Does nothing if the process is lost."""
        with contextlib.suppress(OSError):  # `receive` reports it
            self._pipe.send((method, args, snapshot))

    def receive(self) -> Answer:
        """Return the next answer.

        Raises:
            WorkerLost: If the process has died, or has given no sign of life for the timeout.
        """
        with contextlib.suppress(BlockingIOError):  # it stopped in the middle of an answer
            try:
                while self._pipe.poll(self._limit):
                    if (answer := self._pipe.recv()) is not None:
                        self._limit = self._timeout
                        return answer
            except BlockingIOError:
                raise
            except (EOFError, OSError):
                self._process.join(timeout=1.0)
                raise WorkerLost(f"has died (exit code {self._process.exitcode})") from None
        raise WorkerLost(f"has not answered for {self._limit:g} s")

    def kill(self) -> None:
        """End the process at once."""
        self._pipe.close()
        self._end()
        self._process.join(DEATH_SECONDS)

    def close(self) -> None:
        """Close the environments and end the process. It is killed if it takes longer than the timeout."""
        if self._process.is_alive():
            self.send("close", ())
            with contextlib.suppress(WorkerLost):
                self.receive()
                self._process.join(self._timeout)
        self.kill()


def kill_workers() -> None:
    """End all workers of this process at once, also stopped ones."""
    for child in multiprocessing.active_children():
        if child.name == NAME:
            child.kill()


def _kill(process: Any) -> None:
    if process.is_alive():  # otherwise its number may be another process's by now
        process.kill()


def _limit_transfers(pipe: Connection, seconds: float) -> None:
    """Let reads and writes raise BlockingIOError after some seconds in which the other end takes or gives nothing.

    `poll` only tells that an answer has begun, and a message larger than the pipe's buffer waits for its reader. On
    Windows, where pipes are no sockets, such transfers are not limited.
    """
    if sys.platform != "win32":
        limit = struct.pack("ll", int(seconds), int(seconds % 1 * 1e6) or 1)
        with socket.socket(fileno=os.dup(pipe.fileno())) as end:
            end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)


def _work(pipe: Connection, env_fns: CloudpickleWrapper, task_names: Sequence[str]) -> None:
    """Answer calls until `close` is called, or until the parent is gone."""
    for number in (signal.SIGINT, signal.SIGTERM):  # sent to all processes of a terminal or job: the parent handles it
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    shard = TaskShard(env_fns.var, task_names, progress=lambda: pipe.send(None))
    method, args, snapshot = "make", (), False
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        while True:
            result, failure = _answer(shard, method, args)
            _send(pipe, (result, failure, _snapshot(shard) if snapshot and failure is None else None))
            if method == "close":
                break
            method, args, snapshot = pipe.recv()


def _end_with_parent() -> None:
    """End this process when its parent has ended, even if an environment hangs."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _send(pipe: Connection, answer: Answer) -> None:
    try:
        message = ForkingPickler.dumps(answer)
    except Exception as error:
        failure = RuntimeError(f"a worker cannot send its result, because it cannot be pickled: {error}")
        message = ForkingPickler.dumps((failure, traceback.format_exc(), None))
    pipe.send_bytes(message)


def _answer(shard: TaskShard, method: str, args: tuple[Any, ...]) -> tuple[Any, str | None]:
    try:
        return shard.call(method, args), None
    except Exception as error:
        return _picklable(error), traceback.format_exc()


def _snapshot(shard: TaskShard) -> Any:
    """Return None where a task's `state_dict` fails: the calls since the last snapshot serve as well."""
    try:
        return shard.snapshot()
    except Exception:
        return None


def _picklable(error: Exception) -> Exception:
    try:
        CloudpickleWrapper(error).__getstate__()
    except Exception:
        return RuntimeError(repr(error))
    return error
