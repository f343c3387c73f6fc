"""Messages and exit codes of commands that fail."""

from __future__ import annotations

from pathlib import Path

import pytest

from mtrl_transfer.agents.runs.exit_codes import exit_code


def test_a_file_that_cannot_be_written_costs_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "file").touch()
    assert exit_code("mtrl-test", lambda: (tmp_path / "file" / "folder").mkdir()) == 1
    printed = capsys.readouterr().err
    assert printed.startswith("mtrl-test: ")
    assert len(printed.splitlines()) == 1


def test_an_error_of_no_file_is_raised():
    def work() -> None:
        raise ConnectionResetError("gone")

    with pytest.raises(ConnectionResetError):
        exit_code("mtrl-test", work)
