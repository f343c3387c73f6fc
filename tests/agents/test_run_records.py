from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mtrl_transfer import Recording
from mtrl_transfer.agents import MTSAC, MeasureTransference
from mtrl_transfer.agents.monitoring.callbacks import RecordTransference
from mtrl_transfer.gradients import gramian
from mtrl_transfer.lookahead import StepLookahead
from mtrl_transfer.probe import effects_alone


class Watch(RecordTransference):
    """Also keeps each measured pairwise table, taken where it is made."""

    def __init__(self, path: Path, every: int) -> None:
        super().__init__(path, every)
        self.tables: dict[str, list[np.ndarray]] = {"critic": [], "actor": []}

    def _on_training_start(self) -> None:
        super()._on_training_start()
        for role, update in self.model.updates.items():
            add, tables = update.measurement.history.add, self.tables[role]
            update.measurement.history.add = lambda name, value, add=add, tables=tables: (
                tables.append(value.numpy().copy()),
                add(name, value),
            )


def test_records_hold_the_means_since_the_last(make_agent: Callable[..., MTSAC], tmp_path: Path) -> None:
    agent = make_agent(combiner="transference", combiner_kwargs={"every": 3})
    watch = Watch(tmp_path / "records", every=10)
    agent.learn(
        180, [MeasureTransference(4), watch]
    )  # 60 vector steps, of which 40 learn (training starts at 60 transitions, after step 20)
    recording = Recording(tmp_path / "records")
    assert recording.networks == ["critic", "actor"]
    assert len(recording.steps) == agent._n_updates // 10 == 4
    assert np.all(np.diff(recording.steps) == 30)
    for role, update in agent.updates.items():
        rows, tables = recording.of(role), watch.tables[role]
        # Measured at updates 0, 4, 8 | 12, 16 | 20, 24, 28 | 32, 36.
        assert rows["measurements"].tolist() == [3, 2, 3, 2]
        for row, part in zip(rows, np.split(np.stack(tables), [3, 5, 8]), strict=True):
            np.testing.assert_allclose(row["pairwise"], part[: row["measurements"]].mean(0), rtol=1e-5, atol=1e-8)
        if agent._n_updates % 10 == 0:
            np.testing.assert_array_equal(rows[-1]["gramian"], update.gramian)
        chosen = rows["candidates"][np.arange(4), rows["choice"]]
        assert np.all((chosen > 0) == (rows["weights"] > 0))


def test_recording_changes_nothing(make_agent: Callable[..., MTSAC], tmp_path: Path) -> None:
    measuring, records = MeasureTransference(4), RecordTransference(tmp_path / "records", 5)
    one = make_agent(combiner="transference").learn(150, [measuring, records])
    other = make_agent(combiner="transference").learn(150, measuring)
    for ours, theirs in zip(one.policy.parameters(), other.policy.parameters(), strict=True):
        assert ours.equal(theirs)


def test_a_plain_agent_records_weights(make_agent: Callable[..., MTSAC], tmp_path: Path) -> None:
    agent = make_agent(combiner="mean")
    agent.learn(150, RecordTransference(tmp_path / "records", every=10))
    rows = Recording(tmp_path / "records").of("actor")
    np.testing.assert_allclose(rows["weights"], 1 / 3)
    assert np.isnan(rows["pairwise"]).all()
    assert (rows["choice"] == -1).all()


def one_by_one(update, rows, others) -> tuple[torch.Tensor, torch.Tensor, Any]:
    """Losses on other rows before and after each task's step alone, a lookahead for each, and the result on `rows`."""
    tasks, own = update.model.gradients(rows)
    gram = gramian(tasks.shared_grads)
    lookahead = StepLookahead(update.model, tasks, gram, lambda *_: others, update.step_norm)
    before, n_tasks = lookahead(torch.zeros(1, len(gram)))[0], len(gram)
    assert not torch.isclose(before, tasks.losses).any()
    after = [lookahead(torch.eye(n_tasks)[[giver]] / n_tasks) for giver in range(n_tasks)]
    return before, torch.cat(after), own


def test_affinity_is_mean_decrease_over_mean_loss(make_agent: Callable[..., MTSAC], tmp_path: Path) -> None:
    """Against the lookahead of each singleton's step, evaluated one by one."""
    agent = make_agent(combiner="mean", batch_size=96)
    seen: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {"critic": [], "actor": []}
    for role, update in agent.updates.items():

        def watched(batch, rows_of, n_rows, horizon, update=update, role=role, measure=update._measure_affinity):
            assert n_rows == 2  # a sixteenth of 32 rows a task
            drawn = {}

            def rows_noting(rows, held_out):
                drawn[held_out] = rows_of(rows, held_out)
                return drawn[held_out]

            measure(batch, rows_noting, n_rows, horizon)
            if drawn:
                few = batch._make(part[:, :2] if part.shape[1] > 1 else part for part in batch)
                before, after, rows = one_by_one(update, few, drawn[True])
                scale = before if role == "critic" else rows.losses.squeeze(0).std(dim=-1)
                seen[role].append(((before - after).numpy(), scale.numpy().copy()))

        update._measure_affinity = watched
    agent.learn(180, [MeasureTransference(affinity_every=5), RecordTransference(tmp_path / "records", every=20)])
    recording = Recording(tmp_path / "records")
    for role in ("critic", "actor"):
        rows = recording.of(role)
        assert rows["measurements"].tolist() == [3, 4]  # at update 0 no step had been taken: 5, 10, 15 | 20, ..., 35
        for row, part in zip(rows, (seen[role][:3], seen[role][3:]), strict=True):
            decrease, scale = (np.mean(values, axis=0) for values in zip(*part, strict=True))
            np.testing.assert_allclose(row["pairwise"], decrease / scale, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("role", ["critic", "actor"])
@pytest.mark.parametrize(
    "net",
    [
        {"net_arch": [6, 5]},
        {"net_arch": {"pi": [6], "qf": [7, 4]}, "layer_norm": True, "activation_fn": "elu", "one_hot_in_trunk": True},
        {"net_arch": [6, 5], "layer_norm": True, "alignment": "joint"},
    ],
    ids=str,
)
def test_steps_alone_are_those_of_stepped_copies(
    make_agent: Callable[..., MTSAC], monkeypatch: pytest.MonkeyPatch, role: str, net: Any
) -> None:
    agent = make_agent(policy_kwargs=net).learn(90)
    update, make = agent.updates[role], {"critic": agent.minibatches.critic, "actor": agent.minibatches.actor}[role]
    update.step_norm.fill_(0.3)
    rows, others = (make(agent.minibatches.sample(size, None), agent.learner.noise_generator) for size in (9, 15))
    before, after, own = one_by_one(update, rows, others)
    for times_wider in (0, 1_000):  # with few rows for the layers' widths, and with many
        monkeypatch.setattr("mtrl_transfer.probe.FEW", times_wider)
        found = effects_alone(update.model, rows, others, update.step_norm)
        torch.testing.assert_close(found[2].losses, own.losses)
        assert not found[2].losses.requires_grad
        torch.testing.assert_close(found[0], before)
        assert ((found[1] - before).abs() > 1e-5).any()
        torch.testing.assert_close(found[1] - before, after - before, rtol=1e-3, atol=2e-6)


@pytest.mark.parametrize("of", [{"affinity_every": 2}, {"affinity_every": 20, "affinity_horizon": 2}])
def test_measuring_affinity_changes_nothing(
    make_agent: Callable[..., MTSAC], tmp_path: Path, of: dict[str, int]
) -> None:
    one = make_agent(combiner="pcgrad").learn(150, MeasureTransference(**of))
    other = make_agent(combiner="pcgrad").learn(150)
    for ours, theirs in zip(one.policy.parameters(), other.policy.parameters(), strict=True):
        assert ours.equal(theirs)
    one.save(tmp_path / "agent")
    loaded = MTSAC.load(tmp_path / "agent")
    kept = loaded.updates["critic"].measurement.history.flush()
    for name, value in one.updates["critic"].measurement.history.flush().items():
        assert value.equal(kept[name])


def test_bad_period() -> None:
    with pytest.raises(ValueError, match="every=0"):
        RecordTransference("unused", 0)


def test_bad_affinity_period(make_agent: Callable[..., MTSAC]) -> None:
    with pytest.raises(ValueError, match="affinity_every=0 must be a whole number of at least 1"):
        MeasureTransference(affinity_every=0)
    with pytest.raises(ValueError, match="affinity_horizon=0 must be a whole number of at least 1"):
        MeasureTransference(affinity_horizon=0)
    with pytest.raises(ValueError, match="affinity_rows=9 should be 2 to 8"):
        make_agent().learn(30, MeasureTransference(affinity_every=5, affinity_rows=9))
