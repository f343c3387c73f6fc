"""A run in progress: begun, or restored from a checkpoint."""

from __future__ import annotations

import contextlib
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import VecEnv
from tqdm import tqdm

from mtrl_transfer.agents import MTSAC, MultiTaskEvalCallback
from mtrl_transfer.agents.monitoring.callbacks import RecordTransference, TransferenceFigures
from mtrl_transfer.agents.monitoring.layout import TENSORBOARD_ONLY
from mtrl_transfer.agents.runs import run_folder
from mtrl_transfer.agents.runs.build import evaluation_env, make_agent, training_callbacks, training_env
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
from mtrl_transfer.agents.runs.logs.wandb_run import WandbWriter
from mtrl_transfer.agents.runs.outcome import continued_protocol, finished_step
from mtrl_transfer.agents.runs.protocol import run_protocol
from mtrl_transfer.agents.runs.streams import STDERR, say
from mtrl_transfer.agents.storage.agent_archive import take_over_from
from mtrl_transfer.agents.storage.archive import flatten, read_archive, unflatten
from mtrl_transfer.agents.storage.archive_checks import INCONSISTENT_ARCHIVE_ERRORS
from mtrl_transfer.agents.storage.training_state import restore_training_state, training_state
from mtrl_transfer.envs import protocol_card


@dataclass
class Session:
    """The parts of a run in progress."""

    config: RunConfig
    folder: Path
    env: VecEnv
    model: MTSAC
    evaluation: MultiTaskEvalCallback
    callbacks: list[BaseCallback]
    time: TimeSplit
    writer: CheckpointWriter
    camera: Camera | None
    precision: str

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
        self.writer.save(self.model, self._state(), growing_files.sizes(self.folder))

    def check_storable(self) -> None:
        """Check that checkpoints can hold the state of callbacks and environments.

        Raises:
            InputError: if not; the message says which value it is.
        """
        try:
            flatten(self._state(), "training")
        except ValueError as error:
            raise InputError(f"no checkpoint could be written: {error}") from None

    def restore(self, checkpoint: Checkpoint, state: dict[str, Any]) -> None:
        """Restore everything to the checkpoint. Call it last: it sets the global random generators."""
        for name, callback in self._stateful().items():
            if name in state["callbacks"]:  # a figure may have been switched on since
                callback.load_state_dict(state["callbacks"][name])
        for callback in self.callbacks:
            callback.n_calls = checkpoint.step // self.env.num_envs
        restore_training_state(self.model, state["training"])

    def close(self) -> None:
        """Wait for the checkpoint being written, and close files and environments."""
        self.writer.wait()
        self.model.logger.close()
        self.env.close()
        self.evaluation.eval_env.close()
        if self.camera is not None:
            self.camera.close()

    def _state(self) -> dict[str, Any]:
        return {
            "seconds": self.time.total(),
            "callbacks": {name: callback.state_dict() for name, callback in self._stateful().items()},
            "training": training_state(self.model),
        }

    def _stateful(self) -> dict[str, Any]:
        """Callbacks with a state by name; the second of a class is called ``Class_2``."""
        names = Counter[str]()
        found = {}
        for one in self.callbacks:
            if hasattr(one, "load_state_dict"):
                name = type(one).__name__
                names[name] += 1
                found[name if names[name] == 1 else f"{name}_{names[name]}"] = one
        return found


def checkpoint_to_resume(config: RunConfig, console: Console) -> Checkpoint | None:
    """Find where a run goes on; None where it was killed before its first checkpoint and starts over.

    Args:
        config: of the run; ``run_dir`` is its folder.
        console: prints what the user should know.

    Raises:
        InputError: if the run is complete, if all its checkpoints are damaged, or if a key that may not change has.
    """
    assert config.run_dir is not None
    folder = Path(config.run_dir)
    newest = checkpoints.newest(folder)
    run_folder.check_same_run(config, folder, None if newest is None else newest.manifest.config)
    if newest is None:
        finished = [name for name in (run_folder.AGENT_FILE, run_folder.EVALUATION_FILE) if (folder / name).exists()]
        if finished:
            raise InputError(f"{folder} holds {finished[0]} but no checkpoint to resume from; start anew elsewhere")
        say(console, f"{folder} has no checkpoint yet: the run starts over, and its logs are cleared")
        return None
    if min(newest.step, finished_step(folder)) >= config.total_timesteps:
        raise InputError(
            f"the run in {folder} is complete at {newest.step} transitions; total_timesteps={config.total_timesteps} "
            "should be larger to go on"
        )
    for damage in newest.damaged:
        say(console, f"Warning: {damage}; continuing from {newest.step}")
    return newest


def open_session(config: RunConfig, checkpoint: Checkpoint | None, own: Sequence[BaseCallback] = ()) -> Session:
    """Make a run, or bring one back. All that is read is checked before anything is written.

    Args:
        config: of the run.
        checkpoint: where to continue; None: a run that begins.
        own: the user's callbacks.

    Raises:
        InputError: if the checkpoint, or the records beside it, are not this run's.
    """
    with contextlib.ExitStack() as undo:
        camera = None if config.log.videos_every is None else Camera(config)
        env = training_env(config)
        undo.callback(env.close)
        model = _new_agent(config, env) if checkpoint is None else _agent(config, env, checkpoint)
        apart = evaluation_env(config.env, config.evaluation.goals, config.evaluation.seed)
        undo.callback(apart.close)
        protocol = run_protocol(
            config, protocol_card(env), apart.protocol["horizon"], model.device.type, bool(model.compile)
        )
        if checkpoint is None:
            folder = _begin(config, protocol)
        else:
            folder = Path(str(config.run_dir))
            protocol = continued_protocol(folder, protocol)
        evaluation = _evaluation(config, folder, apart)
        callbacks = [evaluation, LogEvery(config.log.every)]
        callbacks += [*training_callbacks(config), *_watching(config, folder, env, camera), *own]
        state = None if checkpoint is None else _training(checkpoint)
        time = TimeSplit(model, evaluation, 0.0 if state is None else state["seconds"])
        writer = CheckpointWriter(folder, config.checkpoint.keep, _tell, config.model_dump(mode="json"))
        precision = protocol["precision"]
        session = Session(config, folder, env, model, evaluation, callbacks, time, writer, camera, precision)
        if checkpoint is not None:
            assert state is not None
            growing_files.check_records(folder, model.task_names)
            writer.continue_from(checkpoint.manifest)
            with _refusing(checkpoint):
                session.restore(checkpoint, state)
            _reopen(config, protocol, checkpoint)
        texts = {"config": (to_yaml(config), "yaml"), "protocol": (run_folder.to_json(protocol), "json")}
        others = [] if config.log.wandb is None else [WandbWriter(folder, config)]
        model.set_logger(make_logger(folder, texts, model.num_timesteps, _tell, others))
        if checkpoint is None:
            model.logger.record("hparams", hyperparameters(config), exclude=TENSORBOARD_ONLY)
            model.logger.dump(0)
        undo.pop_all()
    return session


def _begin(config: RunConfig, protocol: Mapping[str, Any]) -> Path:
    """Make the folder of a run, or clear that of one that was killed before its first checkpoint."""
    if config.resume:
        folder = Path(str(config.run_dir))
        checkpoints.clear_partial(folder)
        growing_files.cut_back(folder, {})
        (folder / run_folder.BEST_FILE).unlink(missing_ok=True)
    return run_folder.create(config, protocol)


def _new_agent(config: RunConfig, env: VecEnv) -> MTSAC:
    model = make_agent(config, env)
    if config.begin_from is not None:
        source = Path(config.begin_from)
        path = source / run_folder.AGENT_FILE if source.is_dir() else source
        try:
            kept = take_over_from(model, path)
        except (ValueError, OSError) as error:
            raise InputError(f"from={source}: {error}") from None
        _tell(f"Begins with what {path} has learned of {', '.join(kept)}")
    return model


def _agent(config: RunConfig, env: VecEnv, checkpoint: Checkpoint) -> MTSAC:
    with _refusing(checkpoint):
        model = MTSAC.load(checkpoint.folder / checkpoints.AGENT, env=env, device=config.agent.device)
        if model.num_timesteps != checkpoint.step:
            raise ValueError(f"its agent is one of {model.num_timesteps} transitions")
        checkpoints.load_replay(checkpoint.folder.parents[1], checkpoint.manifest, model.replay_buffer)
    return model


def _training(checkpoint: Checkpoint) -> dict[str, Any]:
    with _refusing(checkpoint):
        data, tensors = read_archive(checkpoint.folder / checkpoints.TRAINING)
        state = unflatten(data["training"], tensors)
        return {"seconds": float(state["seconds"]), "callbacks": state["callbacks"], "training": state["training"]}


@contextlib.contextmanager
def _refusing(checkpoint: Checkpoint) -> Iterator[None]:
    """Refuse a checkpoint whose hashes are right and whose content is not."""
    try:
        yield
    except InputError:
        raise
    except (*INCONSISTENT_ARCHIVE_ERRORS, ValueError) as error:
        what = f"{type(error).__name__}: {error}".splitlines()[0]
        raise InputError(f"cannot continue from {checkpoint.folder}: {what}") from None


def _reopen(config: RunConfig, protocol: Mapping[str, Any], checkpoint: Checkpoint) -> None:
    folder = run_folder.create(config, protocol)
    checkpoints.set_aside_newer(folder, checkpoint)
    for name in growing_files.cut_back(folder, checkpoint.manifest.appended):
        _tell(
            f"Warning: {folder / name} is shorter than it was at {checkpoint.step:,} transitions: some of it is lost."
        )


def _evaluation(config: RunConfig, folder: Path, env: VecEnv) -> MultiTaskEvalCallback:
    every = config.evaluation.every
    return MultiTaskEvalCallback(
        env,
        eval_freq=sys.maxsize if every is None else max(every // env.num_envs, 1),
        n_eval_episodes=config.evaluation.n_goals,
        best_model_save_path=folder,
        tell=_tell,
    )


def _watching(config: RunConfig, folder: Path, env: VecEnv, camera: Camera | None) -> list[BaseCallback]:
    """Callbacks for figures, records and clips."""
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
    """Print a line above the progress bar."""
    tqdm.write(line, file=STDERR)
