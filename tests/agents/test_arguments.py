"""Arguments of MTSAC: by SB3's names, declared once, checked alike in Python and in configs, stored and loaded."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from stable_baselines3 import SAC
from stable_baselines3.common.utils import ConstantSchedule, FloatSchedule, LinearSchedule

from mtrl_transfer.agents import (
    MTSAC,
    MeasureTransference,
    MultiTaskEvalCallback,
    RecordTransference,
    ResetNetworks,
    ReweightTasks,
    TransferenceFigures,
)
from mtrl_transfer.agents.runs.config.loading import load_config
from mtrl_transfer.agents.runs.errors import InputError
from mtrl_transfer.envs import make_vec_env

Make = Callable[..., MTSAC]


def test_positional_arguments_are_sacs():
    def positional(cls: type) -> list[str]:
        parameters = inspect.signature(cls).parameters.values()
        return [one.name for one in parameters if one.kind is one.POSITIONAL_OR_KEYWORD]

    assert positional(SAC)[: len(positional(MTSAC))] == positional(MTSAC)


def test_every_argument_of_sac_is_known_or_explained(make_agent: Make):
    for name in set(inspect.signature(SAC).parameters) - {
        "policy",
        "env",
        "_init_setup_model",
        *MTSAC.arguments.model_fields,
    }:
        with pytest.raises(TypeError, match=f"MTSAC has no argument {name}; (exploration|replay)"):
            make_agent(**{name: None})


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"initial_alpha": 0.1}, "initial_alpha; use ent_coef='auto_0.1'"),
        ({"measure_every": 5}, "measure_every; use the callback MeasureTransference"),
        ({"net_arch": [8]}, "net_arch; use policy_kwargs"),
        ({"gama": 0.9, "use_sde": True}, "gama; did you mean gamma.*; MTSAC has no argument use_sde; exploration"),
    ],
)
def test_unknown_arguments_say_what_to_use(make_agent: Make, given: dict[str, Any], told: str):
    with pytest.raises(TypeError, match=told):
        make_agent(**given)


@pytest.mark.parametrize("policy", ["MlpPolicy", SAC.policy_aliases["MlpPolicy"], None])
def test_policies_of_sac_are_refused_by_name(policy: Any):
    with pytest.raises(ValueError, match=r"policy=.* should be 'MultiTaskPolicy'"):
        MTSAC(policy, make_vec_env("Point-3"))


@pytest.mark.parametrize("schedule", [lambda: 0.1, lambda rest: None, lambda rest: -rest, lambda rest: "much"])
def test_functions_that_give_no_rate_are_refused(make_agent: Make, schedule: Any):
    with pytest.raises(ValueError, match=r"learning_rate=.* should be a number of at least 0, or a function"):
        make_agent(learning_rate=schedule)


BAD = [
    ("max_grad_norm", -1),
    ("max_grad_norm", 0),
    ("buffer_size", 0),
    ("buffer_size", 24.5),
    ("tau", 2.0),
    ("gamma", 1.5),
    ("ent_coef", "auto_-1"),
    ("train_freq", 0),
    ("batch_size", 25),
    ("target_update_interval", 0),
    ("reward_scaling", "max"),
    ("n_steps", True),
]


@pytest.mark.parametrize(("name", "value"), BAD, ids=str)
def test_python_and_configs_refuse_alike(make_agent: Make, name: str, value: Any):
    with pytest.raises(ValueError, match=f"^{name}=") as in_python:
        make_agent(**{name: value})
    settings = {"env.id": "Point-3", "agent.batch_size": 24, f"agent.{name}": value}
    with pytest.raises(InputError) as in_config:
        load_config("point", [f"{key}={setting}" for key, setting in settings.items()])
    assert str(in_config.value) == f"agent.{in_python.value}"


BAD_CALLBACKS = [
    (MeasureTransference, {"every": "x"}),
    (MeasureTransference, {"affinity_rows": 2.5}),
    (ResetNetworks, {"at": 5}),
    (ResetNetworks, {"at": [5], "share": "x"}),
    (ReweightTasks, {"rank": None}),
    (MultiTaskEvalCallback, {"eval_env": make_vec_env("Point-3"), "eval_freq": "x"}),
    (MultiTaskEvalCallback, {"eval_env": make_vec_env("Point-3"), "n_eval_episodes": 0}),
    (TransferenceFigures, {"every": None}),
    (RecordTransference, {"path": "here", "every": "x"}),
]


@pytest.mark.parametrize(
    ("callback", "given"), BAD_CALLBACKS, ids=lambda one: getattr(one, "__name__", None) or [*one][-1]
)
def test_callbacks_refuse_wrong_arguments_when_made(callback: Any, given: dict[str, Any]):
    *_, (name, value) = given.items()
    with pytest.raises(ValueError, match=f"^{name}={value!r} (must|should) be"):
        callback(**given)


def test_exact_numbers_of_another_type_are_taken(make_agent: Make):
    agent = make_agent(buffer_size=3e3, batch_size=24.0, learning_starts=np.int64(60), gamma=np.float64(0.9), tau=1)
    taken = agent.buffer_size, agent.batch_size, agent.learning_starts, agent.gamma
    assert taken == (3_000, 24, 60, 0.9)
    assert [type(value) for value in taken] == [int, int, int, float]


def test_a_path_is_stored_as_text(make_agent: Make, tmp_path: Path):
    agent = make_agent(tensorboard_log=tmp_path / "logs").learn(70)
    agent.save(tmp_path / "agent")
    assert MTSAC.load(tmp_path / "agent").tensorboard_log == str(tmp_path / "logs")


@pytest.mark.parametrize("combiner_kwargs", [{"rates": torch.ones(3)}, {"rates": {1, 2}}, {"rates": print}])
def test_what_a_file_cannot_hold_is_refused_at_once(make_agent: Make, combiner_kwargs: dict[str, Any]):
    with pytest.raises(ValueError, match=r"combiner_kwargs=.* holds rates=.*, which cannot be stored"):
        make_agent(combiner="random_drop", combiner_kwargs=combiner_kwargs)


def test_arrays_become_lists(make_agent: Make, tmp_path: Path):
    agent = make_agent(combiner="random_drop", combiner_kwargs={"rates": np.array([0.1, 0.2, 0.3])})
    agent.save(tmp_path / "agent")
    assert MTSAC.load(tmp_path / "agent").combiner_kwargs == {"rates": [0.1, 0.2, 0.3]}


@pytest.mark.parametrize(
    "schedule",
    [
        ConstantSchedule(0.01),
        FloatSchedule(0.01),
        FloatSchedule(LinearSchedule(0.02, 0.01, 0.5)),
        LinearSchedule(0.02, 0.01, 1.0),
    ],
    ids=str,
)
def test_schedules_of_sb3_come_back(make_agent: Make, tmp_path: Path, schedule: Any):
    make_agent(learning_rate=schedule).save(tmp_path / "agent")
    loaded = MTSAC.load(tmp_path / "agent").learning_rate
    assert repr(loaded) == repr(schedule)
    assert [loaded(rest) for rest in (1.0, 0.6, 0.0)] == [schedule(rest) for rest in (1.0, 0.6, 0.0)]


def test_a_function_as_schedule_is_asked_for_again(make_agent: Make, tmp_path: Path):
    make_agent(learning_rate=lambda rest: 0.01 * rest).save(tmp_path / "agent")
    with pytest.warns(UserWarning, match="schedule .* is not stored; 3e-4 is used"):
        assert MTSAC.load(tmp_path / "agent").learning_rate == 3e-4
    assert MTSAC.load(tmp_path / "agent", learning_rate=0.5).learning_rate == 0.5


@pytest.mark.parametrize("ent_coef", [0.2, 0.0])
def test_a_fixed_temperature_stays(make_agent: Make, tmp_path: Path, ent_coef: float):
    agent = make_agent(ent_coef=ent_coef).learn(120)
    agent.save(tmp_path / "agent")
    for one in (agent, MTSAC.load(tmp_path / "agent")):
        torch.testing.assert_close(one.temperatures.alphas, torch.full((3, 1), ent_coef))
        assert one.temperatures.optimizer is None
        one.set_parameters(agent.get_parameters())


@pytest.mark.parametrize(("ent_coef", "start"), [("auto", 1.0), ("auto_0.003", 0.003), ("auto_2", 2.0)])
def test_a_trained_temperature_starts_where_it_is_told(make_agent: Make, ent_coef: str, start: float):
    agent = make_agent(ent_coef=ent_coef)
    torch.testing.assert_close(agent.temperatures.alphas, torch.full((3, 1), start))
    agent.learn(120)
    assert not torch.isclose(agent.temperatures.alphas, torch.tensor(start)).any()


def test_targets_move_at_their_interval(make_agent: Make):
    agent = make_agent(target_update_interval=4, tau=1.0).learn(60)
    target, critic = (network.trunk["weight0"] for network in (agent.policy.critic_target, agent.policy.critic))
    moved = []
    for _ in range(8):
        before = target.clone()
        agent.train(1, 24)
        moved.append(not torch.equal(before, target))
        assert torch.equal(target, critic) == moved[-1]
    assert sum(moved) == 2
    assert moved[:4] == moved[4:]
