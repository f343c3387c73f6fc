"""Checks of MTSAC's arguments: each by its declaration, then against each other and the number of tasks."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from mtrl_transfer.agents.declarations import checked
from mtrl_transfer.agents.mtsac.policies import checked_policy_kwargs
from mtrl_transfer.choices import did_you_mean

if TYPE_CHECKING:
    from mtrl_transfer.agents.mtsac.mtsac import MTSAC

ROWS_PER_TASK = 128
ATTRIBUTES = {"stats_window_size": "_stats_window_size"}
"""Where stable-baselines3 keeps an argument under another name."""
_RAW = "replay is MultiTaskReplayBuffer, which stores raw rewards in float32"
_NOISE = "exploration noise is the policy's own; exploration_correlation=0.9 makes it correlated in time"
HINTS = {
    "initial_alpha": "use ent_coef='auto_0.1', with your value",
    "measure_every": "use the callback MeasureTransference(every=...)",
    "affinity_every": "use the callback MeasureTransference(affinity_every=...)",
    "affinity_rows": "use the callback MeasureTransference(affinity_rows=...)",
    "reweighting_rank": "use the callback ReweightTasks(rank=...)",
    "reweighting_every": "use the callback ReweightTasks(every=...)",
    "action_noise": _NOISE,
    "use_sde": _NOISE,
    "sde_sample_freq": _NOISE,
    "use_sde_at_warmup": _NOISE,
    "replay_buffer_class": _RAW,
    "replay_buffer_kwargs": f"{_RAW}; n_steps, gamma and buffer_size are arguments of MTSAC",
    "optimize_memory_usage": f"{_RAW}; a smaller buffer_size saves memory",
    "net_arch": "use policy_kwargs={'net_arch': ...}",
    "activation_fn": "use policy_kwargs={'activation_fn': ...}",
    "critic_net_arch": "use net_arch={'pi': [...], 'qf': [...]}",
    "activation": "use activation_fn",
    "monitor_wrapper": "monitoring is the environment's: make_vec_env adds it",
}
"""Arguments of stable-baselines3's SAC that MTSAC lacks, and of earlier versions: what to use instead."""


def refuse_unknown(names: Iterable[str], known: Iterable[str]) -> None:
    """Refuse arguments that MTSAC does not have.

    Raises:
        TypeError: with a sentence for each, which says what to use instead.
    """
    problems, known = [], list(known)
    for name in names:
        hint = f"; {HINTS[name]}" if name in HINTS else did_you_mean(name, known)
        problems.append(f"MTSAC has no argument {name}{hint}")
    if problems:
        raise TypeError("; ".join(problems))


def check_arguments(agent: MTSAC) -> None:
    """Check all arguments of an agent, and bring them to their declared types (``1e6`` to ``1000000``).

    Raises:
        ValueError: naming each argument that is wrong, its value and what was expected.
    """
    if not agent.n_tasks:
        raise ValueError("MTSAC needs an environment: the number of tasks is read from it")
    names = {name: ATTRIBUTES.get(name, name) for name in agent.arguments.model_fields}
    arguments = checked(agent.arguments, {name: getattr(agent, attribute) for name, attribute in names.items()})
    for name, attribute in names.items():
        if name != "device":  # SB3 has resolved it
            setattr(agent, attribute, getattr(arguments, name))
    agent.policy_kwargs = checked_policy_kwargs(agent.policy_class, agent.policy_kwargs or {})
    if agent.batch_size is None:
        agent.batch_size = ROWS_PER_TASK * agent.n_tasks
    problems = [problem for _, check in RELATIONS if (problem := check(agent, agent.n_tasks))]
    if problems:
        raise ValueError("; ".join(problems))


def _batch_size(arguments: Any, n_tasks: int) -> str | None:
    size = arguments.batch_size
    if size is None or size % n_tasks == 0:
        return None
    below = size // n_tasks * n_tasks
    near = " or ".join(str(multiple) for multiple in (below, below + n_tasks) if multiple)
    return f"batch_size={size} should be a multiple of the {n_tasks} tasks, which have equal shares of it, e.g. {near}"


def _discount(arguments: Any, n_tasks: int) -> str | None:
    forever = {
        f"reward_scaling={arguments.reward_scaling}": arguments.reward_scaling == "max_reward",
        "clip_targets": arguments.clip_targets,
    }
    needing = " and ".join(setting for setting, on in forever.items() if on)
    return f"{needing} needs gamma below 1: it divides by 1 - gamma" if needing and arguments.gamma == 1 else None


def _train_freq(arguments: Any, n_tasks: int) -> str | None:
    if n_tasks == 1 or not isinstance(arguments.train_freq, tuple) or arguments.train_freq[1] == "step":
        return None
    return f"train_freq={list(arguments.train_freq)} should count steps: the {n_tasks} tasks' episodes end apart"


RELATIONS: tuple[tuple[tuple[str, ...], Callable[[Any, int], str | None]], ...] = (
    (("batch_size",), _batch_size),
    (("gamma", "reward_scaling", "clip_targets"), _discount),
    (("train_freq",), _train_freq),
)
"""Checks between arguments, with the names of those that they look at. Configs are checked by the same."""
