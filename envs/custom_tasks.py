"""A user's gymnasium environments as tasks."""

from __future__ import annotations

import inspect
import pkgutil
import re
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from types import FunctionType
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from stable_baselines3.common.monitor import Monitor

from mtrl_transfer.envs.names import checked_tasks
from mtrl_transfer.envs.task_env import TaskEnv

Factories = Mapping[str, Callable[[], gym.Env]]


def custom_env_fns(factories: Factories) -> list[Callable[[], gym.Env]]:
    """Return one factory of a sub-environment per task.

    Raises:
        ValueError: If there is no task, if a name is no text, if a value is not callable, or if functions cannot differ
            in the environment they make.
    """
    _check_factories(factories, "a dict of tasks")
    return [
        partial(_make_task, factory, name, index, len(factories))
        for index, (name, factory) in enumerate(factories.items())
    ]


def is_own_suite(spec: object) -> bool:
    """Return True for `"module.NAME"`, also with `":some,tasks"`; nothing is imported."""
    return isinstance(spec, str) and re.fullmatch(r"[^\W\d]\w*(\.[^\W\d]\w*)+(:.*)?", spec) is not None


def own_suite(spec: object) -> Factories | None:
    """Find the tasks of `"module.NAME"`, or some of them: `"module.NAME:moon,earth"`.

    `NAME` is a dict from task name to a function that makes an environment, or a function that returns such a dict.
    Modules are also looked up in the current folder, here and in worker processes.

    Returns:
        The dict; None if the spec has another form.

    Raises:
        ValueError: If there is no such dict; the message says what the module raises, or names the nearest task.
    """
    if not is_own_suite(spec):
        return None
    path, _, chosen = str(spec).partition(":")
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.append(here)
    try:
        found = pkgutil.resolve_name(path)
        tasks = found() if callable(found) else found
    except (Exception, SystemExit) as error:
        raise ValueError(f"{spec!r} cannot be imported: {type(error).__name__}: {error}") from error
    if not isinstance(tasks, Mapping):
        raise ValueError(f"{path} should be a dict of functions that make environments, not {tasks!r}")
    names = checked_tasks(chosen.split(","), tasks, f"task of {path}") if chosen else tasks
    _check_factories(tasks, path)
    return {name: tasks[name] for name in names}


def _check_factories(factories: Factories, where: str) -> None:
    if not factories:
        raise ValueError(f"{where} needs at least one entry")
    for name, factory in factories.items():
        if not (isinstance(name, str) and name.strip() and name.isprintable()):
            raise ValueError(f"the name of a task, {name!r}, should be one line of text")
        if not callable(factory):
            raise ValueError(f"task {name!r} must be a function that makes an environment, not {factory!r}")
    _check_late_binding(factories)


def _check_late_binding(factories: Factories) -> None:
    """Refuse functions that read the same variables, as lambdas made in a loop do: all see its last value.

    Functions with the same code, variables (by identity) and defaults make the same environment. One function object
    under several names is allowed, and so are functions that read nothing but classes, functions and modules by name.
    """
    seen: dict[Any, tuple[str, FunctionType]] = {}
    for name, factory in factories.items():
        if not isinstance(factory, FunctionType) or not (variables := _variables(factory)):
            continue
        defaults = [*(factory.__defaults__ or ()), *(factory.__kwdefaults__ or {}).values()]
        bound = (id(factory.__code__), *map(id, factory.__closure__ or ()), *map(id, defaults))
        first, other = seen.setdefault(bound, (name, factory))
        if other is not factory:
            raise ValueError(
                f"tasks {first!r} and {name!r} would be the same environment: their functions share the variable "
                f"{variables[0]!r}, which has one value when they are called. Bind it to each function, as in "
                f"lambda {variables[0]}={variables[0]}: ... (or functools.partial); for equal tasks on purpose, give "
                "both the same function object"
            )


def _variables(function: FunctionType) -> list[str]:
    """Names that a function reads from outside, without the definitions and modules that it calls by name."""
    known, code = function.__globals__, function.__code__
    outside = [name for name in code.co_names if name in known and not _is_definition(name, known[name])]
    return [*code.co_freevars, *outside]


def _is_definition(name: str, value: Any) -> bool:
    return inspect.ismodule(value) or (callable(value) and getattr(value, "__name__", None) == name)


def _make_task(factory: Callable[[], gym.Env], name: str, index: int, n_tasks: int) -> gym.Env:
    env = factory()
    if not isinstance(env, gym.Env):
        raise TypeError(f"the function of task {name!r} should make a gymnasium.Env, but made {env!r}")
    _check_spaces(name, env.observation_space, env.action_space)
    _complete_reset(env)
    return Monitor(TaskEnv(env, name, index, n_tasks))


def _check_spaces(name: str, observations: spaces.Space, actions: spaces.Space) -> None:
    numbers = isinstance(observations, spaces.Box) and not (
        observations.dtype == np.uint8 and len(observations.shape) > 1
    )
    vectors = (
        isinstance(actions, spaces.Box) and len(actions.shape) == 1 and np.isfinite([actions.low, actions.high]).all()
    )
    if not (numbers and vectors):
        raise ValueError(
            f"task {name!r} must have a Box of numbers as observations and a Box vector with finite bounds as actions; "
            f"it has {observations} and {actions}. Discrete, Dict and pixels are not supported: "
            + (
                "gymnasium.wrappers.FlattenObservation makes a vector of observations"
                if vectors
                else "actions have to be continuous"
            )
        )


def _complete_reset(env: gym.Env) -> None:
    """Let every layer of an environment be reset with `seed` and `options`, also if its `reset` lacks them."""
    reset = inspect.signature(env.reset).parameters
    if not any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in reset.values()):
        missing = {"seed", "options"} - set(reset)
        if missing:
            env.reset = partial(_reset_without, env.reset, env.unwrapped, missing)
    if isinstance(env, gym.Wrapper):
        _complete_reset(env.env)


def _reset_without(
    reset: Callable[..., Any],
    base: gym.Env,
    missing: set[str],
    *,
    seed: int | None = None,
    options: dict[str, Any] | None = None,
) -> Any:
    """Reset without the missing arguments; a seed then seeds `np_random`. Options that were given are not dropped."""
    given: dict[str, Any] = {} if options is None and "options" in missing else {"options": options}
    if "seed" not in missing:
        given["seed"] = seed
    elif seed is not None:
        gym.Env.reset(base, seed=seed)
    return reset(**given)
