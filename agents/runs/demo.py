"""A trained agent plays all its tasks, as a table and as one clip of all of them."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Annotated

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from pydantic import Field
from rich.console import Console
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper
from stable_baselines3.common.vec_env.base_vec_env import VecEnvStepReturn

import mtrl_transfer
from mtrl_transfer.agents import Evaluation, evaluate
from mtrl_transfer.agents.monitoring.clips import framed
from mtrl_transfer.agents.runs import tables
from mtrl_transfer.agents.runs.build import evaluation_env
from mtrl_transfer.agents.runs.config.loading import section
from mtrl_transfer.agents.runs.config.schema import Section
from mtrl_transfer.agents.runs.errors import Failed
from mtrl_transfer.agents.runs.evaluate import actor_config, actor_in
from mtrl_transfer.agents.runs.logs.videos import FPS, can_write_mp4, write_clip
from mtrl_transfer.agents.runs.streams import say
from mtrl_transfer.agents.runs.torch_settings import torch_settings

STEPS = 200
"""Steps of an episode that the clip shows; what an agent solves, it mostly solves within them."""
EVERY = 4
"""Steps between pictures: with 20 pictures a second the clip plays as fast as the world does."""
COLUMNS = 5
TILE = 160
LABEL = 16
"""Height of the line with a task's name, in pixels."""
HOLD = FPS
"""Times that the last picture is repeated."""


class DemoOptions(Section):
    """Options of ``mtrl-demo``."""

    agent: Path | None = None
    """An actor's file; null: the agent of MT10 that comes with the library."""
    episodes: Annotated[int, Field(ge=1, le=50)] = 1
    """Episodes (goals) per task in the table; the clip shows the first."""
    video: bool = True
    """Also write a clip."""
    out: Path = Path("demo")
    """The clip's files without their endings."""


def play(overrides: Sequence[str], console: Console) -> Evaluation:
    """Play the agent, print success per task, and write the clip.

    Args:
        overrides: `DemoOptions` as ``key=value``.
        console: where the table is printed.

    Raises:
        InputError: for a bad option or file.
        Failed: if the clip cannot be written.
    """
    options = section(DemoOptions, overrides)
    file = shipped_agent() if options.agent is None else options.agent
    actor = actor_in(file)
    config = actor_config(file, actor)
    ask = (config.env, config.evaluation.goals, config.evaluation.seed, "rgb_array" if options.video else None)
    with torch_settings(threads=1), closing(evaluation_env(*ask)) as env:
        film = _film(env, console) if options.video else None
        result = evaluate(actor, env if film is None else film, options.episodes)
    console.print(tables.evaluation_table(result))
    tables.print_mean(console, result)
    say(console, f"Agent: {file}, {actor.num_timesteps:,} transitions")
    if film is not None:
        say(console, f"Clip: {', '.join(map(str, _write(film.frames(), options.out)))}")
    return result


def _film(env: VecEnv, console: Console) -> Film | None:
    """Begin the clip; None, and a line that says why, where nothing can be drawn."""
    try:
        return Film(env)
    except RuntimeError as error:
        say(console, f"No clip: {error}")
        return None


def _write(frames: np.ndarray, out: Path) -> list[Path]:
    """Write the clip as GIF, and as MP4 where that can be written; return the files."""
    endings = (".gif", ".mp4") if can_write_mp4() else (".gif",)
    files = [out.with_name(out.name + ending) for ending in endings]
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        for file in files:
            write_clip(frames, file)
    except OSError as error:
        raise Failed(f"the clip cannot be written: {error}") from None
    return files


def shipped_agent() -> Path:
    """The trained agent of MT10: inside the package when installed from a wheel, under ``results`` in a checkout."""
    package = Path(mtrl_transfer.__file__).parent
    installed = package / "trained" / "mt10.safetensors"
    return installed if installed.is_file() else package.parent / "results" / "agents" / "mt10.safetensors"


class Film(VecEnvWrapper):
    """Draws every task's first episode: up to `STEPS` steps, or until the task is solved.

    Args:
        env: environment whose sub-environments render ``rgb_array``.

    Raises:
        RuntimeError: if nothing can be drawn here; it says what to install.
    """

    def __init__(self, env: VecEnv) -> None:
        super().__init__(env)
        self._solved = np.zeros(env.num_envs, bool)
        self._tiles: list[list[np.ndarray]] = [[] for _ in range(env.num_envs)]
        self._step = 0
        env.reset()
        self._names = [str(name) for name in env.get_attr("task_name")]
        self._draw(0)  # may fail, and opens what else would be opened within the first step
        self._tiles[0].clear()

    def reset(self) -> np.ndarray:
        """Reset, and draw the first picture."""
        observations = self.venv.reset()
        self._step = 0
        for task in range(self.num_envs):
            self._draw(task)
        return observations

    def step_wait(self) -> VecEnvStepReturn:
        """Step, and draw the tasks that are not solved yet."""
        observations, rewards, dones, infos = self.venv.step_wait()
        self._step += 1
        newly = np.array([bool(info.get("is_success")) for info in infos]) & ~self._solved
        self._solved |= newly
        if self._step <= STEPS and not dones.any():
            due = newly if self._step % EVERY else newly | ~self._solved
            for task in np.flatnonzero(due).tolist():
                self._draw(task)
        return observations, rewards, dones, infos

    def frames(self) -> np.ndarray:
        """The clip ``[F, H, W, 3]``: all tasks side by side; a solved one stands still in a green frame."""
        length = max(map(len, self._tiles)) + HOLD
        rows = [
            np.concatenate(
                [self._strip(task, length) for task in range(first, min(first + COLUMNS, self.num_envs))], axis=2
            )
            for first in range(0, self.num_envs, COLUMNS)
        ]
        width = rows[0].shape[2]
        return np.concatenate([np.pad(row, ((0, 0), (0, 0), (0, width - row.shape[2]), (0, 0))) for row in rows], 1)

    def _draw(self, task: int) -> None:
        (picture,) = self.venv.env_method("render", indices=[task])
        self._tiles[task].append(framed(picture, max(1, picture.shape[0] // TILE), bool(self._solved[task])))

    def _strip(self, task: int, length: int) -> np.ndarray:
        """A task's pictures below its name, the last one repeated up to a length."""
        pictures = np.stack(self._tiles[task])
        pictures = np.concatenate([pictures, np.repeat(pictures[-1:], length - len(pictures), axis=0)])
        label = Image.new("RGB", (pictures.shape[2], LABEL))
        font = ImageFont.load_default(size=11)
        ImageDraw.Draw(label).text((4, 1), self._names[task].removesuffix("-v3"), "white", font)
        return np.concatenate([np.repeat(np.asarray(label)[None], length, axis=0), pictures], axis=1)
