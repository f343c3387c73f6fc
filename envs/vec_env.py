"""Tasks side by side as one SB3 vector environment."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from stable_baselines3.common.vec_env import VecEnv
from stable_baselines3.common.vec_env.base_vec_env import VecEnvIndices

from mtrl_transfer.envs.workers.shard import LocalShard, Shard
from mtrl_transfer.envs.workers.worker_shard import WorkerShard


def task_seeds(seed: int, n_tasks: int) -> list[int]:
    """Return one seed per task, each from a child of `numpy.random.SeedSequence(seed)`.

    So consecutive run seeds share no task seed, which `seed + task` would.
    """
    children = np.random.SeedSequence(seed).spawn(n_tasks)
    return [int(child.generate_state(1)[0]) for child in children]


def available_cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class TaskVecEnv(VecEnv):
    """T tasks as an SB3 vector environment whose sub-environment `t` is task `t`.

    Keeps the contract of SB3's `DummyVecEnv` (automatic reset, `terminal_observation`, `TimeLimit.truncated`, fresh
    arrays from every call), except that `seed` gives the tasks unrelated seeds, see `task_seeds`. With `n_procs` above
    1 this process steps every `n_procs`-th task, and workers step the others meanwhile; results are the same.

    Args:
        env_fns: One factory per task. For workers, picklable by cloudpickle.
        seed: Used at the first `reset`.
        n_procs: Processes that step environments, this one included; no more than tasks are used.
        protocol: What `envs.protocol_card` reports.
        worker_timeout: Seconds after which a worker is considered hung, see `WorkerShard`.
        own_process: Step tasks in this process too; otherwise all `n_procs` are workers.
    """

    def __init__(
        self,
        env_fns: Sequence[Callable[[], gym.Env]],
        seed: int,
        n_procs: int,
        protocol: dict[str, Any],
        worker_timeout: float | None,
        own_process: bool = True,
    ) -> None:
        self.protocol = protocol
        self.num_envs = len(env_fns)
        n_procs = min(n_procs, self.num_envs)
        self._members = [list(range(first, self.num_envs, n_procs)) for first in range(n_procs)]
        self._closed = False
        self._shards: list[Shard] = []
        try:
            self._start(env_fns, worker_timeout, own_process)
            self._share_shapes()
            spaces = [self.get_attr(name, 0)[0] for name in ("observation_space", "action_space")]
        except BaseException:  # no worker stays behind
            self.close()
            raise
        super().__init__(len(env_fns), *spaces)
        self.seed(seed)

    def seed(self, seed: int | None = None) -> Sequence[int | None]:
        """Seed all tasks at the next `reset`; None draws a seed from NumPy's global generator, as in SB3."""
        if seed is None:
            seed = int(np.random.randint(0, np.iinfo(np.uint32).max, dtype=np.uint32))  # noqa: NPY002
        self._seeds = list(task_seeds(seed, self.num_envs))
        return self._seeds

    def reset(self) -> np.ndarray:
        """Begin an episode of every task; return `[T, D + T]`."""
        arguments = [
            ([self._seeds[task] for task in members], [self._options[task] for task in members])
            for members in self._members
        ]
        observations, infos = zip(*self._call("reset", arguments), strict=True)
        self.reset_infos = self._in_order(infos)
        self._reset_seeds()
        self._reset_options()
        return self._stacked(observations)

    def step_async(self, actions: np.ndarray) -> None:
        """Hand the actions, one row per task, to the processes."""
        actions = np.asarray(actions)
        for shard, members in zip(self._shards, self._members, strict=True):
            shard.send("step", actions[members])

    def step_wait(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[dict[str, Any]]]:
        """Wait for all tasks; return observations `[T, D + T]`, rewards `[T]`, dones `[T]` and infos."""
        observations, rewards, dones, infos, reset_infos = zip(*_receive_all(self._shards), strict=True)
        self.reset_infos = self._in_order(reset_infos)
        return self._stacked(observations), self._stacked(rewards), self._stacked(dones), self._in_order(infos)

    def state_dict(self) -> dict[str, Any]:
        """Return the state of all tasks in mid-episode: nested dicts and lists of numbers, texts and arrays.

        It does not depend on the number of processes. Call it between a `step` and the next.
        """
        parts = self._call("state_dict", [()] * len(self._shards))
        return {"seeds": list(self._seeds), "options": list(self._options), "tasks": self._in_order(parts)}

    def load_state_dict(self, state: dict[str, Any]) -> np.ndarray:
        """Continue from `state_dict` of the same tasks; return their observations `[T, D + T]`.

        Meta-World tasks go on bit for bit. Others play their episode again. If a task then does not show the stored
        observation, it depends on more than gymnasium's `np_random`: a warning names it, and it begins an episode.

        Raises:
            ValueError: If the state is of other tasks.
        """
        tasks = state["tasks"]
        if len(tasks) != self.num_envs:
            raise ValueError(f"the state is of {len(tasks)} tasks; there are {self.num_envs}")
        arguments = [([tasks[task] for task in members],) for members in self._members]
        observations = self._stacked(self._call("load_state_dict", arguments))
        self._seeds, self._options = list(state["seeds"]), list(state["options"])
        return observations

    def close(self) -> None:
        """Close all tasks and end the workers."""
        if not self._closed:
            self._closed = True
            for shard in self._shards:
                shard.close()

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        """Return an attribute of each task, looked up through its wrappers."""
        return self._call_some("get_attr", (attr_name,), indices)

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:
        """Set an attribute of each task, on its outermost wrapper."""
        self._call_some("set_attr", (attr_name, value), indices)

    def env_method(self, method_name: str, *args: Any, indices: VecEnvIndices = None, **kwargs: Any) -> list[Any]:
        """Call a method of each task."""
        return self._call_some("env_method", (method_name, args, kwargs), indices)

    def env_is_wrapped(self, wrapper_class: type[gym.Wrapper], indices: VecEnvIndices = None) -> list[bool]:
        """Return True for each task that is wrapped in a class."""
        return self._call_some("env_is_wrapped", (wrapper_class,), indices)

    def get_images(self) -> Sequence[np.ndarray | None]:
        """Return a picture of each task."""
        if self.render_mode != "rgb_array":
            warnings.warn(f"render_mode is {self.render_mode}; for images it must be 'rgb_array'", stacklevel=2)
            return [None] * self.num_envs
        return self.env_method("render")

    def _start(self, env_fns: Sequence[Callable[[], gym.Env]], timeout: float | None, own_process: bool) -> None:
        """Make all tasks. Workers start first, because they take longest; this process's tasks are the first shard."""
        names = self.protocol["task_names"]
        shares = [([env_fns[task] for task in members], [names[task] for task in members]) for members in self._members]
        n_local = 1 if own_process else 0
        self._shards = [WorkerShard(*share, timeout) for share in shares[n_local:]]
        self._shards[:0] = [LocalShard(*share) for share in shares[:n_local]]
        _receive_all(self._shards)

    def _share_shapes(self) -> None:
        """Give all tasks the shapes of the widest, where they differ."""
        widths, actions = zip(*self.get_attr("task_space"), strict=True)
        same_actions = all(space == actions[0] for space in actions)
        if not same_actions or len(set(widths)) > 1:
            n_actions = None if same_actions else max(space.shape[0] for space in actions)
            self._call_some("share_shapes", (max(widths), n_actions), None)

    def _call_some(self, method: str, arguments: tuple[Any, ...], indices: VecEnvIndices) -> list[Any]:
        tasks = list(self._get_indices(indices))
        wanted = [[place for place, task in enumerate(members) if task in tasks] for members in self._members]
        results = self._call(method, [(*arguments, places) for places in wanted])
        found = {
            members[place]: value
            for members, places, values in zip(self._members, wanted, results, strict=True)
            for place, value in zip(places, values, strict=True)
        }
        return [found[range(self.num_envs)[task]] for task in tasks]

    def _call(self, method: str, arguments: Sequence[tuple[Any, ...]]) -> list[Any]:
        for shard, own in zip(self._shards, arguments, strict=True):
            shard.send(method, *own)
        return _receive_all(self._shards)

    def _in_order(self, parts: Sequence[Sequence[Any]]) -> list[Any]:
        ordered: list[Any] = [None] * self.num_envs
        for members, part in zip(self._members, parts, strict=True):
            for task, value in zip(members, part, strict=True):
                ordered[task] = value
        return ordered

    def _stacked(self, parts: Sequence[np.ndarray]) -> np.ndarray:
        whole = np.empty((self.num_envs, *parts[0].shape[1:]), parts[0].dtype)
        for members, part in zip(self._members, parts, strict=True):
            whole[members] = part
        return whole


def _receive_all(shards: Sequence[Shard]) -> list[Any]:
    """Return every shard's result. Exceptions are raised after all have answered: no answer stays in a pipe."""
    results, errors = [], []
    for shard in shards:
        try:
            results.append(shard.receive())
        except Exception as error:
            errors.append(error)
    if errors:
        raise errors[0]
    return results
