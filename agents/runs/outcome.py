"""The files in which a run leaves its results, checked when they are read: they may come from anywhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from mtrl_transfer.agents.runs.errors import InputError, first_problem
from mtrl_transfer.agents.runs.run_folder import EVALUATION_FILE, PROTOCOL_FILE

Number = Annotated[float, Field(allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1)]
Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Step = Annotated[int, Field(ge=0, lt=10**15)]
UNKNOWN = "unknown"
"""Precision of products in runs of version 0.1 that permitted rounding and did not note whether it took place."""


class Unreadable(ValueError):
    """A file that no run of ours wrote; the message is a clause that names file and fault."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="allow")


class _TaskScore(_Part):
    success: Share
    value: Number = Field(alias="return")


class _Evaluation(_Part):
    step: Step
    mean_success: Share
    tasks: Annotated[dict[str, _TaskScore], Field(min_length=1)]
    seconds: dict[str, Seconds] = {}


class _Environment(_Part):
    suite: str
    task_names: tuple[str, ...]
    solvable_tasks: tuple[Step, ...]
    horizon: int | None
    n_goals: int | None


class _EvaluationProtocol(_Part):
    horizon: int | None
    episodes_per_task: int
    policy: str
    success: str
    environments: str


class _Protocol(_Part):
    versions: dict[str, str]
    commit: str | None
    environment: _Environment
    evaluation: _EvaluationProtocol
    machine: dict[str, Any]
    precision: str

    @model_validator(mode="before")
    @classmethod
    def _of_version_0_1(cls, card: Any) -> Any:
        """Add the precision to a card without it: products are float32 where no rounding was permitted."""
        if not isinstance(card, dict) or "precision" in card or not isinstance(card.get("machine"), dict):
            return card
        exact = card["machine"].get("matmul_precision") == "highest"
        return {**card, "precision": "float32" if exact else UNKNOWN}


_ROW = TypeAdapter(dict[str, Annotated[int, Field(ge=-(2**63), lt=2**63)] | Number | None])


def read_evaluation(path: Path) -> dict[str, Any]:
    """Read an ``evaluation.json``.

    Raises:
        Unreadable: if it is none.
    """
    return _read(_Evaluation, path)


def read_protocol(path: Path) -> dict[str, Any]:
    """Read a ``protocol.json``; ``precision`` is there for runs of version 0.1 too, see `UNKNOWN`.

    Raises:
        Unreadable: if it is none.
    """
    return _read(_Protocol, path)


def continued_protocol(folder: Path, now: dict[str, Any]) -> dict[str, Any]:
    """Protocol of a run that goes on: that of its folder, with the present precision added if it is another.

    Args:
        folder: the run's.
        now: protocol of a new run; taken where the folder's is missing.

    Raises:
        InputError: if the folder's cannot be read.
    """
    path = folder / PROTOCOL_FILE
    if not path.exists():
        return now
    try:
        card = read_protocol(path)
    except Unreadable as error:
        raise InputError(f"cannot resume {folder}: {error}") from None
    known = card["precision"].split(", ")
    return card | {"precision": ", ".join(dict.fromkeys([*known, now["precision"]]))}


def read_metrics(path: Path) -> tuple[list[dict[str, Any]], int]:
    """Rows of a ``metrics.jsonl`` in the order of their steps, and the number of lines that are damaged.

    Raises:
        Unreadable: if it cannot be read at all; a missing file has no rows.
    """
    try:
        lines = path.read_bytes().split(b"\n") if path.exists() else []
    except OSError as error:
        raise Unreadable(f"{path.name} cannot be read ({error.strerror})") from None
    return parse_metrics(lines)


def parse_metrics(lines: list[bytes]) -> tuple[list[dict[str, Any]], int]:
    """Rows of some lines of a ``metrics.jsonl``, and the number of lines that are damaged."""
    rows: list[dict[str, Any]] = []
    damaged, last = 0, 0
    for line in filter(None, lines):
        try:
            row = _ROW.validate_json(line)
        except ValidationError:
            row = {}
        step = row.get("step")
        if isinstance(step, int) and step >= last:
            rows.append(row)
            last = step
        else:
            damaged += 1
    return rows, damaged


def finished_step(folder: Path) -> int:
    """Transitions after which the run in a folder was evaluated for the last time; -1 if it is not finished."""
    try:
        return read_evaluation(folder / EVALUATION_FILE)["step"]
    except Unreadable:
        return -1


def _read(model: type[BaseModel], path: Path) -> dict[str, Any]:
    try:
        return model.model_validate_json(path.read_bytes()).model_dump(by_alias=True)
    except OSError as error:
        raise Unreadable(f"{path.name} cannot be read ({error.strerror})") from None
    except ValidationError as error:
        raise Unreadable(f"{path.name} cannot be read ({first_problem(error)})") from None
