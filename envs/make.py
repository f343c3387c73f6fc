"""Make vector environments of tasks."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import gymnasium as gym
from stable_baselines3.common.vec_env import VecEnv

from mtrl_transfer.choices import check_positive, check_whole, did_you_mean
from mtrl_transfer.envs.custom_tasks import custom_env_fns, own_suite
from mtrl_transfer.envs.gymnasium_suites import gymnasium_suite
from mtrl_transfer.envs.metaworld.suites import MetaWorldOptions, parse_metaworld_suite
from mtrl_transfer.envs.point import PointVecEnv
from mtrl_transfer.envs.protocol import suite_protocol
from mtrl_transfer.envs.vec_env import TaskVecEnv, available_cores

Spec = str | Sequence[str] | Mapping[str, Callable[[], gym.Env]]


def make_vec_env(
    spec: Spec,
    seed: int = 0,
    n_procs: int | None = 1,
    worker_timeout: float | None = 60.0,
    own_process: bool = True,
    **options: Any,
) -> VecEnv:
    """Make an SB3 vector environment whose sub-environment `t` is task `t`.

    Observations are float32 `[D + T]` in an unbounded box, the one-hot code of the task last (`D` is 39 in Meta-World).
    `env.get_attr("task_name")` gives the tasks' names in order. `info["is_success"]` is success at any step of the
    episode so far, `info["episode"]` the return `r` and length `l` of an episode at its end.

    Args:
        spec: One of

            - `"MT10"`, `"MT25"`, `"MT50"`: Meta-World's benchmarks, with the goals that, for example,
              `metaworld.MT10(seed=goal_seed)` trains on;
            - `"MT10:reach-v3,push-v3"`: some tasks of a benchmark, with that benchmark's goals;
            - `"MT1:reach-v3"` or a list of Meta-World task names: each with the goals of
              `metaworld.MT1(name, seed=goal_seed)`, independent of the rest of the list;
            - a dict from task name to a function that makes a gymnasium environment with `Box` observations (flattened)
              and `Box` actions (vectors). Those of different size are padded with zeros to the widest, before the
              one-hot; where action spaces differ, actions are in [-1, 1] and brought to each task's own bounds. Their
              own time limit applies (wrap with `gymnasium.wrappers.TimeLimit`);
            - `"my_tasks.TASKS"`: such a dict in a module of yours, see `envs.custom_tasks.own_suite`;
            - `"Point-5"` (any number from 3): point reaching, see `envs.point.PointVecEnv`; in `"Point-5-rotated"`
              every task sees through a different rotation, in `"Point-5-spread"` rewards are of unlike sizes.
              `"Point-5:point-a0,noise"`: some tasks of it;
            - `"pendulums"`, `"locomotion"` (or `"locomotion:hopper,ant"`): gymnasium's own environments, see
              `envs.gymnasium_suites`.
        seed: Seeds every task differently; decides the order of random goals, but not the goals.
        n_procs: Processes that step environments, several tasks in each; the result does not depend on it. 1 is this
            process alone. None is one per core (no more than tasks). Above 1 workers are started, so a script must
            create the environment under `if __name__ == "__main__":`.
        worker_timeout: Seconds that a worker may take for a call (a step of all its tasks, a reset, `state_dict`, ...),
            and ten times that to make each environment; None: any time. One that takes longer, or dies, is replaced by
            a new one, which goes on from where it was; three times in a row, then a RuntimeError.
        own_process: True if this process is one of the `n_procs`. Otherwise all of them are workers, and this process
            is free between `step_async` and `step_wait`. Point tasks are always stepped by this process.
        **options: For Meta-World only (`render_mode` also for gymnasium's suites); setting one for another suite is an
            error.

            - `horizon` (500): steps in an episode, at most 500;
            - `reward_version` (`"v2"`): Meta-World's reward function, `"v1"` or `"v2"`;
            - `n_goals` (50): goals of each task; fewer are the first of the fifty;
            - `goal_seed` (0): which goals;
            - `goals` (`"train"`): the benchmark's training goals, or `"unseen"`: the same number of other goals;
            - `goal_order` (`"random"`): goals visited at random, or `"sequential"`: 0, 1, 2, ... and again from 0;
            - `render_mode` (None): or `"rgb_array"`;
            - `fast` (True): False steps Meta-World's own code instead of the faster one with equal results.

    Returns:
        A vector environment that follows SB3's contract for `DummyVecEnv`. `env.set_options({"goal": 0})` before
        `reset` starts Meta-World tasks at a given goal.

    Raises:
        ValueError: If something does not exist or is out of range; the message names the nearest choice.
        TypeError: If an option does not apply to the suite.
    """
    if seed is not None:
        check_whole("seed", seed, 0)
    if isinstance(spec, str) and (match := re.fullmatch(r"Point-(\d+)(-rotated)?(-spread)?(?::(.*))?", spec)):
        _no_options(spec, options)
        if n_procs not in (None, 1):
            raise ValueError(f"{spec} steps all tasks at once in one process; n_procs must be 1, not {n_procs}")
        tasks = None if match[4] is None else match[4].split(",")
        return PointVecEnv(int(match[1]), seed, match[2] is not None, tasks, match[3] is not None)
    if n_procs is None:
        n_procs = available_cores()
    check_whole("n_procs", n_procs)
    if worker_timeout is not None:
        check_positive("worker_timeout", worker_timeout)
    tasks, name = (spec, "custom") if isinstance(spec, Mapping) else (own_suite(spec), str(spec))
    if tasks is not None:
        _no_options("a dict of environments", options)
        protocol = suite_protocol(name, tasks, None)
        return TaskVecEnv(custom_env_fns(tasks), seed, n_procs, protocol, worker_timeout, own_process)
    if (known := gymnasium_suite(spec)) is not None:
        fns = custom_env_fns(known.factories(options.pop("render_mode", None)))
        _no_options(known.name, options)
        protocol = suite_protocol(known.name, known.tasks, known.horizon)
        return TaskVecEnv(fns, seed, n_procs, protocol, worker_timeout, own_process)
    assert not isinstance(spec, Mapping)
    suite = parse_metaworld_suite(spec)
    chosen = _metaworld_options(options)
    goals = suite.draw_goals(chosen)
    fns, protocol = suite.env_fns(chosen, goals), suite.protocol(chosen, goals)
    return TaskVecEnv(fns, seed, n_procs, protocol, worker_timeout, own_process)


def _metaworld_options(options: dict[str, Any]) -> MetaWorldOptions:
    known = [field.name for field in dataclasses.fields(MetaWorldOptions)]
    for name in options:
        if name not in known:
            raise TypeError(f"{name!r} is not an option of Meta-World suites{did_you_mean(name, known, 'they have')}")
    return MetaWorldOptions(**options)


def _no_options(suite: str, options: dict[str, Any]) -> None:
    if options:
        raise TypeError(f"{suite} has no options, but {', '.join(map(repr, options))} was given; they are Meta-World's")
