"""Manifest of a checkpoint: the list of its files with hashes, and a hash of the list itself."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from pydantic import Field, TypeAdapter, ValidationError

from mtrl_transfer.agents.runs.errors import first_problem
from mtrl_transfer.agents.runs.logs.event_file import EVENTS
from mtrl_transfer.agents.storage.durable import Stamp, damage, write_durably

FORMAT = 2
MANIFEST = "manifest.json"
SEGMENT_NAME = re.compile(r"[0-9]{1,15}-[0-9]{1,15}\.safetensors")
_MAX_BYTES = 1 << 24

Number = Annotated[int, Field(ge=0, lt=10**15, strict=True)]
Growing = Annotated[str, Field(pattern=rf"^(metrics\.jsonl|transference\.records|{EVENTS}[^/\\]+)$")]


class Damaged(ValueError):
    """A checkpoint is not as it was written; the message is a clause that says why."""


class Segment(NamedTuple):
    """A file of ``steps`` consecutive vector steps of replay, beginning with ``first``."""

    file: Annotated[str, Field(pattern=f"^{SEGMENT_NAME.pattern}$")]
    first: Number
    steps: Annotated[Number, Field(ge=1)]
    stamp: Stamp

    @property
    def last(self) -> int:
        """Number of the step after the last one."""
        return self.first + self.steps


class Manifest(NamedTuple):
    """Content of a checkpoint.

    - `step`: in transitions.
    - `files`: in the checkpoint's folder.
    - `segments`: of replay, oldest first, without a gap up to ``added``.
    - `added`: vector steps added to replay so far.
    - `appended`: size, at the checkpoint, of the run's files that only grow.
    - `config`: of the run; None in checkpoints of version 0.1.
    """

    step: Number
    files: Annotated[dict[Annotated[str, Field(pattern=r"^(agent|training)\.zip$")], Stamp], Field(min_length=2)]
    segments: tuple[Segment, ...]
    added: Number
    appended: dict[Growing, Number]
    config: dict[str, Any] | None = None


_MANIFEST = TypeAdapter(Manifest)


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write ``manifest.json`` into a checkpoint's folder."""
    content = {"format": FORMAT, **manifest._asdict()}
    write_durably(folder / MANIFEST, json.dumps({**content, "sha256": content_hash(content)}, indent=1).encode())


def read_manifest(folder: Path) -> Manifest:
    """Read the manifest of the checkpoint in a folder.

    Raises:
        Damaged: if it is missing, was changed, or does not describe a checkpoint.
    """
    path = folder / MANIFEST
    try:
        with path.open("rb") as file:
            content = json.loads(file.read(_MAX_BYTES))
        sound = content.pop("sha256") == content_hash(content)
    except FileNotFoundError:
        raise Damaged(f"{MANIFEST} is missing") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise Damaged(f"{MANIFEST} cannot be read ({type(error).__name__})") from None
    if not sound:
        raise Damaged(f"{MANIFEST} has changed since it was written")
    if problem := _problem(content, folder.name):
        raise Damaged(f"{MANIFEST} does not describe a checkpoint ({problem})")
    return _MANIFEST.validate_python(content)


def check_files(manifest: Manifest, folder: Path, segments: Path) -> None:
    """Compare every file with its hash.

    Args:
        manifest: of the checkpoint.
        folder: the checkpoint's.
        segments: the folder of replay's files.

    Raises:
        Damaged: naming the first file that is not as it was written.
    """
    parts = [(folder / name, stamp) for name, stamp in manifest.files.items()]
    parts += [(segments / segment.file, segment.stamp) for segment in manifest.segments]
    for path, stamp in parts:
        problem = damage(path, stamp)
        if problem is not None:
            raise Damaged(problem)


def _problem(content: dict[str, Any], name: str) -> str | None:
    """Return the first thing that no manifest of ours says."""
    found = content.pop("format", None)
    if found != FORMAT:
        return f"format {found}; this version reads format {FORMAT}"
    try:
        manifest = _MANIFEST.validate_python(content)
    except ValidationError as error:
        return first_problem(error)
    if str(manifest.step) != name:
        return f"step {manifest.step} in a folder named {name}"
    ends = [segment.last for segment in manifest.segments] or [0]
    if ends != [*(segment.first for segment in manifest.segments[1:]), manifest.added]:
        return f"segments of replay do not lead up to added={manifest.added}"
    return None


def content_hash(content: dict[str, Any]) -> str:
    """SHA-256 of a manifest's entries, the hash itself left out."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
