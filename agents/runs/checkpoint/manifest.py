"""The list of what belongs to a checkpoint, with hashes; it vouches for itself, too."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any, NamedTuple

from mtrl_transfer.agents.storage.durable import Stamp, damage, write_durably

FORMAT = 2
MANIFEST = "manifest.json"
_SEGMENT_NAME = re.compile(r"\d{1,15}-\d{1,15}\.safetensors")
_MAX_BYTES = 1 << 24


class Damaged(ValueError):
    """A checkpoint is not as it was written; the message is a clause that says why."""


class Segment(NamedTuple):
    """A file of consecutive vector steps of replay, from ``first`` on."""

    file: str
    first: int
    steps: int
    stamp: Stamp

    @property
    def last(self) -> int:
        """One beyond the last step."""
        return self.first + self.steps


class Manifest(NamedTuple):
    """What a checkpoint consists of.

    - `step`: in transitions.
    - `files`: in the checkpoint's folder.
    - `segments`: of replay, oldest first.
    - `added`: vector steps added to replay so far.
    - `appended`: size, at the checkpoint, of the run's files that only grow.
    """

    step: int
    files: dict[str, Stamp]
    segments: tuple[Segment, ...]
    added: int
    appended: dict[str, int]


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write ``manifest.json`` into a checkpoint's folder."""
    content = {"format": FORMAT, **manifest._asdict()}
    write_durably(folder / MANIFEST, json.dumps({**content, "sha256": _hash(content)}, indent=1).encode())


def read_manifest(folder: Path) -> Manifest:
    """Read what :func:`write_manifest` wrote.

    Raises:
        Damaged: if it is missing or not as it was written.
    """
    path = folder / MANIFEST
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise Damaged(f"{MANIFEST} is larger than any manifest")
        content = json.loads(path.read_bytes())
        sound = content.pop("sha256") == _hash(content)
    except FileNotFoundError:
        raise Damaged(f"{MANIFEST} is missing") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise Damaged(f"{MANIFEST} cannot be read ({type(error).__name__})") from None
    if not sound:
        raise Damaged(f"{MANIFEST} has changed since it was written")
    try:
        return _parsed(content)
    except (KeyError, TypeError, ValueError) as error:
        raise Damaged(f"{MANIFEST} does not describe a checkpoint ({error})") from None


def check_files(manifest: Manifest, folder: Path, segments: Path) -> None:
    """Compare every file with its hash.

    Args:
        manifest: of the checkpoint.
        folder: the checkpoint's.
        segments: where replay's files lie.

    Raises:
        Damaged: naming the first file that is not as it was written.
    """
    parts = [(folder / name, stamp) for name, stamp in manifest.files.items()]
    parts += [(segments / segment.file, segment.stamp) for segment in manifest.segments]
    for path, stamp in parts:
        problem = damage(path, stamp)
        if problem is not None:
            raise Damaged(problem)


def _parsed(content: dict[str, Any]) -> Manifest:
    if content["format"] != FORMAT:
        raise ValueError(f"format {content['format']}; this version reads format {FORMAT}")
    segments = tuple(
        Segment(file, int(first), int(steps), _stamp(stamp)) for file, first, steps, stamp in content["segments"]
    )
    files = {name: _stamp(stamp) for name, stamp in content["files"].items()}
    for name in [*files, *content["appended"]]:
        if Path(name).name != name:
            raise ValueError(f"{name!r} is no file's name")
    for segment in segments:
        if not _SEGMENT_NAME.fullmatch(segment.file):
            raise ValueError(f"{segment.file!r} is no name of a file of replay")
    appended = {name: int(size) for name, size in content["appended"].items()}
    return Manifest(int(content["step"]), files, segments, int(content["added"]), appended)


def _stamp(content: Any) -> Stamp:
    size, sha256 = content
    return Stamp(int(size), str(sha256))


def _hash(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
