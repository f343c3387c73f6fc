"""A routed agent plays each task as the agent that serves it does, and comes back from disk the same."""

from __future__ import annotations

import zipfile

import numpy as np
import pytest

from mtrl_transfer.agents import MTSAC, RoutedAgent, evaluate, load_agent
from mtrl_transfer.agents.storage import archive
from mtrl_transfer.envs import make_vec_env

NAMES = ["point-a0", "point-b0", "point-a1", "noise"]


@pytest.fixture
def routed(make_agent):
    one = make_agent("Point-4:noise,point-a1,point-a0", seed=1).learn(90)
    other = make_agent("Point-4:point-b0,point-a0", seed=2).learn(90)
    return RoutedAgent(NAMES, [one, other], [0, 1, 0, 0])


def test_each_row_is_played_by_its_tasks_agent(routed):
    draw = np.random.default_rng(0)
    tasks = draw.integers(4, size=20)
    features = draw.normal(size=(20, 4)).astype(np.float32)
    actions, state = routed.predict(
        np.concatenate([features, np.eye(4, dtype=np.float32)[tasks]], axis=1), deterministic=True
    )
    assert state is None
    assert actions.shape == (20, 2)
    places = {0: (0, 2), 1: (1, 0), 2: (0, 1), 3: (0, 0)}  # task -> agent, place in its one-hot
    for row, task in enumerate(tasks):
        index, place = places[task]
        agent = routed.agents[index]
        seen = np.concatenate([features[row], np.eye(agent.n_tasks, dtype=np.float32)[place]])
        np.testing.assert_allclose(actions[row], agent.predict(seen, deterministic=True)[0], rtol=1e-5, atol=1e-6)
    single, _ = routed.predict(np.concatenate([features[0], np.eye(4, dtype=np.float32)[tasks[0]]]), deterministic=True)
    np.testing.assert_allclose(single, actions[0], rtol=1e-5, atol=1e-6)


def test_saved_and_loaded_it_evaluates_the_same(routed, tmp_path):
    routed.save(tmp_path / "agent")
    with zipfile.ZipFile(tmp_path / "agent.zip") as file:
        assert sorted(file.namelist()) == ["data.json", "tensors.safetensors"]
    loaded = load_agent(tmp_path / "agent", "cpu")
    assert isinstance(loaded, RoutedAgent)
    assert (loaded.task_names, loaded.assignment) == (NAMES, [0, 1, 0, 0])
    assert loaded.num_timesteps == routed.num_timesteps == 180
    first, again = (evaluate(agent, make_vec_env("Point-4", seed=7), 2) for agent in (routed, loaded))
    np.testing.assert_array_equal(first.returns, again.returns)


def test_the_loaders_tell_one_kind_from_the_other(routed, tmp_path):
    routed.save(tmp_path / "routed")
    routed.agents[0].save(tmp_path / "single")
    with pytest.raises(ValueError, match=r"use mtrl_transfer\.agents\.load_agent"):
        MTSAC.load(tmp_path / "routed")
    with pytest.raises(ValueError, match=r"use MTSAC\.load"):
        RoutedAgent.load(tmp_path / "single")
    assert isinstance(load_agent(tmp_path / "single", "cpu"), MTSAC)


def test_a_damaged_file_is_told(routed, tmp_path):
    data, tensors = archive.read_archive(_saved(routed, tmp_path))
    archive.write_archive(tmp_path / "damaged", {**data, "agents": [{}, {}]}, tensors)
    with pytest.raises(ValueError, match="is damaged"):
        load_agent(tmp_path / "damaged")


def _saved(agent, folder):
    agent.save(folder / "whole")
    return folder / "whole"


def test_what_does_not_fit_is_told(routed):
    with pytest.raises(ValueError, match="agent 1 is to serve noise, but was trained on point-b0, point-a0"):
        RoutedAgent(NAMES, routed.agents, [0, 1, 0, 1])
    with pytest.raises(ValueError, match="one of 2 agents for each of 4 tasks"):
        RoutedAgent(NAMES, routed.agents, [0, 1, 2, 0])
    with pytest.raises(ValueError, match="width 7; expected 4 features and a one-hot of 4"):
        routed.predict(np.zeros((1, 7)))
