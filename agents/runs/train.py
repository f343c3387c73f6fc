"""One training run, from config to table."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.console import Console
from stable_baselines3.common.callbacks import BaseCallback, CallbackList
from stable_baselines3.common.vec_env import VecEnv

from agents import MTSAC, Evaluation, MultiTaskEvalCallback, evaluate
from agents.monitoring import TENSORBOARD_ONLY, TransferenceFigures
from agents.recording import RecordTransference
from agents.runs import checkpoints, run_folder, tables
from agents.runs.build import evaluation_env, make_agent, training_env
from agents.runs.callbacks import CheckpointEvery, ClipsEvery, LogEvery, ProgressBar, StopBetweenUpdates, StopRequested
from agents.runs.checkpoints import Checkpoint
from agents.runs.config import to_yaml
from agents.runs.errors import InputError
from agents.runs.estimate import estimate
from agents.runs.metrics import hyperparameters, make_logger
from agents.runs.protocol import run_protocol
from agents.runs.schema import RunConfig
from agents.runs.time_split import TimeSplit
from agents.runs.videos import Camera
from envs import protocol_card


class Interrupted(Exception):
    """The user stopped a run, whose state has been saved; the message says how to go on."""


def train(config: RunConfig, console: Console) -> Path:
    """Run a config to its end: estimate, training, evaluation by the protocol, table.

    A resumed run continues from its newest checkpoint with agent, optimizers, replay and counters as they were.
    Episodes begin anew and exploration and environments restart their random streams: it is not yet bit for bit the
    run that was interrupted.

    Args:
        config: what to run; ``run_dir`` and ``resume`` say where.
        console: where it is told.

    Returns:
        The run folder.

    Raises:
        InputError: before anything is written, if the run folder cannot be used so.
        Interrupted: after Ctrl-C, once a checkpoint is written.
    """
    run_folder.check_run_dir(config)
    newest = _checkpoint_to_resume(config) if config.resume else None
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    torch.set_float32_matmul_precision(config.matmul_precision)
    done = 0 if newest is None else newest.step
    if config.log.progress:
        tables.print_estimate(console, estimate(config, done), config.total_timesteps - done)
    camera = None if config.log.videos_every is None else Camera(config)
    session = _open(config, newest, camera)
    console.print(f"Run folder: {session.folder}", highlight=False, soft_wrap=True)
    try:
        _learn(session)
        return _finish(session, console)
    finally:
        session.model.logger.close()
        session.env.close()
        session.evaluation.eval_env.close()
        if camera is not None:
            camera.close()


@dataclass
class _Session:
    """What a running run consists of."""

    config: RunConfig
    folder: Path
    env: VecEnv
    model: MTSAC
    evaluation: MultiTaskEvalCallback
    time: TimeSplit
    camera: Camera | None

    def save(self) -> Path:
        """Write a checkpoint."""
        state = {
            "seconds": self.time.total(),
            "evaluation_seconds": self.evaluation.seconds,
            "best_mean_success": self.evaluation.best_mean_success,
        }
        return checkpoints.save(self.folder, self.model, state, self.config.checkpoint.keep)


def _checkpoint_to_resume(config: RunConfig) -> Checkpoint:
    assert config.run_dir is not None
    folder = Path(config.run_dir)
    newest = checkpoints.newest(folder)
    if newest is None:
        raise InputError(f"run_dir={folder} has no checkpoint to resume from; start anew in another folder")
    if newest.step >= config.total_timesteps and (folder / run_folder.EVALUATION_FILE).is_file():
        raise InputError(
            f"the run in {folder} is complete at {newest.step} transitions; total_timesteps={config.total_timesteps} "
            "should be larger to go on"
        )
    return newest


def _open(config: RunConfig, newest: Checkpoint | None, camera: Camera | None) -> _Session:
    env = training_env(config)
    if newest is None:
        model = make_agent(config, env)
    else:
        model = MTSAC.load(newest.folder / checkpoints.AGENT, env=env, device=config.agent.device)
        model.load_replay_buffer(newest.folder / checkpoints.REPLAY)
    apart = evaluation_env(config.env, config.evaluation.goals, config.evaluation.seed)
    protocol = run_protocol(config, protocol_card(env), model.device.type)
    folder = run_folder.create(config, protocol) if newest is None else run_folder.reopen(config)
    texts = {"config": (to_yaml(config), "yaml"), "protocol": (run_folder.to_json(protocol), "json")}
    model.set_logger(make_logger(folder, texts, None if newest is None else newest.step))
    if newest is None:
        model.logger.record("hparams", hyperparameters(config), exclude=TENSORBOARD_ONLY)
    evaluation = _evaluation(config, folder, apart, newest)
    before = 0.0 if newest is None else newest.state["seconds"]
    return _Session(config, folder, env, model, evaluation, TimeSplit(model, evaluation, before), camera)


def _evaluation(config: RunConfig, folder: Path, env: VecEnv, newest: Checkpoint | None) -> MultiTaskEvalCallback:
    every = config.evaluation.every
    callback = MultiTaskEvalCallback(
        env,
        eval_freq=sys.maxsize if every is None else max(every // env.num_envs, 1),
        n_episodes=config.evaluation.n_goals,
        best_model_save_path=folder,
    )
    if newest is not None:
        callback.n_calls = newest.step // env.num_envs
        callback.seconds = newest.state["evaluation_seconds"]
        callback.best_mean_success = newest.state["best_mean_success"]
    return callback


def _learn(session: _Session) -> None:
    config, model = session.config, session.model
    remaining = config.total_timesteps - model.num_timesteps
    if remaining <= 0:
        return
    bar = ProgressBar(config.total_timesteps, session.evaluation, config.log.progress)
    every = config.checkpoint.every
    watching = [*_figures(config, session.env), *_records(config, session.folder), *_clips(session)]
    callbacks = [session.evaluation, LogEvery(config.log.every), bar, *watching]
    if every is not None:
        callbacks.append(CheckpointEvery(every, session.save))
    try:
        with StopBetweenUpdates() as stop:
            # Logging is LogEvery's, by transitions; the agent's own counts episodes.
            model.learn(remaining, CallbackList([*callbacks, stop]), sys.maxsize, reset_num_timesteps=False)
    except StopRequested:
        bar.close()
        session.save()
        raise Interrupted(
            f"Stopped at {model.num_timesteps:,} transitions. Continue with:\n  {_resume(session)}"
        ) from None
    finally:
        bar.close()
    session.save()


def _figures(config: RunConfig, env: VecEnv) -> list[BaseCallback]:
    every = config.log.figures_every
    return [] if every is None else [TransferenceFigures(max(every // env.num_envs, 1))]


def _clips(session: _Session) -> list[BaseCallback]:
    every = session.config.log.videos_every
    return [] if every is None or session.camera is None else [ClipsEvery(every, session.camera)]


def _records(config: RunConfig, folder: Path) -> list[BaseCallback]:
    every = config.log.record_every
    return [] if every is None else [RecordTransference(folder / run_folder.RECORD_FILE, every)]


def _resume(session: _Session) -> str:
    program = Path(sys.argv[0])
    command = f"python {program}" if program.suffix == ".py" else program.name
    return f"{command} {session.folder / run_folder.CONFIG_FILE} resume=true"


def _finish(session: _Session, console: Console) -> Path:
    config, model = session.config, session.model
    model.save(session.folder / run_folder.AGENT_FILE)
    console.print(f"Evaluating: {config.evaluation.final_n_goals} episodes a task ...", highlight=False, soft_wrap=True)
    # Environments of its own: how often the training was evaluated must not change what is played here.
    env = evaluation_env(config.env, config.evaluation.goals, config.evaluation.seed)
    start = time.perf_counter()
    result: Evaluation = evaluate(model, env, config.evaluation.final_n_goals)
    session.time.final_evaluation = time.perf_counter() - start
    env.close()
    content = tables.evaluation_json(
        result, step=model.num_timesteps, goals=config.evaluation.goals, seconds=session.time.seconds()
    )
    run_folder.write_text(session.folder / run_folder.EVALUATION_FILE, run_folder.to_json(content))
    tables.print_end(console, result, model, session.time.seconds(), session.folder)
    return session.folder
