import numpy as np
import pytest
import torch

from mtrl_transfer import Context, Recorder, Recording, Transference

TASKS = ("reach", "push", "pick")


def decisions(n):
    draw = torch.Generator().manual_seed(0)
    combiner = Transference()
    rows = []
    for _ in range(n):
        vectors = torch.randn(3, 4, generator=draw)
        gram = vectors @ vectors.T
        losses = torch.rand(3, generator=draw) + 0.1
        combiner(
            gram,
            Context(
                losses=losses,
                step_norm=torch.tensor(0.1),
                lookahead=lambda w, step, gram=gram, losses=losses: losses - step * w @ gram,
            ),
        )
        rows.append((gram, combiner.last))
    return rows


@pytest.fixture
def path(tmp_path):
    return tmp_path / "transference.bin"


def test_what_was_written_is_read(path):
    written = decisions(5)
    recorder = Recorder(path, TASKS, networks=("critic", "actor"), every=10)
    for place, (gram, decision) in enumerate(written):
        recorder.record(100 * place, gram, decision, network=("critic", "actor")[place % 2])
    recording = Recording(path)
    assert recording.tasks == list(TASKS)
    assert recording.records["step"].tolist() == [0, 100, 200, 300, 400]
    assert recording.of("actor")["step"].tolist() == [100, 300]
    for row, (gram, decision) in zip(recording.records, written, strict=True):
        np.testing.assert_array_equal(row["gramian"], gram)
        assert row["choice"] == decision.choice
        for name in ("candidates", "transference", "scores", "weights", "step_size"):
            np.testing.assert_array_equal(row[name], getattr(decision, name))
    size = 8 + 1 + 4 + 4 + 4 * (4 + 3 + 9 + 12 + 12)
    assert path.stat().st_size == len(path.read_bytes().split(b"\n")[0]) + 1 + 5 * size


def test_a_recording_is_continued_after_a_crash(path):
    (first, second) = decisions(2)
    Recorder(path, TASKS).record(1, *first)
    with path.open("ab") as file:
        file.write(b"half a record")
    assert Recording(path).records["step"].tolist() == [1]
    Recorder(path, TASKS).record(2, *second)
    recording = Recording(path)
    assert recording.records["step"].tolist() == [1, 2]
    np.testing.assert_array_equal(recording.records[1]["gramian"], second[0])


def test_period():
    recorder = Recorder("unused", TASKS, every=4)
    assert [step for step in range(10) if recorder.due(step)] == [0, 4, 8]


def test_errors(path):
    ((gram, decision),) = decisions(1)
    Recorder(path, TASKS).record(1, gram, decision)
    with pytest.raises(ValueError, match="holds a recording of other tasks"):
        Recorder(path, ("a", "b", "c")).record(2, gram, decision)
    with pytest.raises(ValueError, match="network='actor' is not in this recording; it has model"):
        Recording(path).of("actor")
    with pytest.raises(ValueError, match="every=0 must be at least 1"):
        Recorder(path, TASKS, every=0)
    path.write_text("something else\n")
    with pytest.raises(ValueError, match="is not a recording"):
        Recording(path)
