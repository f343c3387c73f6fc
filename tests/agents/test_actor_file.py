"""An actor in a file of its own plays exactly as the agent does; what is not sound is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch

from mtrl_transfer.agents import MTSAC, evaluate, load_actor, save_actor
from mtrl_transfer.envs import make_vec_env

KWARGS: dict[str, Any] = {
    "plain": {},
    "everything": {
        "activation_fn": "silu",
        "layer_norm": True,
        "one_hot_in_trunk": True,
        "alignment": "joint",
        "standardize_inputs": True,
        "actor_tau": 0.1,
    },
}


def trained(**policy_kwargs: Any) -> MTSAC:
    model = MTSAC(
        "MultiTaskPolicy",
        make_vec_env("Point-3"),
        combiner="mean",
        batch_size=12,
        learning_starts=30,
        policy_kwargs={"net_arch": [5, 4], **policy_kwargs},
        seed=0,
    )
    return model.learn(60)


@pytest.fixture(scope="module")
def model() -> MTSAC:
    return trained()


@pytest.fixture
def saved(model: MTSAC, tmp_path: Path) -> Path:
    save_actor(model, tmp_path / "new" / "actor.safetensors", env={"id": "Point-3"})
    return tmp_path / "new" / "actor.safetensors"


@pytest.mark.parametrize("name", KWARGS)
def test_plays_exactly_as_the_agent(name: str, tmp_path: Path):
    model = trained(**KWARGS[name])
    save_actor(model, tmp_path / "actor.safetensors")
    actor = load_actor(tmp_path / "actor.safetensors")
    rows = np.random.default_rng(0).normal(size=(7, model.observation_space.shape[0])).astype(np.float32)
    np.testing.assert_array_equal(actor.predict(rows)[0], model.predict(rows, deterministic=True)[0])
    np.testing.assert_array_equal(actor.predict(rows[0])[0], model.predict(rows[0], deterministic=True)[0])


def test_evaluates_as_the_agent(model: MTSAC, saved: Path):
    actor = load_actor(saved)
    assert (actor.task_names, actor.num_timesteps, actor.env) == (model.task_names, 60, {"id": "Point-3"})
    results = [evaluate(player, make_vec_env("Point-3", seed=1), 1).returns for player in (actor, model)]
    np.testing.assert_array_equal(*results)


def test_refuses_what_an_actor_cannot_do(saved: Path):
    with pytest.raises(ValueError, match="only the deterministic policy"):
        load_actor(saved).predict(np.zeros(7), deterministic=False)
    with pytest.raises(ValueError, match="width 3"):
        load_actor(saved).predict(np.zeros(3))


def changed(path: Path, tensors: dict[str, torch.Tensor | None], **about: Any) -> Path:
    """The file with other tensors (None: without it) and other metadata."""
    with safetensors.safe_open(path, "pt") as file:
        data = json.loads(file.metadata()["actor"])
    stored = {**safetensors.torch.load_file(path), **tensors}
    kept = {name: value for name, value in stored.items() if value is not None}
    safetensors.torch.save_file(kept, path, {"actor": json.dumps({**data, **about})})
    return path


@pytest.mark.parametrize(
    ("tensors", "about", "reason"),
    [
        ({}, {"format": 2}, "format 2"),
        ({}, {"task_names": ["a", "b"]}, "another shape"),
        ({}, {"task_names": None}, "TypeError"),
        ({}, {"network": {"activation": "evil"}}, "KeyError"),
        ({}, {"observation_space": {"shape": [10**12]}}, "do not fit"),
        ({"heads.bias": None}, {}, "heads.bias"),
        ({"heads.weight": None}, {}, "heads.weight"),
        ({"more": torch.zeros(1)}, {}, "more"),
        ({"trunk.bias0": torch.full((1, 1, 5), torch.nan)}, {}, "nan"),
        ({"trunk.bias0": torch.zeros(1, 1, 5, dtype=torch.float64)}, {}, "trunk.bias0"),
        ({"trunk.weight1": torch.zeros(1, 0, 10**6), "trunk.weight2": torch.zeros(1, 0, 10**9)}, {}, "another shape"),
    ],
)
def test_damaged_files_are_refused(saved: Path, tensors: dict, about: dict, reason: str):
    with pytest.raises(ValueError, match=f"is damaged, or no actor.*{reason}"):
        load_actor(changed(saved, tensors, **about))


def test_other_files_are_refused(tmp_path: Path):
    with pytest.raises(FileNotFoundError):
        load_actor(tmp_path / "nothing.safetensors")
    other = tmp_path / "other.safetensors"
    for content in (b"", b"not safetensors", safetensors.torch.save({"a": torch.zeros(2)})):
        other.write_bytes(content)
        with pytest.raises(ValueError, match="no actor saved by save_actor"):
            load_actor(other)
