"""Files that are on the disk when the call returns, with hashes that tell whether they still are."""

from __future__ import annotations

import contextlib
import hashlib
import os
from pathlib import Path
from typing import NamedTuple

CHUNK = 1 << 22


class Stamp(NamedTuple):
    """Size in bytes and SHA-256 of a file."""

    size: int
    sha256: str


def write_durably(path: Path, content: bytes) -> Stamp:
    """Write a file whole or not at all, and wait until it is on the disk."""
    temporary = path.with_name(f".{path.name}.partial")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)
    return Stamp(len(content), hashlib.sha256(content).hexdigest())


def sync_folder(folder: Path) -> None:
    """Wait until the names in a folder are on the disk, where the system can."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_file(path: Path) -> None:
    """Wait until what was written to a file so far is on the disk."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def damage(path: Path, stamp: Stamp) -> str | None:
    """Damage of a file, in one clause; None if it is as it was written."""
    try:
        size = path.stat().st_size
        if size != stamp.size:
            return f"{path.name} has {size} bytes, not {stamp.size}"
        return None if _sha256(path) == stamp.sha256 else f"{path.name} has changed since it was written"
    except FileNotFoundError:
        return f"{path.name} is missing"
    except OSError as error:
        return f"{path.name} cannot be read: {error.strerror}"


def _sha256(path: Path) -> str:
    hashed = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            hashed.update(chunk)
    return hashed.hexdigest()
