"""What MTSAC's arguments must be."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mtrl_transfer.agents.mtsac.reward_scaling import REWARD_SCALINGS
from mtrl_transfer.choices import check_choice

if TYPE_CHECKING:
    from mtrl_transfer.agents.mtsac.mtsac import MTSAC


def check_arguments(agent: MTSAC) -> None:
    """Refuse arguments that are out of range, or do not go together.

    Raises:
        ValueError: naming the argument, its value and what was expected.
    """
    if not agent.n_tasks:
        raise ValueError("MTSAC needs an environment: the number of tasks is read from it")
    if len(agent.action_space.shape or ()) != 1:
        raise ValueError(f"actions of shape {list(agent.action_space.shape or ())} must be vectors: flatten them")
    assert agent.batch_size is not None
    if agent.batch_size < agent.n_tasks or agent.batch_size % agent.n_tasks:
        below = agent.batch_size // agent.n_tasks * agent.n_tasks
        near = [str(size) for size in (below, below + agent.n_tasks) if size > 0]
        raise ValueError(
            f"batch_size={agent.batch_size} must be a multiple of the {agent.n_tasks} tasks, so that every task has "
            f"as many rows; near: {' or '.join(near)}"
        )
    if agent.reward_scaling is not None:
        check_choice("reward_scaling", agent.reward_scaling, REWARD_SCALINGS)
    if agent.reward_scaling == "max_reward" and agent.gamma == 1:
        raise ValueError("reward_scaling='max_reward' needs gamma below 1: it divides by 1 - gamma")
    if agent.clip_targets and agent.gamma == 1:
        raise ValueError("clip_targets needs gamma below 1: it divides by 1 - gamma")
    if isinstance(agent.target_entropy, str):
        check_choice("target_entropy", agent.target_entropy, ["auto"])
    for name in ("max_nonfinite", "n_steps"):
        if getattr(agent, name) < 1:
            raise ValueError(f"{name}={getattr(agent, name)} must be at least 1")
    rows = agent.batch_size // agent.n_tasks
    if agent.affinity_rows is not None and not 1 < agent.affinity_rows <= rows:
        raise ValueError(f"affinity_rows={agent.affinity_rows} must be 2 to {rows}, the rows of each task")
    for name in ("measure_every", "affinity_every"):
        every = getattr(agent, name)
        if every is not None and every < 1:
            raise ValueError(f"{name}={every} must be at least 1, or None for never")
    if not 0 <= agent.exploration_correlation < 1:
        raise ValueError(f"exploration_correlation={agent.exploration_correlation} must be at least 0 and below 1")
    if not agent.initial_alpha > 0:
        raise ValueError(f"initial_alpha={agent.initial_alpha} must be positive")
