"""A combiner each for the critic and the actor."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from mtrl_transfer import PCGrad
from mtrl_transfer.agents import MTSAC
from mtrl_transfer.agents.mtsac.roles import role_combiners
from mtrl_transfer.agents.runs.config.loading import load_config
from mtrl_transfer.agents.runs.errors import InputError

MIXED = {"critic": {"name": "famo", "decay": 0.5}, "actor": "pcgrad"}


def shown(combiner: Any, kwargs: dict[str, Any] | None = None) -> list[str]:
    return [repr(one) for one in role_combiners(combiner, kwargs, count()).values()]


def test_roles_may_have_combiners_of_different_kinds() -> None:
    expected = ["FAMO(learning_rate=0.025, decay=0.5)", "PCGrad()"]
    assert shown(MIXED) == expected
    assert shown("mean", MIXED) == expected


def test_common_arguments_go_with_the_common_name() -> None:
    found = shown("famo", {"decay": 0.5, "actor": {"learning_rate": 0.1}})
    assert found == ["FAMO(learning_rate=0.025, decay=0.5)", "FAMO(learning_rate=0.1, decay=0.5)"]
    assert shown("famo", {"decay": 0.5, "actor": "pcgrad"}) == ["FAMO(learning_rate=0.025, decay=0.5)", "PCGrad()"]


def test_arguments_of_a_measure_are_amended_one_by_one() -> None:
    kwargs = {"measure": {"rows": 8, "step_size": 0.1}, "critic": {"measure": {"rows": 32}}}
    critic, actor = shown("transference", kwargs)
    assert "Exact(rows=32, held_out=True, step_size=0.1)" in critic
    assert "Exact(rows=8, held_out=True, step_size=0.1)" in actor


@pytest.mark.parametrize(
    ("combiner", "kwargs", "message"),
    [
        ({"critic": "mean"}, None, "a dict with one name each for critic and actor"),
        (MIXED, {"decay": 1.0}, "combiner_kwargs=.* go with a combiner's name"),
        (PCGrad(), {"decay": 1.0}, "combiner_kwargs=.* go with a combiner's name"),
        ("mean", {"critic": 3}, "critic=3 must be a combiner's name, or a dict"),
        ({"critic": "mean", "actor": "pcgrd"}, None, "did you mean pcgrad"),
    ],
)
def test_bad_roles(combiner: Any, kwargs: dict[str, Any] | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        role_combiners(combiner, kwargs, count())


def test_an_agent_with_mixed_combiners_is_saved_and_loaded(make_agent: Callable[..., MTSAC], tmp_path: Path) -> None:
    agent = make_agent(combiner=MIXED)
    agent.learn(69)
    agent.save(tmp_path / "agent")
    loaded = MTSAC.load(tmp_path / "agent", env=agent.get_env())
    found = [repr(update.combiner) for update in loaded.learner.updates.values()]
    assert found == shown(MIXED)


def test_a_config_names_both_combiners() -> None:
    config = load_config("point", ["combiner={critic: {name: famo, decay: 0.5}, actor: pcgrad}"])
    assert (config.combiner.critic, config.combiner.actor) == ({"name": "famo", "decay": 0.5}, {"name": "pcgrad"})
    assert config.combiner.label == "famo+pcgrad"
    for wrong, told in (("actor: pcgrd", "did you mean pcgrad"), ("actor: {name: pcgrad, decay: 1}", "actor.decay")):
        with pytest.raises(InputError, match=told):
            load_config("point", [f"combiner={{critic: famo, {wrong}}}"])


@pytest.mark.parametrize(
    ("combiner", "kwargs", "told"),
    [
        ("random_drop", {"rates": [0.1, 0.2]}, "rates has 2 entries for 3 tasks"),
        ("transference", {"candidates": [[0, 3]]}, "candidates names task 3, but tasks are numbered 0 to 2"),
        ("transference", {"candidates": ["mean", [5]]}, "candidates names task 5"),
        ("transference", {"scale": "ratio"}, "scale='ratio' needs positive losses and these are signed"),
    ],
    ids=["rates", "subset", "mixed", "scale"],
)
def test_combiners_that_do_not_suit_are_refused_when_made(make_agent: Any, combiner: str, kwargs: Any, told: str):
    with pytest.raises(ValueError, match=told):
        make_agent(combiner=combiner, combiner_kwargs=kwargs)
