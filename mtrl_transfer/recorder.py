"""Measurements and decisions of a run in one compact file: a line of JSON, then records of one fixed size.

Records are appended, so a run that was cut off leaves a readable file, and a resumed one goes on in it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from torch import Tensor

from mtrl_transfer.appending import AppendingFile
from mtrl_transfer.decision import Decision

FORMAT = "mtrl_transfer.recorder 3"
MAX_SIZE = 1 << 20
"""Bytes of the first line, and candidates, at most."""
DECIDED = ("candidates", "transference", "scores", "step_size")


class Record(NamedTuple):
    """One network's record at one step; None is not known.

    - `weights`: `[T]`, applied to the task gradients.
    - `gramian`: `[T, T]`, the latest.
    - `decision`: the latest of a `Transference` combiner.
    - `pairwise`: `[T giver, T receiver]`, transference of single tasks' steps, averaged over `measurements`.
    - `measurements`: since the record before.
    - `one_step`: `[T giver, T receiver]`, the same of one step, measured beside `pairwise` over a horizon.
    """

    weights: Tensor
    gramian: Tensor | None = None
    decision: Decision | None = None
    pairwise: Tensor | None = None
    measurements: int = 0
    one_step: Tensor | None = None


class Recorder:
    """Appends records of one or more networks to a file.

    Args:
        path: the file; an existing one of the same tasks, networks and numbers of candidates is appended to.
        tasks: names of the T tasks.
    """

    def __init__(self, path: str | os.PathLike[str], tasks: Sequence[str]) -> None:
        self.path, self.tasks = Path(path), list(tasks)
        self._file: AppendingFile | None = None
        self._header = b""

    def record(self, step: int, records: Mapping[str, Record]) -> None:
        """Append a record of each network; values leave the device only here.

        Args:
            step: of the run, in the unit of the caller's logs; not smaller than the one before.
            records: by the network's name, always the same networks.

        Raises:
            ValueError: if the file is no recording, or one of other tasks, networks or numbers of candidates.
            OSError: if it cannot be written; the record then waits, and is written with the next.
        """
        sizes = {name: 0 if one.decision is None else len(one.decision.scores) for name, one in records.items()}
        header = json.dumps({"format": FORMAT, "tasks": self.tasks, "candidates": sizes}).encode() + b"\n"
        row = np.zeros((), _dtype(len(self.tasks), sizes))
        row["step"] = step
        for name, one in records.items():
            _fill(row[name], one)
        if self._file is None:
            self._file, piece = self._open(header, row)
        else:
            piece = row.tobytes()
        if header != self._header:
            raise ValueError(f"{self.path} holds a recording of other tasks, networks or candidates")
        self._file.append(piece)

    def flush(self) -> None:
        """Write records that wait, if there are some.

        Raises:
            OSError: if they still cannot be written.
        """
        if self._file is not None and self._file.waiting:
            self._file.append(b"")

    def _open(self, header: bytes, row: np.ndarray) -> tuple[AppendingFile, bytes]:
        """The file, and what to append first."""
        if not self.path.exists() or self.path.stat().st_size == 0:
            self._header = header
            return AppendingFile(self.path), header + row.tobytes()
        self._header = _read_header(self.path)[0]
        # Over a record that a crash left unfinished, which is shorter than a whole one.
        end = _whole_records(self.path, len(self._header), row.dtype.itemsize)
        return AppendingFile(self.path, end), row.tobytes()

    def drop_after(self, step: int) -> None:
        """Forget records beyond `step`, which a run that continues from there writes again."""
        if not self.path.exists():
            return
        recording = Recording(self.path)
        kept = int(np.searchsorted(recording.steps, step, side="right"))
        header, _ = _read_header(self.path)
        self._file = None
        os.truncate(self.path, len(header) + kept * recording.records.dtype.itemsize)


class Recording:
    """The content of a file that a `Recorder` wrote.

    Attributes:
        tasks: names of the T tasks.
        networks: names of the networks.
        steps: `[N]`.
        records: structured array `[N]`: `step`, and for each network its fields, see `of`.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        header, about = _read_header(Path(path))
        self.tasks: list[str] = about["tasks"]
        self.networks: list[str] = list(about["candidates"])
        dtype = _dtype(len(self.tasks), about["candidates"])
        whole = _whole_records(Path(path), len(header), dtype.itemsize) - len(header)
        self.records = np.fromfile(path, dtype, count=whole // dtype.itemsize, offset=len(header))

    @property
    def steps(self) -> np.ndarray:
        """`[N]`, in the order of writing."""
        return self.records["step"]

    def of(self, network: str) -> np.ndarray:
        """One network's structured array `[N]`; what was not known is nan.

        Fields: `weights [T]`, `gramian [T, T]`, `pairwise [T giver, T receiver]` and the number of `measurements` it is
        the mean of, `one_step [T, T]`; of a `Transference` combiner also `choice` (-1: none yet), `candidates [K, T]`,
        `transference [K, T]`, `scores [K]` and `step_size`.
        """
        if network not in self.networks:
            raise ValueError(f"network={network!r} is not in this recording; it has {', '.join(self.networks)}")
        return self.records[network]


def _fill(row: np.ndarray, record: Record) -> None:
    row["choice"] = -1 if record.decision is None else record.decision.choice.cpu().numpy()
    row["measurements"] = record.measurements
    for name in ("weights", "gramian", "pairwise", "one_step"):
        row[name] = _numbers(getattr(record, name))
    for name in DECIDED:
        row[name] = _numbers(None if record.decision is None else getattr(record.decision, name))


def _numbers(values: Tensor | None) -> np.ndarray | float:
    return np.nan if values is None else values.detach().cpu().float().numpy()  # numpy has no bfloat16


def _read_header(path: Path) -> tuple[bytes, dict]:
    with path.open("rb") as file:
        header = file.readline(MAX_SIZE)
    try:
        about = json.loads(header)
    except (ValueError, RecursionError):
        about = {}
    if not isinstance(about, dict) or about.get("format") != FORMAT:
        raise ValueError(f"{path} is not a recording: its first line does not say {FORMAT!r}")
    tasks, sizes = about.get("tasks"), about.get("candidates")
    named = isinstance(tasks, list) and all(isinstance(name, str) for name in tasks)
    sized = isinstance(sizes, dict) and all(type(size) is int and 0 <= size < MAX_SIZE for size in sizes.values())
    if not (named and sized):
        raise ValueError(f"{path} is not a recording: its first line is damaged")
    return header, about


def _whole_records(path: Path, header: int, size: int) -> int:
    return header + (path.stat().st_size - header) // size * size


def _dtype(n_tasks: int, n_candidates: Mapping[str, int]) -> np.dtype:
    return np.dtype([("step", "<i8"), *((name, _network(n_tasks, size)) for name, size in n_candidates.items())])


def _network(n_tasks: int, n_candidates: int) -> np.dtype:
    pairs, table = (n_tasks, n_tasks), (n_candidates, n_tasks)
    return np.dtype(
        [
            ("choice", "<i4"),
            ("measurements", "<i4"),
            ("step_size", "<f4"),
            ("weights", "<f4", (n_tasks,)),
            ("gramian", "<f4", pairs),
            ("pairwise", "<f4", pairs),
            ("one_step", "<f4", pairs),
            ("scores", "<f4", (n_candidates,)),
            ("candidates", "<f4", table),
            ("transference", "<f4", table),
        ]
    )
