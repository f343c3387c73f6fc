"""Task-balanced replay of raw transitions."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import safetensors.torch
import torch
import torch.nn.functional as F
from gymnasium import spaces
from safetensors import SafetensorError
from stable_baselines3.common.buffers import BaseBuffer, ReplayBuffer
from stable_baselines3.common.vec_env import VecNormalize
from torch import Tensor

from mtrl_transfer.agents.storage.archive import Target, written_whole
from mtrl_transfer.generators import restore_generator


class Transitions(NamedTuple):
    """Stored columns, ``[size, T, ...]`` each: ``observations``, ``actions``, ``next_observations``, raw ``rewards``,
    ``terminations`` (1 = terminated; truncation counts 0) and ``ends`` (1 = the episode ended here, for any reason).
    """

    observations: Tensor
    actions: Tensor
    next_observations: Tensor
    rewards: Tensor
    terminations: Tensor
    ends: Tensor


class TaskBatch(NamedTuple):
    """Rows grouped by task: ``observations [T, B, D]``, ``actions [T, B, A]``, ``next_observations [T, B, D]``,
    ``rewards [T, B]`` (raw) and ``discounts [T, B]``, factors on the next observation's value (0: terminated).

    With ``n_steps > 1``, ``rewards`` are discounted sums over up to ``n_steps`` steps of an episode, and
    ``next_observations`` follow the last of them.
    """

    observations: Tensor
    actions: Tensor
    next_observations: Tensor
    rewards: Tensor
    discounts: Tensor


Sample = Callable[[int, torch.Generator | None], TaskBatch]
"""``sample(batch_size, generator)``: rows of every task, drawn by the generator; None: by replay's own."""


def terminations(dones: np.ndarray, infos: Sequence[Mapping[str, Any]]) -> np.ndarray:
    """Mask ``[T]`` of episodes that terminated; one that was truncated by a time limit did not.

    A time limit says nothing about the state's value: bootstrap through it (Pardo et al., arXiv 1712.00378).
    """
    return dones & ~np.array([info.get("TimeLimit.truncated", False) for info in infos])


class MultiTaskReplayBuffer(ReplayBuffer):
    """Ring buffer with one column per task; every batch holds the same number of rows of each.

    The one-hot is not stored: the column says the task. Everything lies on ``device``; a private generator draws rows.

    Args:
        buffer_size: capacity in transitions over all tasks.
        observation_space: box ``[D + T]``, one-hot last.
        action_space: box ``[A]``.
        device: where transitions live and batches are made.
        n_envs: ``T``, sub-env ``t`` being task ``t``.
        seed: of the sampling generator.
        gamma: discount per step.
        n_steps: steps of a return (Sutton 1988, Machine Learning 3); fewer if the episode or the stored data ends.

    Attributes:
        added: vector steps added so far. The ``k``-th lies at ``k % buffer_size`` until it is overwritten.
        starts: vector step of each task's first transition, ``[T]``: tasks that were added later have none before.
        task_names: of the agent, in order; stored with the transitions.

    Raises:
        MemoryError: if the device has no room for ``buffer_size`` transitions.
    """

    def __init__(
        self,
        buffer_size: int,
        observation_space: spaces.Space,
        action_space: spaces.Space,
        device: torch.device | str = "auto",
        n_envs: int = 1,
        seed: int = 0,
        gamma: float = 0.99,
        n_steps: int = 1,
    ) -> None:
        # ReplayBuffer's own constructor would allocate its numpy arrays: only its base is set up.
        BaseBuffer.__init__(self, max(buffer_size // n_envs, 1), observation_space, action_space, device, n_envs=n_envs)
        self.pos: int = 0
        self.added, self.starts, self.task_names = 0, [0] * n_envs, list[str]()
        self.obs_dim = self.obs_shape[0] - n_envs
        self.gamma, self.n_steps = gamma, n_steps
        self.optimize_memory_usage = False
        self.generator = torch.Generator(self.device).manual_seed(seed)
        self._tasks = torch.arange(n_envs, device=self.device).unsqueeze(1)
        widths = {"observations": [self.obs_dim], "actions": [self.action_dim], "next_observations": [self.obs_dim]}
        try:
            columns = {
                name: torch.zeros(self.buffer_size, n_envs, *widths.get(name, []), device=self.device)
                for name in Transitions._fields
            }
        except (RuntimeError, MemoryError) as error:
            size = 4 * buffer_size * (2 * self.obs_dim + self.action_dim + 3)
            raise MemoryError(
                f"buffer_size={buffer_size} transitions take {size / 2**30:,.1f} GiB, which {self.device} cannot give: "
                f"choose a smaller buffer_size ({error})"
            ) from None
        self.storage = Transitions(**columns)

    def add(
        self,
        obs: np.ndarray,
        next_obs: np.ndarray,
        action: np.ndarray,
        reward: np.ndarray,
        done: np.ndarray,
        infos: list[dict[str, Any]],
    ) -> None:
        """Store one vector step: ``[T, D + T]`` observations, ``[T, A]`` actions, ``[T]`` raw rewards and dones."""
        row = Transitions(
            observations=_tensor(obs[:, : self.obs_dim]),
            actions=_tensor(action.reshape(self.n_envs, self.action_dim)),
            next_observations=_tensor(next_obs[:, : self.obs_dim]),
            rewards=_tensor(reward),
            terminations=_tensor(terminations(done, infos)),
            ends=_tensor(done),
        )
        for column, values in zip(self.storage, row, strict=True):
            column[self.pos].copy_(values, non_blocking=True)
        self.place_cursor(self.added + 1)

    def end_episodes(self) -> None:
        """Mark the newest step as the last of its episodes."""
        if self.size():
            self.storage.ends[(self.pos - 1) % self.buffer_size] = 1.0

    def sample(
        self, batch_size: int, env: VecNormalize | None = None, generator: torch.Generator | None = None
    ) -> TaskBatch:
        """Draw ``batch_size // T`` rows of each task, uniformly with replacement.

        Args:
            batch_size: rows over all tasks, a multiple of ``T``.
            env: ``VecNormalize`` that normalises observations and rewards, or None.
            generator: draws instead of the buffer's own (a measurement must not advance the training's).
        """
        generator = self.generator if generator is None else generator
        shape = (self.n_envs, batch_size // self.n_envs)
        first = self._drawn(shape, generator)
        rewards, discounts, last = self._returns(first)
        batch = TaskBatch(
            observations=self._at(self.storage.observations, first),
            actions=self._at(self.storage.actions, first),
            next_observations=self._at(self.storage.next_observations, last),
            rewards=rewards,
            discounts=discounts,
        )
        return batch if env is None else self._normalized(batch, env)

    def _drawn(self, shape: tuple[int, int], generator: torch.Generator) -> Tensor:
        """Slots ``[T, B]`` of transitions that each task has."""
        size, oldest = self.size(), self.added - self.size()
        missing = [max(start - oldest, 0) for start in self.starts]
        if not any(missing):
            return torch.randint(size, shape, generator=generator, device=self.device)
        skipped = torch.tensor(missing, device=self.device).unsqueeze(1)
        share = torch.rand(shape, generator=generator, device=self.device, dtype=torch.float64)
        return (oldest + skipped + (share * (size - skipped)).long()) % self.buffer_size

    def _at(self, column: Tensor, slots: Tensor) -> Tensor:
        """Values ``[..., T, B, ...]`` of a column ``[size, T, ...]`` at slots ``[..., T, B]``."""
        # Row (slot, t) lies at slot * T + t.
        flat = slots * self.n_envs + self._tasks
        return column.flatten(0, 1).index_select(0, flat.flatten()).unflatten(0, slots.shape)

    def _returns(self, first: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Rewards and discounts of returns that start at slots ``[T, B]``, and the slots of their last steps.

        With length ``h <= n_steps``: ``R = sum_{k<h} gamma^k r_k``, discount ``gamma^h (1 - terminated_{h-1})``.
        """
        steps = torch.arange(self.n_steps, device=self.device).view(-1, 1, 1)
        slots = (first + steps) % self.buffer_size
        over = self._at(self.storage.ends, slots).bool() | (slots == (self.pos - 1) % self.buffer_size)
        # A step counts if no step before it was the last; the first one always counts.
        counts = torch.cat([torch.ones_like(over[:1]), ~over[:-1]]).cumprod(dim=0)
        rewards = (self._at(self.storage.rewards, slots) * counts * self.gamma**steps).sum(dim=0)
        length = counts.sum(dim=0)
        last = (first + length - 1) % self.buffer_size
        return rewards, self.gamma**length * (1.0 - self._at(self.storage.terminations, last)), last

    def _normalized(self, batch: TaskBatch, env: VecNormalize) -> TaskBatch:
        one_hot = np.eye(self.n_envs, dtype=np.float32)[:, None].repeat(batch.rewards.shape[1], axis=1)

        def observations(raw: Tensor) -> Tensor:
            full = env.normalize_obs(np.concatenate([raw.cpu().numpy(), one_hot], axis=-1))
            return _tensor(full[..., : self.obs_dim]).to(self.device)

        return batch._replace(
            observations=observations(batch.observations),
            next_observations=observations(batch.next_observations),
            rewards=_tensor(env.normalize_reward(batch.rewards.cpu().numpy())).to(self.device),
        )

    def rows(self, first: int, last: int) -> dict[str, Tensor]:
        """Copies on the CPU of vector steps ``first`` to ``last - 1``, ``[n, T, ...]`` each.

        Raises:
            ValueError: if some of them are not stored.
        """
        if not self.added - self.size() <= first <= last <= self.added:
            raise ValueError(f"steps {first} to {last} are not stored: {self.added - self.size()} to {self.added} are")
        slots = torch.arange(first, last, device=self.device) % self.buffer_size
        return {name: column.index_select(0, slots).cpu() for name, column in self.storage._asdict().items()}

    def put_rows(self, first: int, rows: dict[str, Tensor]) -> None:
        """Put copies from `rows` back in their slots; call `place_cursor` afterwards.

        Raises:
            ValueError: if they are of other shapes.
        """
        for name, column in self.storage._asdict().items():
            values = rows.get(name)
            if values is None or values.shape[1:] != column.shape[1:] or len(values) > self.buffer_size:
                found = None if values is None else list(values.shape)
                raise ValueError(
                    f"{name} of stored transitions is {found}, this agent's replay is {list(column.shape)}"
                )
            slots = torch.arange(first, first + len(values), device=self.device) % self.buffer_size
            column.index_copy_(0, slots, values.to(column))

    def place_cursor(self, added: int) -> None:
        """Set the number of vector steps added so far, and with it the next slot."""
        self.added = added
        self.pos, self.full = added % self.buffer_size, added >= self.buffer_size

    def save(self, target: Target) -> None:
        """Write the stored transitions, oldest first, and the generator's state as safetensors (no pickle).

        Args:
            target: file, whose folders are made, or binary stream.
        """
        stored = self.rows(self.added - self.size(), self.added)
        stored |= {"generator": self.generator.get_state(), "added": torch.tensor(self.added)}
        stored |= {"starts": torch.tensor(self.starts), "task_names": _as_tensor(self.task_names)}
        if isinstance(target, io.BufferedIOBase):
            target.write(safetensors.torch.save(stored))
        else:
            with written_whole(Path(target)) as path:
                safetensors.torch.save_file(stored, path)

    def load(self, source: Target) -> None:
        """Read what `save` wrote into this buffer: of all tasks, or of those that are still there, by name.

        Raises:
            FileNotFoundError: if there is no such file.
            ValueError: if it holds something else, no task of this buffer, transitions of other shapes, or more than
                fit (of the same tasks).
        """
        try:
            if isinstance(source, io.BufferedIOBase):
                stored = safetensors.torch.load(source.read())
            else:
                stored = safetensors.torch.load_file(source)
            generator, size = stored.pop("generator"), len(stored["rewards"])
            # Buffers of another capacity have other slots; they count as if nothing had been overwritten.
            before = int(stored.pop("added"))
            added = before if size == self.buffer_size else size
            first = stored.pop("starts", torch.tensor([0] * self.n_envs))
            starts = [max(start - before + added, 0) for start in first.tolist()]
            names = _as_names(stored.pop("task_names", None)) or self.task_names
            if len(names or starts) != len(starts):
                raise ValueError(f"it has {len(names)} names of tasks, and first steps of {len(starts)}")
            restore_generator(self.generator, generator)
        except (SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
            raise ValueError(
                f"{source} is no replay saved by MTSAC ({error}); replay pickled by stable-baselines3 is not opened, "
                "because a pickle can run any code"
            ) from None
        try:
            if names != self.task_names:
                stored, starts, size = self._of_own_tasks(stored, starts, names, added - size)
                added = size
            self.put_rows(added - size, stored)
        except (ValueError, RuntimeError, IndexError, KeyError) as error:
            raise ValueError(f"{source}: {error}: other tasks, or a smaller buffer_size") from None
        self.place_cursor(added)
        self.starts = starts

    def _of_own_tasks(
        self, stored: dict[str, Tensor], starts: list[int], names: list[str], oldest: int
    ) -> tuple[dict[str, Tensor], list[int], int]:
        """The newest stored steps that fit, of this buffer's tasks; with their tasks' starts and number."""
        kept = [name for name in self.task_names if name in names]
        if not kept:
            raise ValueError(f"stored are {', '.join(names)}; none of them is one of {', '.join(self.task_names)}")
        new, old = [self.task_names.index(name) for name in kept], [names.index(name) for name in kept]
        size = min(len(stored["rewards"]), self.buffer_size)
        dropped = oldest + len(stored["rewards"]) - size
        found = {name: torch.zeros(size, *column.shape[1:]) for name, column in self.storage._asdict().items()}
        for name, values in found.items():
            rows = stored[name][len(stored[name]) - size :, old]
            # Observations and actions may be padded to another width.
            values[:, new] = rows if rows.dim() == 2 else F.pad(rows, (0, values.shape[2] - rows.shape[2]))
        begins = dict(zip(new, (max(starts[task] - dropped, 0) for task in old), strict=True))
        return found, [begins.get(task, size) for task in range(self.n_envs)], size


def _as_tensor(names: list[str]) -> Tensor:
    return torch.tensor(list(json.dumps(names).encode()), dtype=torch.uint8)


def _as_names(stored: Tensor | None) -> list[str]:
    return [] if stored is None else [str(name) for name in json.loads(bytes(stored.tolist()))]


def _tensor(values: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32))
