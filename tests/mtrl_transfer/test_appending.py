"""Pieces are whole or absent, and none is lost while the disk is full."""

from __future__ import annotations

import contextlib
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from mtrl_transfer import Record, Recorder, Recording
from mtrl_transfer.appending import AppendingFile


@contextlib.contextmanager
def limit(size: int) -> Iterator[None]:
    """No file may grow beyond a size, as if the disk were full."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "file"


def test_what_could_not_be_written_comes_before_what_comes_next(path: Path):
    file = AppendingFile(path)
    file.append(b"one\n")
    with limit(6):
        for piece in (b"two\n", b"three\n"):
            with pytest.raises(OSError, match="too large"):
                file.append(piece)
            assert path.read_bytes() == b"one\n"  # though there was room for half a line
        assert file.waiting == b"two\nthree\n"
    file.append(b"four\n")
    assert (path.read_bytes(), file.waiting) == (b"one\ntwo\nthree\nfour\n", b"")


def test_the_last_piece_is_replaced_wherever_it_is(path: Path):
    file = AppendingFile(path)
    file.append(b"one\n")
    file.append(b"two\n")
    file.append(b"2\n", instead_of=4)
    assert path.read_bytes() == b"one\n2\n"
    with limit(5):
        for piece, before in ((b"second\n", 2), (b"again\n", 7), (b"third\n", 0), (b"3\n", 6)):
            with pytest.raises(OSError, match="too large"):
                file.append(piece, instead_of=before)
    assert path.read_bytes() == b"one\n"
    file.append(b"")
    assert path.read_bytes() == b"one\nagain\n3\n"


def test_a_file_is_continued_where_it_counts(path: Path):
    path.write_bytes(b"one\nha")
    file = AppendingFile(path, end=4)
    file.append(b"two\n")
    with path.open("ab") as other:  # somebody else's
        other.write(b"more\n")
    file.append(b"three\n")
    assert path.read_bytes() == b"one\ntwo\nmore\nthree\n"


def test_a_file_that_went_away_begins_anew(path: Path):
    file = AppendingFile(path / "inside")
    path.mkdir()
    file.append(b"one\n")
    (path / "inside").unlink()
    path.rmdir()
    with pytest.raises(FileNotFoundError):
        file.append(b"two\n")
    path.mkdir()
    file.append(b"three\n")
    assert (path / "inside").read_bytes() == b"two\nthree\n"


@pytest.mark.parametrize("room", [0, 30, 400])
def test_records_wait_too(path: Path, room: int):
    """In the header, in the first record, and later."""
    recorder = Recorder(path, ["a", "b"])
    with limit(room):
        for step in range(6):
            with contextlib.suppress(OSError):
                recorder.record(step, {"model": Record(torch.full((2,), float(step)))})
        with pytest.raises(OSError, match="too large"):
            recorder.flush()
        there = len(path.read_bytes())
    recorder.flush()
    recorder.record(6, {"model": Record(torch.full((2,), 6.0))})
    recording = Recording(path)
    assert recording.steps.tolist() == [0, 1, 2, 3, 4, 5, 6]
    assert recording.of("model")["weights"][:, 1].tolist() == [0, 1, 2, 3, 4, 5, 6]
    size = recording.records.dtype.itemsize
    whole = path.stat().st_size - 7 * size
    assert there == 0 or (there - whole) % size == 0  # nothing half-written meanwhile
