"""Video clips of an agent: one episode of each task."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from stable_baselines3.common.vec_env import VecEnv

from mtrl_transfer.agents.evaluation import Predicts, begin_evaluation
from mtrl_transfer.agents.tasks import succeeded, task_names_of

SUCCESS = (40, 200, 60)
MARGIN = 4


class Clip(NamedTuple):
    """One episode of a task: ``frames [F, H, W, 3]`` uint8, with a green frame once it has succeeded."""

    task_name: str
    frames: np.ndarray


def record_clips(model: Predicts, env: VecEnv, every: int = 1, shrink: int = 1) -> list[Clip]:
    """Play the first episode of every task with the deterministic policy, and draw it.

    Args:
        model: the agent.
        env: environment other than the training's, whose ``get_images`` gives pictures.
        every: steps between pictures.
        shrink: side length in pixels of the squares that are averaged to one pixel each.

    Returns:
        A clip per task, in order.

    Raises:
        ValueError: if the environment does not suit the agent, as in `mtrl_transfer.agents.evaluation.evaluate`.
    """
    observations = begin_evaluation(model, env)
    frames: list[list[np.ndarray]] = [[] for _ in range(env.num_envs)]
    playing, solved = np.ones(env.num_envs, bool), np.zeros(env.num_envs, bool)
    step = 0
    while playing.any():
        if step % every == 0:
            for task, picture in enumerate(env.get_images()):
                if playing[task] and picture is not None:
                    frames[task].append(framed(picture, shrink, solved[task]))
        actions, _ = model.predict(observations, deterministic=True)
        observations, _, dones, infos = env.step(actions)
        solved |= [succeeded(info) for info in infos]
        playing &= ~dones
        step += 1
    return [Clip(name, np.stack(own)) for name, own in zip(task_names_of(env), frames, strict=True)]


def framed(picture: np.ndarray, shrink: int, solved: bool) -> np.ndarray:
    """A picture ``[H, W, 3]`` made ``shrink`` times smaller by means of squares, in a green frame if solved."""
    height, width = (size // shrink for size in picture.shape[:2])
    squares = picture[: height * shrink, : width * shrink].reshape(height, shrink, width, shrink, 3)
    frame = squares.mean(axis=(1, 3)).round().astype(np.uint8)
    if solved:
        inside = frame[MARGIN:-MARGIN, MARGIN:-MARGIN].copy()
        frame[:] = SUCCESS
        frame[MARGIN:-MARGIN, MARGIN:-MARGIN] = inside
    return frame
