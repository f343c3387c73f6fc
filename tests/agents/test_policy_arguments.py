"""Arguments of the policy, by stable-baselines3's names."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from stable_baselines3 import SAC
from torch import nn

from mtrl_transfer.agents import MTSAC, MultiTaskPolicy
from mtrl_transfer.envs import make_vec_env

Make = Callable[..., MTSAC]


def shapes(network: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in network.named_parameters()}


def test_actor_and_critics_can_differ_in_width(make_agent: Make) -> None:
    policy = make_agent(policy_kwargs={"net_arch": {"pi": [5], "qf": (7, 6)}}).policy
    assert shapes(policy.actor)["trunk.weight0"][-1] == 5
    assert [shapes(policy.critic)[f"trunk.weight{layer}"][-1] for layer in (0, 1)] == [7, 6]


def test_the_smallest_of_all_critics_counts(make_agent: Make) -> None:
    agent = make_agent(policy_kwargs={"net_arch": [8], "n_critics": 3}).learn(90)
    assert len(agent.policy.critic.trunk["weight0"]) == 3
    with torch.no_grad():
        agent.policy.critic_target.heads["bias"][:, 2] = -1e6
    batch = agent.minibatches.critic(agent.minibatches.sample(24, None), agent.learner.noise_generator)
    assert (batch.targets < -1e3).all()


@pytest.mark.parametrize(
    ("given", "stored"),
    [
        ({"activation_fn": nn.LeakyReLU, "optimizer_class": torch.optim.SGD}, ("leaky_relu", "SGD")),
        ({"activation_fn": "silu", "optimizer_class": "AdamW"}, ("silu", "AdamW")),
    ],
)
def test_classes_are_stored_by_name(
    make_agent: Make, tmp_path: Path, given: dict[str, Any], stored: tuple[str, str]
) -> None:
    settings = {"net_arch": (8,), "optimizer_kwargs": {"weight_decay": 0.1}, **given}
    agent = make_agent(policy_kwargs=settings).learn(90)
    agent.save(tmp_path / "agent")
    loaded = MTSAC.load(tmp_path / "agent")
    for one in (agent, loaded):
        assert (one.policy_kwargs["activation_fn"], one.policy_kwargs["optimizer_class"]) == stored
        assert type(one.policy.critic_optimizer) is getattr(torch.optim, stored[1])
        assert one.policy.actor_optimizer.param_groups[0]["weight_decay"] == 0.1


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"wieght_decay": 0.1}, "'wieght_decay', which Adam does not have; did you mean weight_decay?"),
        ({"weight_decay": "much"}, "is refused by Adam: "),
        ({"foreach": True}, "`fused` and `foreach` cannot be `True` together"),
        ({"lr": 0.1}, "should not hold lr, which is the agent's learning_rate"),
    ],
)
def test_what_the_optimizer_does_not_take_is_told(make_agent: Make, given: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=f"policy_kwargs.optimizer_kwargs=.* {re.escape(told)}"):
        make_agent(policy_kwargs={"optimizer_kwargs": given})


class Extended(MultiTaskPolicy):
    """A policy with an argument of its own."""

    def __init__(self, *args: Any, temperature: float = 1.0, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.temperature = temperature


def test_a_subclass_may_have_arguments(make_agent: Make) -> None:
    agent = make_agent()
    make = lambda **settings: MTSAC(Extended, agent.get_env(), batch_size=24, policy_kwargs=settings)  # noqa: E731
    model = make(net_arch=[8], temperature=2.0)
    assert (model.policy.temperature, model.policy.actor.width) == (2.0, 8)
    with pytest.raises(ValueError, match="net_arch=8 should be"):
        make(net_arch=8)
    with pytest.raises(ValueError, match="cannot be stored"):
        make(temperature=nn.ReLU)


def test_arguments_that_sac_has_written_to() -> None:
    """SB3's SAC adds ``use_sde=False`` to the dict it is given."""
    env, arguments = make_vec_env("Point-3"), {"net_arch": [4]}
    SAC("MlpPolicy", env, policy_kwargs=arguments, buffer_size=30)
    assert "use_sde" in arguments
    agent = MTSAC("MultiTaskPolicy", env, policy_kwargs=arguments, buffer_size=30)
    assert agent.policy_kwargs == {"net_arch": [4]}
    with pytest.raises(ValueError, match="use_sde"):
        MTSAC("MultiTaskPolicy", env, policy_kwargs={"use_sde": True}, buffer_size=30)
