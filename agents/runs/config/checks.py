"""Checks of a config's values against each other and against what exists, before any work is done."""

from __future__ import annotations

from collections.abc import Callable, Set
from functools import partial
from itertools import count
from typing import Any

import torch

from mtrl_transfer.agents.monitoring.measuring import affinity_problem
from mtrl_transfer.agents.mtsac.arguments import RELATIONS, ROWS_PER_TASK
from mtrl_transfer.agents.mtsac.roles import role_combiners
from mtrl_transfer.agents.runs.build import combiner_kwargs, env_options, is_metaworld, is_point
from mtrl_transfer.agents.runs.config.combiner_checks import combiner_problems, task_problems
from mtrl_transfer.agents.runs.config.schema import RunConfig
from mtrl_transfer.agents.tasks import MEAN
from mtrl_transfer.envs import make_vec_env
from mtrl_transfer.envs.custom_tasks import own_suite
from mtrl_transfer.envs.gymnasium_suites import gymnasium_suite
from mtrl_transfer.envs.metaworld.suites import MetaWorldOptions, parse_metaworld_suite

PROTOCOL_GOALS = MetaWorldOptions().n_goals


def inconsistencies(config: RunConfig, unknown: Set[str] = frozenset()) -> list[str]:
    """All that is wrong between sound values.

    Args:
        config: values that satisfy the schema.
        unknown: dotted keys whose value is not the user's (it was bad by itself); what depends on them is not checked.

    Returns:
        One sentence per problem, beginning with the key.
    """

    def known(needed: tuple[str, ...]) -> bool:
        return not any(_overlap(key, section) for key in unknown for section in needed)

    problems = [problem for needed, check in CHECKS if known(needed) for problem in check(config)]
    tasks = n_tasks(config) if known(("env.id",)) else None
    if tasks is not None:
        problems += [problem for needed, check in TASK_CHECKS if known(needed) for problem in check(config, tasks)]
    return problems


def _overlap(one: str, other: str) -> bool:
    """Return True if one dotted key is the other or lies inside it."""
    return one == other or one.startswith(other + ".") or other.startswith(one + ".")


def n_tasks(config: RunConfig) -> int | None:
    """Number of tasks, or None where the suite does not exist."""
    try:
        return len(task_names(config))
    except ValueError:
        return None


def task_names(config: RunConfig) -> tuple[str, ...]:
    """The tasks, in order.

    Raises:
        ValueError: if the suite does not exist.
    """
    env = config.env
    if is_point(env):
        return tuple(make_vec_env(env.id).get_attr("task_name"))
    if (suite := gymnasium_suite(env.id)) is not None:
        return tuple(suite.tasks)
    if (tasks := own_suite(env.id)) is not None:
        return tuple(tasks)
    return tuple(parse_metaworld_suite(env.id if isinstance(env.id, str) else list(env.id)).task_names)


def _suite(config: RunConfig) -> list[str]:
    try:
        names = task_names(config)
    except ValueError as error:
        return [f"env.id: {error}"]
    if MEAN in names:
        return [f"env.id: a task is called {MEAN!r}, as the figures of the mean over tasks are: rename it"]
    if is_point(config.env) and config.env.n_procs != 1:
        return [f"env.n_procs={config.env.n_procs} should be 1: {config.env.id} steps all tasks in one process"]
    return []


def _suite_options(config: RunConfig) -> list[str]:
    options = env_options(config.env)
    if config.env.training_horizon is not None:
        options["training_horizon"] = config.env.training_horizon
    if not is_metaworld(config.env):
        return [
            f"env.{name}={value!r}: {config.env.id} has no such setting; leave it out"
            for name, value in options.items()
        ]
    problems = []
    for name, value in options.items():
        try:
            MetaWorldOptions(**{name.removeprefix("training_"): value})
        except ValueError as error:
            problems.append(f"env.{name}: {error}")
    return problems


def _budget(config: RunConfig) -> list[str]:
    budget, starts = config.total_timesteps, config.agent.learning_starts
    if budget > starts:
        return []
    return [
        f"total_timesteps={budget} should be above agent.learning_starts={starts}, the transitions of random play "
        "before learning: nothing would be learned"
    ]


def _goals(config: RunConfig) -> list[str]:
    """Each goal is to be played once; unseen goals are as many as the training's. Other suites have no goals."""
    there = config.env.n_goals or PROTOCOL_GOALS
    wanted = {"n_goals": config.evaluation.n_goals, "final_n_goals": config.evaluation.final_n_goals}
    if not is_metaworld(config.env):
        unseen = config.evaluation.goals == "unseen"
        return [f"evaluation.goals=unseen: {config.env.id} has no set of training goals; leave it out"] * unseen
    return [
        f"evaluation.{name}={number} should be at most env.n_goals={there}: each goal is played once"
        for name, number in wanted.items()
        if number > there
    ]


def _agent(check: Callable[[Any, int], str | None], config: RunConfig, tasks: int) -> list[str]:
    """A check that the agent would make itself."""
    problem = check(config.agent, tasks)
    return [] if problem is None else [f"agent.{problem}"]


def _affinity_rows(config: RunConfig, tasks: int) -> list[str]:
    size = config.agent.batch_size
    rows = ROWS_PER_TASK if size is None else max(size // tasks, 1)
    problem = affinity_problem(config.measure.affinity_rows, config.measure.affinity_horizon, rows)
    return [] if problem is None else [f"measure.{problem}"]


def _reweighting(config: RunConfig, tasks: int) -> list[str]:
    rank = config.reweighting.rank
    if rank is None or rank < tasks:
        return []
    return [f"reweighting.rank={rank} should be at most {tasks - 1}, below the {tasks} tasks"]


def _device(config: RunConfig) -> list[str]:
    name = config.agent.device
    if name == "auto":
        return []
    try:
        torch.device(name)
    except RuntimeError:
        return [f"agent.device={name!r} should be auto, cpu, cuda or cuda:0, cuda:1, ..."]
    return []


def _combiner(config: RunConfig) -> list[str]:
    return combiner_problems(config.combiner)


def _combiner_tasks(config: RunConfig, tasks: int) -> list[str]:
    if combiner_problems(config.combiner):
        return []
    problems = task_problems(config.combiner, tasks)
    made = role_combiners(config.combiner.name, combiner_kwargs(config.combiner), count())
    for role, combiner in () if problems else made.items():
        try:
            combiner.check(tasks, signed=role == "actor")
        except ValueError as error:
            problems.append(f"combiner of the {role}: {error}")
    return problems


CHECKS: tuple[tuple[tuple[str, ...], Callable[[RunConfig], list[str]]], ...] = (
    (("env.id", "env.n_procs"), _suite),
    (("env",), _suite_options),
    (("total_timesteps", "agent.learning_starts"), _budget),
    (("env", "evaluation"), _goals),
    (("agent.device",), _device),
    (("combiner",), _combiner),
)
"""Checks with the keys and sections that they look at."""

TASK_CHECKS: tuple[tuple[tuple[str, ...], Callable[[RunConfig, int], list[str]]], ...] = (
    *((tuple(f"agent.{name}" for name in names), partial(_agent, check)) for names, check in RELATIONS),
    (("agent.batch_size", "measure.affinity_rows", "measure.affinity_horizon"), _affinity_rows),
    (("reweighting.rank",), _reweighting),
    (("combiner",), _combiner_tasks),
)
"""Checks that need the number of tasks."""
