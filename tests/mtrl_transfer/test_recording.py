import numpy as np
import pytest
import torch

from mtrl_transfer import Context, Record, Recorder, Recording, Transference

TASKS = ("reach", "push", "pick")


def decided(n, **options):
    draw = torch.Generator().manual_seed(0)
    combiner = Transference(**options)
    rows = []
    for place in range(n):
        vectors = torch.randn(3, 4, generator=draw)
        gram = vectors @ vectors.T
        losses = torch.rand(3, generator=draw) + 0.1
        weights = combiner(
            gram,
            Context(
                losses=losses,
                step_norm=torch.tensor(0.1),
                lookahead=lambda w, step, gram=gram, losses=losses: losses - step * w @ gram,
            ),
        )
        rows.append(Record(weights, gram, combiner.last, gram.square(), place, gram.exp()))
    return rows


@pytest.fixture
def path(tmp_path):
    return tmp_path / "transference.records"


def test_what_was_written_is_read(path):
    critics, actors = decided(5), decided(5, candidates="pairs")
    recorder = Recorder(path, TASKS)
    for place, (critic, actor) in enumerate(zip(critics, actors, strict=True)):
        recorder.record(100 * place, {"critic": critic, "actor": actor})
    recording = Recording(path)
    assert (recording.tasks, recording.networks) == (list(TASKS), ["critic", "actor"])
    assert recording.steps.tolist() == [0, 100, 200, 300, 400]
    for name, written in (("critic", critics), ("actor", actors)):
        for row, record in zip(recording.of(name), written, strict=True):
            assert (row["choice"], row["measurements"]) == (record.decision.choice, record.measurements)
            for field in ("weights", "gramian", "pairwise", "one_step"):
                np.testing.assert_array_equal(row[field], getattr(record, field))
            for field in ("candidates", "transference", "scores", "step_size"):
                np.testing.assert_array_equal(row[field], getattr(record.decision, field))
    # Four candidates each (pairs of three tasks are three, and the full set), and nothing but numbers.
    size = 8 + 2 * (4 + 4 + 4 + 4 * (3 + 9 + 9 + 9 + 4 + 12 + 12))
    assert path.stat().st_size == len(path.read_bytes().split(b"\n")[0]) + 1 + 5 * size


def test_what_was_not_known_is_nan(path):
    Recorder(path, TASKS).record(1, {"model": Record(torch.ones(3) / 3)})
    (row,) = Recording(path).of("model")
    assert row["choice"] == -1
    assert row["measurements"] == 0
    assert all(np.isnan(row[field]).all() for field in ("gramian", "pairwise", "one_step", "step_size"))
    assert row["scores"].shape == (0,)


def test_a_recording_is_continued_after_a_crash(path):
    (first, second) = decided(2)
    Recorder(path, TASKS).record(1, {"model": first})
    with path.open("ab") as file:
        file.write(b"half a record")
    assert Recording(path).steps.tolist() == [1]
    Recorder(path, TASKS).record(2, {"model": second})
    recording = Recording(path)
    assert recording.steps.tolist() == [1, 2]
    np.testing.assert_array_equal(recording.of("model")[1]["gramian"], second.gramian)


@pytest.mark.parametrize(
    ("step", "left"), [(0, []), (10, [10]), (25, [10, 20]), (30, [10, 20, 30]), (99, [10, 20, 30])]
)
def test_records_beyond_a_step_are_dropped(path, step, left):
    recorder = Recorder(path, TASKS)
    recorder.drop_after(5)  # before there is a file
    for place, record in enumerate(decided(3), 1):
        recorder.record(10 * place, {"model": record})
    recorder.drop_after(step)
    assert Recording(path).steps.tolist() == left


def test_errors(path):
    (record,) = decided(1)
    Recorder(path, TASKS).record(1, {"model": record})
    for tasks, records in ((("a", "b", "c"), {"model": record}), (TASKS, {"actor": record})):
        with pytest.raises(ValueError, match="holds a recording of other tasks"):
            Recorder(path, tasks).record(2, records)
    with pytest.raises(ValueError, match="network='actor' is not in this recording; it has model"):
        Recording(path).of("actor")
    path.write_text("something else\n")
    with pytest.raises(ValueError, match="is not a recording"):
        Recording(path)


def test_half_precision_is_recorded(path):
    Recorder(path, TASKS).record(1, {"critic": Record(torch.tensor([0.5, 0.25, 0.0], dtype=torch.bfloat16))})
    assert Recording(path).of("critic")["weights"].tolist() == [[0.5, 0.25, 0.0]]
