from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar import layout_pb2

from mtrl_transfer import covariance_similarity
from mtrl_transfer.agents import MTSAC, MeasureTransference
from mtrl_transfer.agents.monitoring.callbacks import TransferenceFigures
from mtrl_transfer.agents.monitoring.features import covariance_similarities, feature_spread, rank_correlation
from mtrl_transfer.agents.monitoring.figures import heatmap, left_out_shares, scatter
from mtrl_transfer.agents.monitoring.layout import scalar_layout


def events(folder: Path) -> EventAccumulator:
    accumulator = EventAccumulator(str(folder), {"images": 0, "scalars": 0, "histograms": 0, "tensors": 0})
    accumulator.Reload()
    return accumulator


def test_a_run_shows_what_helps_what(make_agent: Callable[..., MTSAC], tmp_path: Path) -> None:
    agent = make_agent(combiner="transference", tensorboard_log=str(tmp_path))
    figures = TransferenceFigures(every=25)
    agent.learn(165, [MeasureTransference(2), figures], log_interval=3)
    found = events(next(tmp_path.iterdir()))
    for role in ("critic", "actor"):
        tags = (f"1_what_helps_what/{role}_transference", f"1_what_helps_what/{role}_gradient_cosine")
        for tag in (*tags, f"2_predicted_realised/{role}", f"3_left_out/{role}"):
            assert [image.step for image in found.Images(tag)] == [75, 150], tag
        # Every measured choice since the last figure is in the histogram: one an update.
        counts = [event.histogram_value.num for event in found.Histograms(f"choices/{role}")]
        assert counts == [4, 25]
        assert len(found.Images(f"1_what_helps_what/{role}_feature_similarity")) == 2
        for kind in ("input", "feature"):
            values = [one.value for one in found.Scalars(f"transference/{role}_{kind}_similarity_correlation")]
            assert len(values) == 2
            assert all(-1 <= value <= 1 for value in values)
    assert len(found.Images("1_what_helps_what/input_similarity")) == 2
    assert 0 < figures.seconds < agent.timing["logging"]
    last = {
        tag: found.Scalars(f"time/{tag}")[-1].value for tag in ("logging_share", "logging_seconds", "figures_seconds")
    }
    assert 0 < last["figures_seconds"] <= last["logging_seconds"]
    assert 0 < last["logging_share"] < 1


def test_a_lost_task_has_no_feature_spread(make_agent: Callable[..., MTSAC]) -> None:
    """One twin's units are made silent for one task: its observations end in a feature that only this task has."""
    agent = make_agent(policy_kwargs={"net_arch": [8]}).learn(90)
    state = agent.replay_buffer.generator.get_state()
    before = feature_spread(agent)
    assert all(bool((spread > 0).all()) for spread in before.values())
    with torch.no_grad():
        agent.replay_buffer.storage.observations[:, 1, 0] = 1e6
        agent.policy.critic.trunk["weight0"][1, 0] = -1.0
    after = feature_spread(agent)
    assert after["critic"].tolist() == [pytest.approx(after["critic"][0].item()), 0.0, after["critic"][2].item()]
    assert after["critic"][0] > 0
    assert torch.equal(after["actor"][[0, 2]], before["actor"][[0, 2]])
    assert torch.equal(agent.replay_buffer.generator.get_state(), state)


def test_similarities_equal_a_direct_computation(make_agent: Callable[..., MTSAC]) -> None:
    agent = make_agent().learn(90)
    state = agent.replay_buffer.generator.get_state()
    found = covariance_similarities(agent, torch.Generator().manual_seed(0))
    assert torch.equal(agent.replay_buffer.generator.get_state(), state)
    batch = agent.minibatches.sample(128 * 3, torch.Generator().manual_seed(0))
    with torch.no_grad():
        rows = {
            "inputs": batch.observations,
            "critic": agent.policy.critic.features(torch.cat([batch.observations, batch.actions], -1))[0],
            "actor": agent.policy.actor.features(batch.observations)[0],
        }
    for name, values in rows.items():
        expected = covariance_similarity(values[0], values[2]).item()
        assert found[name][0, 2] == pytest.approx(expected, rel=1e-4)


def test_rank_correlation_is_over_pairs_of_different_tasks() -> None:
    similarity = np.array([[9.0, 1.0, 2.0], [1.0, 9.0, 3.0], [2.0, 3.0, 9.0]])
    transference = np.array([[0.0, 1.0, 2.0], [1.0, 0.0, 30.0], [2.0, 30.0, 0.0]])
    assert rank_correlation(similarity, transference) == pytest.approx(1.0)
    assert rank_correlation(similarity, -transference) == pytest.approx(-1.0)
    assert np.isnan(rank_correlation(np.ones((3, 3)), transference))


def test_the_layout_names_scalars_that_a_run_writes(make_agent: Callable[..., MTSAC], tmp_path: Path) -> None:
    agent = make_agent(combiner="transference", tensorboard_log=str(tmp_path))
    agent.learn(303, [MeasureTransference(2), TransferenceFigures(every=90)])
    found = events(next(tmp_path.iterdir()))
    written = set(found.Tags()["scalars"])
    listed = {
        tag
        for charts in scalar_layout(agent.task_names).values()
        for _, tags in charts.values()
        for tag in tags
        # Those come from the evaluation callback, which does not run here.
        if not tag.startswith(("success/", "return/", "time/evaluation"))
    }
    assert listed <= written, listed - written
    layout = layout_pb2.Layout.FromString(found.Tensors("custom_scalars__config__")[0].tensor_proto.string_val[0])
    assert [category.title[0] for category in layout.category] == ["1", "2", "3", "4"]


def test_a_plain_run_shows_no_empty_figures(make_agent: Callable[..., MTSAC], tmp_path: Path) -> None:
    agent = make_agent(combiner="mean", tensorboard_log=str(tmp_path))
    agent.learn(150, TransferenceFigures(every=25))
    assert events(next(tmp_path.iterdir())).Tags()["images"] == []


def test_figures_show_their_numbers() -> None:
    matrix = np.array([[0.5, -0.25], [0.001, 0.0]])
    figure = heatmap(matrix, ["push-v3", "reach-v3"], "title", "gives", "receives")
    axes = figure.axes[0]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["push", "reach"]
    assert [text.get_text() for text in axes.texts] == ["-25", "0"]  # the diagonal has none
    assert figure.get_suptitle() == "title,\nin %"
    # Blue helps, red harms, about zero.
    assert axes.images[0].get_clim() == (-0.25, 0.25)
    stacked = left_out_shares([10, 20], np.array([[0.1, 0.2], [0.3, 0.4]]), ["a", "b"], "title")
    large = heatmap(np.ones((11, 11)), [f"task-{task}" for task in range(11)], "title", "gives", "receives")
    assert len(large.axes[0].texts) == 0
    assert len(large.axes) == 2  # with a colour bar
    tops = [collection.get_paths()[0].vertices[:, 1].max() for collection in stacked.axes[0].collections]
    np.testing.assert_allclose(tops, [0.3, 0.7])
    points = scatter(np.array([[0.1, 0.2]]), np.array([[0.3, 0.4]]), ["a", "b"], "title").axes[0].collections
    np.testing.assert_allclose([collection.get_offsets()[0] for collection in points], [[0.1, 0.3], [0.2, 0.4]])


@pytest.mark.parametrize(
    ("largest", "written", "unit"),
    [(1.0, 100, "%"), (0.2, 20, "%"), (0.099, 99, "‰"), (3e-5, 30, "10^{-6}"), (42.0, 42, "1")],
)
def test_cells_have_two_digits(largest: float, written: int, unit: str) -> None:
    matrix = np.array([[1e3, 0.3 * largest], [-largest, np.nan]])
    figure = heatmap(matrix, ["a", "b"], "title", "", "")
    assert [text.get_text() for text in figure.axes[0].texts] == [f"{0.3 * written:.0f}", f"-{written}"]
    assert unit in figure.get_suptitle()


def test_many_tasks_are_summed_up() -> None:
    shares = np.tile(np.linspace(0, 0.2, 12), (2, 1))
    figure = left_out_shares([10, 20], shares, [f"task-{task}" for task in range(12)], "title")
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == [*(f"task-{task}" for task in range(11, 2, -1)), "3 others"]
    tops = [collection.get_paths()[0].vertices[:, 1].max() for collection in figure.axes[0].collections]
    np.testing.assert_allclose(tops[-1], shares[0].sum())


def test_bad_period() -> None:
    with pytest.raises(ValueError, match="every=0"):
        TransferenceFigures(0)
