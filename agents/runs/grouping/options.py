"""Options of groups, beside the config of the runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

from pydantic import Field

from mtrl_transfer.agents.declarations import Count, Float, Section, Seeds, Text
from mtrl_transfer.agents.runs.compare.engine import EngineConfig, engine_problems
from mtrl_transfer.agents.runs.config.checks import task_names
from mtrl_transfer.agents.runs.config.loading import load_config, section
from mtrl_transfer.agents.runs.config.schema import RunConfig
from mtrl_transfer.agents.runs.errors import InputError
from mtrl_transfer.agents.runs.grouping.history import AffinityName
from mtrl_transfer.agents.runs.run_folder import RUNS, folder_problems

PREFIX = "groups."


class GroupOptions(Section):
    """Options of grouping and training; on the command line with the prefix ``groups.``."""

    folder: Text | None = None
    """Folder of all files; null: runs/groups_<name>."""
    n_groups: Annotated[tuple[Count, ...], Field(min_length=1)] = (2,)
    """Numbers of networks (at most) to train groups for."""
    seeds: Seeds = (0, 1, 2)
    """Seeds of all runs."""
    by: Annotated[tuple[AffinityName, ...], Field(min_length=1)] = ("affinity",)
    """Affinities by which groups are chosen, each for itself."""
    part: Literal["early", "late", "overall"] = "overall"
    """Part of the joint runs that decides: the first or second half, or all."""
    only: tuple[str, ...] | None = None
    """Groupings to train beside all together, as ``one_per_task`` or ``affinity``; null: all."""
    max_size: Count | None = None
    """Largest number of tasks in a group; null: no limit."""
    max_total_size: Count | None = None
    """Largest number of tasks in all groups together; the number of tasks lets no task train twice; null: no limit."""
    singleton_score: Float | None = None
    """Score of a task that trains alone, in standard deviations of affinity; null: groups of one are not chosen."""
    random: Count = 1
    """Different random groupings for each number of networks; of few tasks there may be fewer."""
    equal: Literal["transitions", "compute"] = "transitions"
    """Quantity that is equal for all groupings: a task's transitions in each of its groups, or the transitions of all
    groups together (groups that overlap then train for fewer steps)."""
    engine: EngineConfig = EngineConfig()
    """Engine that does the runs."""


class GroupPlan(NamedTuple):
    """The joint runs' config, the options, the folder, and the names of the tasks."""

    config: RunConfig
    options: GroupOptions
    folder: Path
    names: tuple[str, ...]


def load_plan(argument: str, overrides: Sequence[str]) -> GroupPlan:
    """Read a run's config and the options that are mixed among its overrides.

    Raises:
        InputError: with every bad key and value at once.
    """
    own = [override.removeprefix(PREFIX) for override in overrides if override.startswith(PREFIX)]
    others = [override for override in overrides if not override.startswith(PREFIX)]
    options, problems = None, list[str]()
    try:
        options = section(GroupOptions, own)
        problems += [f"{PREFIX}engine.{problem}" for problem in engine_problems(options.engine)]
    except InputError as error:
        problems += [_prefixed(problem) for problem in error.problems]
    try:
        config = load_config(argument, others)
    except InputError as error:
        raise InputError([*problems, *error.problems]) from None
    if problems or options is None:
        raise InputError(problems)
    if any(override.startswith("seed=") for override in others):
        raise InputError("seed is of a single run; groups.seeds= are those of all runs")
    if config.run_dir is not None or config.resume:
        raise InputError("run_dir and resume are of a single run; groups.folder= says where everything goes")
    folder = Path(options.folder) if options.folder is not None else RUNS / f"groups_{config.name}"
    if problems := [*folder_problems(f"{PREFIX}folder", folder), *_record(config), *_n_groups(config, options)]:
        raise InputError(problems)
    return GroupPlan(config, options, folder, task_names(config))


def _record(config: RunConfig) -> list[str]:
    """Groups are chosen from what joint runs record, so they have to record."""
    every, freq, steps = config.log.record_every, config.agent.train_freq, config.agent.gradient_steps
    rollout = len(task_names(config)) * (freq[0] if isinstance(freq, tuple) else freq)
    if every is None:
        return ["log.record_every=null: groups are chosen from the records of joint runs; give a number of updates"]
    rollouts = -(-config.total_timesteps // rollout) - config.agent.learning_starts // rollout
    updates = rollouts * (rollout if steps < 0 else steps)
    if every <= updates:
        return []
    return [f"log.record_every={every} should be at most {updates}, the updates of a joint run: groups need a record"]


def _n_groups(config: RunConfig, options: GroupOptions) -> list[str]:
    tasks = len(task_names(config))
    return [
        f"{PREFIX}n_groups={number} should be at most {tasks}, the number of tasks"
        for number in options.n_groups
        if number > tasks
    ]


def _prefixed(problem: str) -> str:
    """A problem of the options as one of the command line."""
    unknown = "unknown key "
    named = problem.removeprefix(unknown)
    return f"{unknown}{PREFIX}{named}" if named != problem else f"{PREFIX}{problem}"
