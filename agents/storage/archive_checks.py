"""Checks of a stored agent's data, before anything is made of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Set
from contextlib import contextmanager
from typing import Any

from torch import Tensor

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
INCONSISTENT_ARCHIVE_ERRORS = (
    KeyError,
    TypeError,
    AttributeError,
    IndexError,
    AssertionError,
    ArithmeticError,
    RuntimeError,
)
"""Raised, besides ValueError, when valid-looking data cannot be turned into an agent."""


@contextmanager
def blamed_on(subject: str) -> Iterator[None]:
    """Turn `INCONSISTENT_ARCHIVE_ERRORS` into one ValueError that begins with ``subject``."""
    try:
        yield
    except INCONSISTENT_ARCHIVE_ERRORS as error:
        # The second line of torch's messages often names the parameter.
        cause = " ".join(f"{type(error).__name__}: {error}".split("\n")[:2]).replace("\t", " ")
        raise ValueError(f"{subject}: {cause}") from error


def check_archive(data: Mapping[str, Any], tensors: Mapping[str, Tensor], known: Set[str]) -> None:
    """Refuse unknown names, sizes that do not fit the stored tensors, and parameters that are not finite.

    Args:
        data: data of the archive.
        tensors: tensors of the archive.
        known: names of the stored arguments.

    Raises:
        ValueError: naming what is wrong.
        KeyError, TypeError: if a part is missing or of another type.
    """
    arguments, names = data["arguments"], data["task_names"]
    unknown = sorted(set(arguments) - known) + sorted(set(data["counters"]) - set(COUNTERS))
    if unknown:
        raise ValueError(f"it sets {', '.join(map(repr, unknown))}, which agents do not have")
    if not 1 <= len(names) <= MAX_TASKS or not all(isinstance(name, str) for name in names):
        raise ValueError(f"task_names should be 1 to {MAX_TASKS} names")
    if not isinstance(data["policy"], str):
        raise ValueError("the policy should be a name")
    size, window = arguments["buffer_size"], arguments["stats_window_size"]
    if not (1 <= size <= MAX_TRANSITIONS and 1 <= window <= MAX_TRANSITIONS):
        raise ValueError(f"buffer_size={size} and stats_window_size={window} should be 1 to {MAX_TRANSITIONS:,}")
    check_widths(arguments["policy_kwargs"] or {}, tensors)
    check_parameters(
        {name: one for name, one in tensors.items() if name.startswith(("agent.policy", "agent.temperatures.log_"))}
    )


def check_parameters(tensors: Mapping[str, Tensor]) -> None:
    """Refuse parameters that are not finite."""
    for name, tensor in tensors.items():
        if not tensor.isfinite().all():
            raise ValueError(f"{name} holds nan or infinity: the agent is broken")


def check_widths(policy_kwargs: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    """Refuse a network that has more parameters than there are numbers in the file."""
    net_arch, there = policy_kwargs.get("net_arch") or [1], sum(tensor.numel() for tensor in tensors.values())
    for widths in net_arch.values() if isinstance(net_arch, dict) else [net_arch]:
        needed = sum(int(one) * int(next_one) for one, next_one in zip([1, *widths], widths, strict=False))
        if needed > there:
            raise ValueError(f"net_arch={net_arch} needs more than the {there:,} numbers that are stored")
