"""Decisions and Gramians of a run in one compact file: a line of JSON, then records of one fixed size.

Records are appended, so a run that was cut off leaves a readable file, and a resumed one goes on in it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from torch import Tensor

from mtrl_transfer.decision import Decision

FORMAT = "mtrl_transfer.recorder 1"


class Recorder:
    """Writes what `Transference` combiners decided, at a chosen period.

    Args:
        path: the file; an existing one of the same tasks, networks and number of candidates is appended to.
        tasks: names of the T tasks.
        networks: what decides, for example `("critic", "actor")`.
        every: `due(step)` is true once in so many steps.
    """

    def __init__(
        self, path: str | os.PathLike[str], tasks: Sequence[str], networks: Sequence[str] = ("model",), every: int = 1
    ) -> None:
        if every < 1:
            raise ValueError(f"every={every} must be at least 1")
        self.path = Path(path)
        self.tasks, self.networks = list(tasks), list(networks)
        self.every = every

    def due(self, step: int) -> bool:
        """Whether this step is one to record; only then do the values have to leave the device."""
        return step % self.every == 0

    def record(self, step: int, gramian: Tensor, decision: Decision, network: str | None = None) -> None:
        """Append one decision.

        Args:
            step: of the run, in the unit of the caller's logs.
            gramian: `[T, T]`.
            decision: `combiner.last`.
            network: one of `networks`; the first where not given.
        """
        header = self._header(len(decision.candidates))
        if not self.path.exists() or self.path.stat().st_size == 0:
            self.path.write_bytes(header)
        elif _read_header(self.path)[0] != header:
            raise ValueError(f"{self.path} holds a recording of other tasks, networks or candidates")
        row = np.zeros((), _dtype(len(self.tasks), len(decision.candidates)))
        row["step"] = step
        row["network"] = self.networks.index(network) if network is not None else 0
        row["choice"] = decision.choice.cpu().numpy()
        row["gramian"] = gramian.cpu().numpy()
        for name in ("candidates", "transference", "scores", "weights", "step_size"):
            row[name] = getattr(decision, name).detach().cpu().numpy()
        with self.path.open("r+b") as file:
            # Over a record that a crash left unfinished, which is shorter than a whole one.
            file.seek(_whole_records(self.path, len(header), row.dtype.itemsize))
            file.write(row.tobytes())

    def _header(self, n_candidates: int) -> bytes:
        about = {"format": FORMAT, "tasks": self.tasks, "networks": self.networks, "n_candidates": n_candidates}
        return json.dumps(about).encode() + b"\n"


class Recording:
    """What a `Recorder` wrote.

    Attributes:
        tasks: names of the T tasks.
        networks: names of what decided.
        records: structured array `[N]` with the fields `step`, `network` (index into `networks`), `choice`, `gramian`
            `[T, T]`, `candidates` `[K, T]`, `transference` `[K, T]`, `scores` `[K]`, `weights` `[T]`, `step_size`.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        header, about = _read_header(Path(path))
        self.tasks: list[str] = about["tasks"]
        self.networks: list[str] = about["networks"]
        dtype = _dtype(len(self.tasks), about["n_candidates"])
        whole = _whole_records(Path(path), len(header), dtype.itemsize) - len(header)
        self.records = np.fromfile(path, dtype, count=whole // dtype.itemsize, offset=len(header))

    def of(self, network: str) -> np.ndarray:
        """Records of one network, in the order of writing."""
        if network not in self.networks:
            raise ValueError(f"network={network!r} is not in this recording; it has {', '.join(self.networks)}")
        return self.records[self.records["network"] == self.networks.index(network)]


def _read_header(path: Path) -> tuple[bytes, dict]:
    with path.open("rb") as file:
        header = file.readline()
    try:
        about = json.loads(header)
    except ValueError:
        about = {}
    if not isinstance(about, dict) or about.get("format") != FORMAT:
        raise ValueError(f"{path} is not a recording: its first line does not say {FORMAT!r}")
    return header, about


def _whole_records(path: Path, header: int, size: int) -> int:
    return header + (path.stat().st_size - header) // size * size


def _dtype(n_tasks: int, n_candidates: int) -> np.dtype:
    table = (n_candidates, n_tasks)
    return np.dtype(
        [
            ("step", "<i8"),
            ("network", "<u1"),
            ("choice", "<i4"),
            ("step_size", "<f4"),
            ("scores", "<f4", (n_candidates,)),
            ("weights", "<f4", (n_tasks,)),
            ("gramian", "<f4", (n_tasks, n_tasks)),
            ("candidates", "<f4", table),
            ("transference", "<f4", table),
        ]
    )
