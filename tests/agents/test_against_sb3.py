"""With one task MTSAC's losses are SB3's SAC's: same parameters, rows and noise."""

from __future__ import annotations

import gymnasium as gym
import pytest
import torch
import torch.nn.functional as F
from stable_baselines3 import SAC
from torch import Tensor

from mtrl_transfer.agents import MTSAC
from mtrl_transfer.agents.mtsac.losses import ActorBatch, ActorLoss, CriticBatch, CriticLoss, td_targets
from mtrl_transfer.agents.mtsac.networks import MultiTaskMLP
from mtrl_transfer.envs import make_vec_env

B, ALPHA, GAMMA = 64, 0.3, 0.97


@pytest.fixture
def agents() -> tuple[SAC, MTSAC]:
    make = lambda: gym.make("Pendulum-v1")  # noqa: E731
    arch = [16, 12]
    theirs = SAC(
        "MlpPolicy", make(), policy_kwargs={"net_arch": arch}, gamma=GAMMA, seed=0, device="cpu", buffer_size=10
    )
    ours = MTSAC(
        "MultiTaskPolicy", make_vec_env({"pendulum": make}), policy_kwargs={"net_arch": arch}, gamma=GAMMA, seed=1
    )
    actor = theirs.actor
    heads = [torch.cat([actor.mu.weight, actor.log_std.weight]), torch.cat([actor.mu.bias, actor.log_std.bias])]
    copy_linears(ours.policy.actor, [[actor.latent_pi[0], actor.latent_pi[2]]], [heads])
    for own, critic in ((ours.policy.critic, theirs.critic), (ours.policy.critic_target, theirs.critic_target)):
        nets = [critic.qf0, critic.qf1]
        copy_linears(own, [[net[0], net[2]] for net in nets], [[net[4].weight, net[4].bias] for net in nets])
    return theirs, ours


@torch.no_grad()
def copy_linears(own: MultiTaskMLP, trunks: list[list[torch.nn.Linear]], heads: list[list[Tensor]]) -> None:
    for net, (layers, (weight, bias)) in enumerate(zip(trunks, heads, strict=True)):
        for layer, linear in enumerate(layers):
            own.trunk[f"weight{layer}"][net] = linear.weight.T
            own.trunk[f"bias{layer}"][net, 0] = linear.bias
        own.heads["weight"][0, net], own.heads["bias"][0, net, 0] = weight.T, bias


def sb3_sample(theirs: SAC, observations: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """SB3's action and log-probability, and the noise behind them."""
    mean, log_std, _ = theirs.actor.get_action_dist_params(observations)
    action, log_prob = theirs.actor.action_log_prob(observations)
    unsquashed = theirs.actor.action_dist.gaussian_actions
    return action, log_prob, ((unsquashed - mean) / log_std.exp()).detach()


def test_losses_and_gradients_equal_sb3s(agents: tuple[SAC, MTSAC]) -> None:
    theirs, ours = agents
    generator = torch.Generator().manual_seed(0)
    observations, following = torch.randn(2, B, 3, generator=generator)
    actions, rewards = torch.rand(B, 1, generator=generator) * 2 - 1, torch.randn(B, generator=generator)
    ended = (torch.rand(B, generator=generator) < 0.3).float()
    alphas = torch.full((1, 1), ALPHA)

    with torch.no_grad():
        next_actions, next_log_probs, noise = sb3_sample(theirs, following)
        values = torch.cat(theirs.critic_target(following, next_actions), dim=1).min(dim=1).values
        targets = rewards + (1 - ended) * GAMMA * (values - ALPHA * next_log_probs)
    policy = ours.policy
    own = td_targets(
        policy.actor,
        policy.critic_target,
        following[None],
        rewards[None],
        GAMMA * (1 - ended[None]),
        noise[None],
        alphas,
    )
    torch.testing.assert_close(own[0], targets, rtol=1e-4, atol=1e-4)

    loss = 0.5 * sum(F.mse_loss(value[:, 0], targets) for value in theirs.critic(observations, actions))
    rows = CriticLoss(policy.critic)(CriticBatch(observations[None], actions[None], targets[None]))
    assert_equal_gradients(rows.losses.mean(), policy.critic, loss, theirs.critic.qf0[0].weight)

    action, log_probs, noise = sb3_sample(theirs, observations)
    values = torch.cat(theirs.critic(observations, action), dim=1).min(dim=1).values
    loss = (ALPHA * log_probs - values).mean()
    own_rows = ActorLoss(policy.actor, policy.critic)(ActorBatch(observations[None], noise[None], alphas))
    assert_equal_gradients(own_rows.losses.mean(), policy.actor, loss, theirs.actor.latent_pi[0].weight)


def assert_equal_gradients(own: Tensor, network: MultiTaskMLP, loss: Tensor, weight: Tensor) -> None:
    torch.testing.assert_close(own, loss, rtol=1e-4, atol=1e-5)
    (expected,), (found,) = torch.autograd.grad(loss, [weight]), torch.autograd.grad(own, [network.trunk["weight0"]])
    torch.testing.assert_close(found[0].T, expected, rtol=1e-3, atol=1e-5)
