"""Layout of scalars in TensorBoard, for people who have never seen the code."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

TENSORBOARD_ONLY = ("stdout", "log", "json", "csv")
"""Outputs of SB3's logger that get no figures, for ``exclude``."""

LAYOUT: dict[str, dict[str, tuple[str, ...]]] = {
    "1 success": {
        "mean success (evaluation, training)": ("success/mean", "train_success/mean"),
        "success by task (evaluation)": ("success/{task}",),
        "success by task (training)": ("train_success/{task}",),
        "mean return": ("return/mean", "train_return/mean"),
        "return by task (evaluation)": ("return/{task}",),
    },
    "2 learning health": {
        "critic loss": ("critic_loss/{task}",),
        "Q": ("q/{task}",),
        "policy entropy": ("entropy/{task}",),
        "temperature α": ("alpha/{task}",),
        "norm of the critic's task gradients": ("grad_norm_critic/{task}",),
        "norm of the actor's task gradients": ("grad_norm_actor/{task}",),
        "spread of the critic's features": ("feature_spread_critic/{task}",),
        "spread of the actor's features": ("feature_spread_actor/{task}",),
    },
    "3 transference": {
        "predicted against realised improvement (correlation)": (
            "transference/critic_correlation",
            "transference/actor_correlation",
            "transference/critic_correlation_first_order",
            "transference/actor_correlation_first_order",
        ),
        "exact and first order choose alike (share)": ("transference/critic_agreement", "transference/actor_agreement"),
        "likeness of data and transference (rank correlation)": (
            "transference/critic_input_similarity_correlation",
            "transference/critic_feature_similarity_correlation",
            "transference/actor_input_similarity_correlation",
            "transference/actor_feature_similarity_correlation",
        ),
        "kept by the critic (share of updates)": ("kept_critic/{task}",),
        "kept by the actor (share of updates)": ("kept_actor/{task}",),
        "what a task gives all others, critic": ("given_critic/{task}",),
        "what a task gives all others, actor": ("given_actor/{task}",),
    },
    "4 cost": {
        "seconds so far": (
            "time/environment_seconds",
            "time/update_seconds",
            "time/transference_seconds",
            "time/evaluation_seconds",
            "time/logging_seconds",
        ),
        "share of logging and figures in the time of training": ("time/logging_share",),
        "transitions per second": ("time/fps",),
        "updates per second": ("time/updates_per_second",),
    },
}
"""Categories, their charts and the charts' tags: success first, then learning health, transference and cost."""


def scalar_layout(task_names: Sequence[str]) -> dict[str, dict[str, list[Any]]]:
    """TensorBoard's *Custom Scalars*: `LAYOUT` with a line for each task.

    Args:
        task_names: in order.

    Returns:
        Category -> chart -> ``["Multiline", tags]``, as ``SummaryWriter.add_custom_scalars`` takes it.
    """

    def lines(tag: str) -> list[str]:
        return [tag.format(task=name) for name in task_names] if "{task}" in tag else [tag]

    return {
        category: {
            title: ["Multiline", [line for tag in tags for line in lines(tag)]] for title, tags in charts.items()
        }
        for category, charts in LAYOUT.items()
    }
