"""Groups as ordinary runs on some of the tasks, and the routed agents that come of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mtrl_transfer.agents import RoutedAgent, load_agent
from mtrl_transfer.agents.mtsac.mtsac import MTSAC
from mtrl_transfer.agents.runs.compare.planned import PlannedRun
from mtrl_transfer.agents.runs.config.loading import to_yaml
from mtrl_transfer.agents.runs.config.machine import device_here
from mtrl_transfer.agents.runs.config.schema import EnvConfig, RunConfig
from mtrl_transfer.agents.runs.grouping.choose import Candidate
from mtrl_transfer.agents.runs.grouping.options import GroupPlan
from mtrl_transfer.agents.runs.outcome import Unreadable, read_evaluation, read_protocol
from mtrl_transfer.agents.runs.run_folder import (
    AGENT_FILE,
    CONFIG_FILE,
    EVALUATION_FILE,
    PROTOCOL_FILE,
    to_json,
    write_text,
)
from mtrl_transfer.grouping import Grouping, all_together

SCALED = {
    "agent": ("learning_starts", "batch_size", "buffer_size"),
    "evaluation": ("every",),
    "checkpoint": ("every",),
    "log": ("every", "figures_every"),
}
"""Keys that count transitions over all tasks; they are scaled to the number of tasks in a group."""


class GroupRun(NamedTuple):
    """Training of one group: its tasks, vector steps and seed."""

    group: tuple[int, ...]
    steps: int
    seed: int

    @property
    def label(self) -> str:
        """Name that is unique among the group runs of a plan."""
        return f"tasks{'-'.join(map(str, self.group))}_steps{self.steps}_s{self.seed}"


def group_runs(plan: GroupPlan, grouping: Grouping, seed: int) -> list[GroupRun]:
    """Return the runs of a grouping; groupings with a group in common share its run."""
    over = len(plan.names) if plan.options.equal == "transitions" else sum(map(len, grouping.groups))
    steps = max(plan.config.total_timesteps // over, 1)
    return [GroupRun(group, steps, seed) for group in grouping.groups]


def joint_runs(plan: GroupPlan) -> list[PlannedRun]:
    """Return the runs of all tasks together, one a seed, in which affinity is measured."""
    together = all_together(len(plan.names))
    return [planned(plan, run) for seed in plan.options.seeds for run in group_runs(plan, together, seed)]


def planned(plan: GroupPlan, run: GroupRun) -> PlannedRun:
    """Return a group's run as the engine takes it."""
    return PlannedRun(run.label, group_config(plan, run), plan.folder / "runs" / run.label)


def group_config(plan: GroupPlan, run: GroupRun) -> RunConfig:
    """The config for some of its tasks: the same rows, steps and updates of each task.

    Affinity is measured in runs of all tasks alone.
    """
    config, names = plan.config, plan.names
    share = len(run.group) / len(names)
    changed: dict[str, Any] = {"seed": run.seed, "total_timesteps": run.steps * len(run.group)}
    for part, keys in SCALED.items():
        section = getattr(config, part)
        whole = {key: value for key in keys if (value := getattr(section, key))}
        own = {key: max(round(value * share), len(run.group)) for key, value in whole.items()}
        changed[part] = section.model_copy(update=own)
    if share == 1:
        measured: dict[str, Any] = {"affinity_every": config.measure.affinity_every or 10}
    else:
        changed["env"] = config.env.model_copy(update={"id": some_tasks(config.env, [names[i] for i in run.group])})
        measured = {"affinity_every": None, "affinity_rows": None}
    changed["measure"] = config.measure.model_copy(update=measured)
    return config.model_copy(update=changed)


def some_tasks(env: EnvConfig, names: Sequence[str]) -> str | tuple[str, ...]:
    """The `env.id` of some tasks of a suite or list; they keep the goals that they have among all."""
    if not isinstance(env.id, str):
        return tuple(names)
    suite, _, _ = env.id.partition(":")
    return env.id if suite == "MT1" else f"{suite}:{','.join(names)}"


def make_routed(plan: GroupPlan, candidate: Candidate, seed: int) -> dict[str, Any]:
    """One agent of a grouping's finished runs, in a folder like a run's, with their evaluations.

    Returns:
        Its ``evaluation.json``: each task as the run that serves it played it.
    """
    folder = plan.folder / "routed" / f"{candidate.label}_s{seed}"
    runs = [plan.folder / "runs" / run.label for run in group_runs(plan, candidate.grouping, seed)]
    parts = [read_evaluation(run / EVALUATION_FILE) for run in runs]
    serving = [parts[index] for index in candidate.grouping.assignment]
    tasks = {name: one["tasks"][name] for name, one in zip(plan.names, serving, strict=True)}
    solvable = set().union(*map(_solvable, runs))
    content = {
        "step": sum(one["step"] for one in parts),
        "goals": plan.config.evaluation.goals,
        "solvable": [name in solvable for name in plan.names],
        "grouping": {"groups": [run.name for run in runs], "assignment": list(candidate.grouping.assignment)},
        "mean_success": float(np.mean([tasks[name]["success"] for name in plan.names if name in solvable])),
        "tasks": tasks,
    }
    if _evaluation(folder) != content:
        _save_routed(plan, candidate, runs, folder, seed)
        write_text(folder / EVALUATION_FILE, to_json(content))
    return content


def _save_routed(plan: GroupPlan, candidate: Candidate, runs: Sequence[Path], folder: Path, seed: int) -> None:
    device = device_here(plan.config.agent.device)  # a cluster's may not be
    agents = [load_agent(run / AGENT_FILE, device) for run in runs]
    routed = RoutedAgent(plan.names, [one for one in agents if isinstance(one, MTSAC)], candidate.grouping.assignment)
    folder.mkdir(parents=True, exist_ok=True)
    routed.save(folder / AGENT_FILE)
    write_text(folder / CONFIG_FILE, to_yaml(plan.config.model_copy(update={"seed": seed, "run_dir": str(folder)})))


def _solvable(run: Path) -> set[str]:
    """Names of a run's tasks that can be solved."""
    about = read_protocol(run / PROTOCOL_FILE)["environment"]
    return {about["task_names"][index] for index in about["solvable_tasks"]}


def _evaluation(folder: Path) -> dict[str, Any] | None:
    """Evaluation of an earlier call; None where there is none that can be read."""
    try:
        return {key: value for key, value in read_evaluation(folder / EVALUATION_FILE).items() if key != "seconds"}
    except Unreadable:
        return None
