"""What a stored agent may say of itself, looked at before anything is made of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

ARGUMENTS = (
    "learning_rate",
    "buffer_size",
    "learning_starts",
    "batch_size",
    "tau",
    "gamma",
    "n_steps",
    "train_freq",
    "gradient_steps",
    "max_grad_norm",
    "max_nonfinite",
    "combiner",
    "combiner_kwargs",
    "measure_every",
    "affinity_every",
    "affinity_rows",
    "reward_scaling",
    "clip_targets",
    "reweighting_rank",
    "reweighting_every",
    "target_entropy",
    "initial_alpha",
    "exploration_correlation",
    "overlap",
    "cuda_graph",
    "policy_kwargs",
    "tensorboard_log",
    "verbose",
    "seed",
)
COUNTERS = (
    "num_timesteps",
    "_total_timesteps",
    "_current_progress_remaining",
    "_episode_num",
    "_n_updates",
    "updates_due",
    "timing",
)
MAX_TRANSITIONS = 10**9
MAX_TASKS = 10_000
LIES = (KeyError, TypeError, AttributeError, IndexError, AssertionError, ArithmeticError, RuntimeError)
"""What making an agent of data that passed all checks, and yet describes none, may raise besides ValueError."""


def check_archive(data: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    """Refuse what no agent of ours says: unknown names, sizes that its own tensors belie, numbers that are none.

    Raises:
        ValueError: naming what is wrong.
        KeyError, TypeError: where a part is missing or of another kind.
    """
    arguments, names = data["arguments"], data["task_names"]
    unknown = sorted(set(arguments) - {*ARGUMENTS, "_stats_window_size"}) + sorted(
        set(data["counters"]) - set(COUNTERS)
    )
    if unknown:
        raise ValueError(f"it sets {', '.join(map(repr, unknown))}, which agents do not have")
    if not 1 <= len(names) <= MAX_TASKS or not all(isinstance(name, str) for name in names):
        raise ValueError(f"task_names should be 1 to {MAX_TASKS} names")
    if not isinstance(data["policy"], str):
        raise ValueError("the policy should be a name")
    size, window = arguments["buffer_size"], arguments["_stats_window_size"]
    if not (1 <= size <= MAX_TRANSITIONS and 1 <= window <= MAX_TRANSITIONS):
        raise ValueError(f"buffer_size={size} and stats_window_size={window} should be 1 to {MAX_TRANSITIONS:,}")
    _check_widths(arguments["policy_kwargs"] or {}, sum(tensor.numel() for tensor in tensors.values()))
    for name, tensor in tensors.items():
        if name.startswith(("agent.policy", "agent.log_alpha")) and not tensor.isfinite().all():
            raise ValueError(f"{name} holds nan or infinity: the agent is broken")


def _check_widths(policy_kwargs: Mapping[str, Any], there: int) -> None:
    """A network is not made where the file cannot hold its parameters."""
    net_arch = policy_kwargs.get("net_arch") or [1]
    for widths in net_arch.values() if isinstance(net_arch, dict) else [net_arch]:
        needed = sum(int(one) * int(next_one) for one, next_one in zip([1, *widths], widths, strict=False))
        if needed > there:
            raise ValueError(f"net_arch={net_arch} needs more than the {there:,} numbers that are stored")
