"""What a running run consists of: made anew, or brought back from a checkpoint."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import VecEnv
from tqdm import tqdm

from mtrl_transfer.agents import MTSAC, MultiTaskEvalCallback
from mtrl_transfer.agents.monitoring.recording import RecordTransference
from mtrl_transfer.agents.monitoring.tensorboard import TENSORBOARD_ONLY, TransferenceFigures
from mtrl_transfer.agents.runs import run_folder
from mtrl_transfer.agents.runs.build import evaluation_env, make_agent, training_env
from mtrl_transfer.agents.runs.callbacks import ClipsEvery, LogEvery
from mtrl_transfer.agents.runs.checkpoint import checkpoints, growing_files
from mtrl_transfer.agents.runs.checkpoint.checkpoints import Checkpoint
from mtrl_transfer.agents.runs.checkpoint.writer import CheckpointWriter
from mtrl_transfer.agents.runs.config.loading import to_yaml
from mtrl_transfer.agents.runs.config.schema import RunConfig
from mtrl_transfer.agents.runs.errors import InputError
from mtrl_transfer.agents.runs.logs.metrics import hyperparameters, make_logger
from mtrl_transfer.agents.runs.logs.time_split import TimeSplit
from mtrl_transfer.agents.runs.logs.videos import Camera
from mtrl_transfer.agents.runs.protocol import run_protocol
from mtrl_transfer.agents.runs.streams import STDERR
from mtrl_transfer.agents.storage.archive import read_archive, unflatten
from mtrl_transfer.agents.storage.archive_checks import LIES
from mtrl_transfer.agents.storage.training_state import restore_training_state, training_state
from mtrl_transfer.envs import protocol_card


@dataclass
class Session:
    """What a running run consists of."""

    config: RunConfig
    folder: Path
    env: VecEnv
    model: MTSAC
    evaluation: MultiTaskEvalCallback
    callbacks: list[BaseCallback]
    time: TimeSplit
    writer: CheckpointWriter
    camera: Camera | None

    def save(self) -> None:
        """Begin to write a checkpoint, between two updates, unless nothing has happened since the last."""
        self.writer.wait()
        if self.model.num_timesteps == self.writer.last_step:
            return
        if unsound := self.model.unsound_tasks():
            _tell(f"No checkpoint at {self.model.num_timesteps:,} transitions: {', '.join(unsound)} is not finite now.")
            return
        for growing in [*self.model.logger.output_formats, *self.callbacks]:
            if hasattr(growing, "flush"):
                growing.flush()
        state = {
            "seconds": self.time.total(),
            "callbacks": {name: callback.state_dict() for name, callback in self._stateful().items()},
            "training": training_state(self.model),
        }
        self.writer.save(self.model, state, growing_files.sizes(self.folder))

    def restore(self, checkpoint: Checkpoint, state: dict[str, Any]) -> None:
        """Bring all to where the checkpoint was; last of all, for it sets the global random generators."""
        for name, callback in self._stateful().items():
            if name in state["callbacks"]:  # a figure may have been switched on since
                callback.load_state_dict(state["callbacks"][name])
        for callback in self.callbacks:
            callback.n_calls = checkpoint.step // self.env.num_envs
        restore_training_state(self.model, state["training"])

    def close(self) -> None:
        """Finish what is being written, and let go of files and environments."""
        self.writer.wait()
        self.model.logger.close()
        self.env.close()
        self.evaluation.eval_env.close()
        if self.camera is not None:
            self.camera.close()

    def _stateful(self) -> dict[str, Any]:
        return {type(one).__name__: one for one in self.callbacks if hasattr(one, "load_state_dict")}


def open_session(config: RunConfig, checkpoint: Checkpoint | None) -> Session:
    """Make a run, or bring one back.

    Args:
        config: what to run.
        checkpoint: where to continue; None: a new run in a folder of its own.

    Raises:
        InputError: if the checkpoint is not this run's.
    """
    camera = None if config.log.videos_every is None else Camera(config)
    env = training_env(config)
    model = make_agent(config, env) if checkpoint is None else _agent(config, env, checkpoint)
    apart = evaluation_env(config.env, config.evaluation.goals, config.evaluation.seed)
    protocol = run_protocol(config, protocol_card(env), apart.protocol["horizon"], model.device.type)
    folder = run_folder.create(config, protocol) if checkpoint is None else _reopen(config, checkpoint)
    texts = {"config": (to_yaml(config), "yaml"), "protocol": (run_folder.to_json(protocol), "json")}
    model.set_logger(make_logger(folder, texts, model.num_timesteps, _tell))
    if checkpoint is None:
        model.logger.record("hparams", hyperparameters(config), exclude=TENSORBOARD_ONLY)
        model.logger.dump(0)
    evaluation = _evaluation(config, folder, apart)
    callbacks = [evaluation, LogEvery(config.log.every), *_watching(config, folder, env, camera)]
    state = None if checkpoint is None else _training(checkpoint)
    time = TimeSplit(model, evaluation, 0.0 if state is None else state["seconds"])
    writer = CheckpointWriter(folder, config.checkpoint.keep, _tell)
    session = Session(config, folder, env, model, evaluation, callbacks, time, writer, camera)
    if checkpoint is not None:
        assert state is not None
        writer.continue_from(checkpoint.manifest)
        with _refusing(checkpoint):
            session.restore(checkpoint, state)
    return session


def _agent(config: RunConfig, env: VecEnv, checkpoint: Checkpoint) -> MTSAC:
    with _refusing(checkpoint):
        model = MTSAC.load(checkpoint.folder / checkpoints.AGENT, env=env, device=config.agent.device)
        checkpoints.load_replay(checkpoint.folder.parents[1], checkpoint.manifest, model.replay_buffer)
    return model


def _training(checkpoint: Checkpoint) -> dict[str, Any]:
    with _refusing(checkpoint):
        data, tensors = read_archive(checkpoint.folder / checkpoints.TRAINING)
        state = unflatten(data["training"], tensors)
        return {"seconds": float(state["seconds"]), "callbacks": state["callbacks"], "training": state["training"]}


@contextlib.contextmanager
def _refusing(checkpoint: Checkpoint) -> Iterator[None]:
    """Hashes tell that a checkpoint is as it was written, not that it was one of ours who wrote it."""
    try:
        yield
    except InputError:
        raise
    except (*LIES, ValueError) as error:
        what = f"{type(error).__name__}: {error}".splitlines()[0]
        raise InputError(f"cannot continue from {checkpoint.folder}: {what}") from None


def _reopen(config: RunConfig, checkpoint: Checkpoint) -> Path:
    folder = run_folder.reopen(config)
    checkpoints.set_aside_newer(folder, checkpoint)
    for name in growing_files.cut_back(folder, checkpoint.manifest.appended):
        _tell(
            f"Warning: {folder / name} is shorter than it was at {checkpoint.step:,} transitions: some of it is lost."
        )
    return folder


def _evaluation(config: RunConfig, folder: Path, env: VecEnv) -> MultiTaskEvalCallback:
    every = config.evaluation.every
    return MultiTaskEvalCallback(
        env,
        eval_freq=sys.maxsize if every is None else max(every // env.num_envs, 1),
        n_episodes=config.evaluation.n_goals,
        best_model_save_path=folder,
        tell=_tell,
    )


def _watching(config: RunConfig, folder: Path, env: VecEnv, camera: Camera | None) -> list[BaseCallback]:
    """Figures, records and clips, as often as the config says."""
    figures, records = config.log.figures_every, config.log.record_every
    callbacks: list[BaseCallback] = []
    if figures is not None:
        callbacks.append(TransferenceFigures(max(figures // env.num_envs, 1)))
    if records is not None:
        callbacks.append(RecordTransference(folder / run_folder.RECORD_FILE, records, _tell))
    if config.log.videos_every is not None and camera is not None:
        callbacks.append(ClipsEvery(config.log.videos_every, camera))
    return callbacks


def _tell(line: str) -> None:
    """To the user, above the progress bar."""
    tqdm.write(line, file=STDERR)
