"""One training run, from config to table."""

from __future__ import annotations

import contextlib
import shlex
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console
from stable_baselines3.common.callbacks import BaseCallback, CallbackList

from mtrl_transfer.agents import Evaluation, evaluate
from mtrl_transfer.agents.runs import run_folder, tables
from mtrl_transfer.agents.runs.build import evaluation_env
from mtrl_transfer.agents.runs.callbacks import CheckpointEvery, ProgressBar
from mtrl_transfer.agents.runs.config.machine import compile_problems, cuda_graph_problems, device_problems
from mtrl_transfer.agents.runs.config.schema import RunConfig
from mtrl_transfer.agents.runs.errors import Failed, InputError, Interrupted
from mtrl_transfer.agents.runs.estimate import estimate
from mtrl_transfer.agents.runs.logs.wandb_run import wandb_problems
from mtrl_transfer.agents.runs.own_callbacks import own_callbacks
from mtrl_transfer.agents.runs.session import Session, checkpoint_to_resume, open_session
from mtrl_transfer.agents.runs.stopping import SIGNALS, StopBetweenUpdates, Stopping, StopRequested, handled
from mtrl_transfer.agents.runs.streams import say
from mtrl_transfer.agents.runs.torch_settings import torch_settings
from mtrl_transfer.faults import NotFinite


def train(config: RunConfig, console: Console) -> Path:
    """Run a config to its end: estimate, training, evaluation by the protocol, table.

    A resumed run continues from its newest whole checkpoint. On a CPU it is bit for bit the run that was interrupted,
    wherever that was: agent, replay, random generators, episodes under way, statistics and log files are as they were.

    Args:
        config: what to run; ``run_dir`` and ``resume`` say where.
        console: prints the progress.

    Returns:
        The run folder.

    Raises:
        InputError: before anything is written, if the run folder cannot be used so, or another process trains in it;
            before the first step, if an environment's state cannot be stored.
        Interrupted: after Ctrl-C or SIGTERM, once a checkpoint is written.
        Failed: when losses are not finite for too long, or when the agent or its evaluation cannot be written.
    """
    checks = (device_problems, cuda_graph_problems, compile_problems, wandb_problems)
    if problems := next(filter(None, (check(config) for check in checks)), None):
        raise InputError(problems)
    run_folder.check_run_dir(config)
    own = own_callbacks(config)
    with contextlib.ExitStack() as held:
        if config.run_dir is not None:
            held.enter_context(run_folder.locked(Path(config.run_dir)))
        held.enter_context(torch_settings(config.matmul_precision, config.threads))
        stopping = Stopping()
        held.enter_context(handled(SIGNALS, stopping.on_signal))
        session = _begin(config, console, stopping, own)
        if config.run_dir is None:  # nobody knew the folder before
            held.enter_context(run_folder.locked(session.folder))
        held.callback(session.close)
        say(console, f"Run folder: {session.folder}")
        say(console, f"Matrix products of updates: {session.precision} (matmul_precision: {config.matmul_precision})")
        if config.agent.compile:
            compiled = "compiled, the first takes half a minute" if session.model.compile else "not compiled"
            say(console, f"Updates: {compiled} (agent.compile: {config.agent.compile})")
        try:
            _learn(session, stopping)
            return _finish(session, console, stopping)
        except StopRequested as request:
            raise Interrupted(_farewell(session), request.signal_number) from None


def _begin(config: RunConfig, console: Console, stopping: Stopping, own: list[BaseCallback]) -> Session:
    try:
        with stopping.at_once():
            newest = checkpoint_to_resume(config, console) if config.resume else None
            done = 0 if newest is None else newest.step
            if config.log.progress:
                tables.print_estimate(console, estimate(config, done), config.total_timesteps - done)
            return open_session(config, newest, own)
    except StopRequested as request:
        raise Interrupted("Stopped before training began.", request.signal_number) from None


def _learn(session: Session, stopping: Stopping) -> None:
    config, model = session.config, session.model
    remaining = config.total_timesteps - model.num_timesteps
    if remaining <= 0:
        return
    bar = ProgressBar(config, session.evaluation)
    checkpoints = CheckpointEvery(config.checkpoint.every or sys.maxsize, session.save, session.check_storable)
    callbacks = [*session.callbacks, bar, checkpoints, StopBetweenUpdates(stopping)]
    try:
        # Logging is LogEvery's, by transitions; the agent's own counts episodes.
        model.learn(remaining, CallbackList(callbacks), sys.maxsize, reset_num_timesteps=False)
    except StopRequested:
        bar.close()
        session.save()
        raise
    except NotFinite as error:
        session.writer.wait()
        last = session.writer.last_step
        good = "There is no checkpoint." if last is None else f"The last good checkpoint is at {last:,} transitions."
        raise Failed(f"Training stopped at {model.num_timesteps:,} transitions: {error}. {good}") from None
    finally:
        bar.close()
    session.save()


def _farewell(session: Session) -> str:
    session.writer.wait()
    step = session.model.num_timesteps
    if session.writer.failure is None:
        return f"Stopped at {step:,} transitions. Continue with:\n  {_resume(session)}"
    return (
        f"Stopped at {step:,} transitions, which could not be saved: {session.writer.failure}\n"
        f"What is saved can be continued with:\n  {_resume(session)}"
    )


def _resume(session: Session) -> str:
    program = Path(sys.argv[0])
    command = ["python", str(program)] if program.suffix == ".py" else [program.name]
    return shlex.join([*command, str(session.folder / run_folder.CONFIG_FILE), "resume=true"])


def _finish(session: Session, console: Console, stopping: Stopping) -> Path:
    config, model, missing = session.config, session.model, list[str]()
    with _noted(missing, run_folder.AGENT_FILE):
        model.save(session.folder / run_folder.AGENT_FILE)
    say(console, f"Evaluating: {config.evaluation.final_n_goals} episodes a task ...")
    with stopping.at_once():
        result = _final_evaluation(session)
    content = tables.evaluation_json(
        result, step=model.num_timesteps, goals=config.evaluation.goals, seconds=session.time.seconds()
    )
    with _noted(missing, run_folder.EVALUATION_FILE):
        run_folder.write_text(session.folder / run_folder.EVALUATION_FILE, run_folder.to_json(content))
    tables.print_end(console, result, model, session.time.seconds())
    if missing:
        raise Failed(f"{'; '.join(missing)}. Make room, then repeat the run's end with:\n  {_resume(session)}")
    tables.print_folder(console, session.folder)
    return session.folder


def _final_evaluation(session: Session) -> Evaluation:
    """Evaluate in new environments, whose episodes do not depend on how often the training was evaluated."""
    config = session.config
    start = time.perf_counter()
    with contextlib.closing(evaluation_env(config.env, config.evaluation.goals, config.evaluation.seed)) as env:
        result = evaluate(session.model, env, config.evaluation.final_n_goals)
    session.time.final_evaluation = time.perf_counter() - start
    return result


@contextlib.contextmanager
def _noted(missing: list[str], name: str) -> Iterator[None]:
    """Note that a file could not be written, instead of losing the other results of the finished training."""
    try:
        yield
    except OSError as error:
        missing.append(f"{name} could not be written: {error}")
