"""Evaluating a finished or running run's agent by the protocol."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Literal

from rich.console import Console

from mtrl_transfer.agents import MTSAC, Actor, Evaluation, RoutedAgent, evaluate, load_actor, load_agent
from mtrl_transfer.agents.declarations import Count, Section
from mtrl_transfer.agents.runs import tables
from mtrl_transfer.agents.runs.build import evaluation_env
from mtrl_transfer.agents.runs.checkpoint import checkpoints
from mtrl_transfer.agents.runs.config.checks import inconsistencies
from mtrl_transfer.agents.runs.config.loading import load_config, section, validated
from mtrl_transfer.agents.runs.config.machine import device_here
from mtrl_transfer.agents.runs.config.schema import RunConfig
from mtrl_transfer.agents.runs.errors import Failed, InputError
from mtrl_transfer.agents.runs.logs.videos import Camera, write_clips
from mtrl_transfer.agents.runs.run_folder import AGENT_FILE, CONFIG_FILE, to_json, write_text
from mtrl_transfer.agents.runs.streams import say
from mtrl_transfer.agents.storage.actor_file import ACTOR_SUFFIX


class EvaluateOptions(Section):
    """Options of an evaluation; everything not listed follows the run's config."""

    episodes: Count | None = None
    """Episodes (goals) per task; null: as at the run's end."""
    goals: Literal["train", "unseen"] | None = None
    """The training goals, or others; null: as at the run's end."""
    video: bool = False
    """Also write a clip of each task, of one episode."""


def evaluate_run(argument: str, overrides: Sequence[str], console: Console) -> Evaluation:
    """Evaluate an agent and write ``evaluation_<goals>.json`` beside it.

    Args:
        argument: a run folder (its final agent, or its newest checkpoint), a checkpoint's folder, an agent's
            archive, or an actor's file.
        overrides: ``episodes=``, ``goals=`` and ``video=``.
        console: where the table is printed.

    Raises:
        InputError: for a bad option, where there is no agent or no config of its run, or where nothing can be drawn.
        Failed: when what was found, and is printed, cannot be written.
    """
    options = section(EvaluateOptions, overrides)
    agent = _find_agent(Path(argument))
    config = _with_options(_config_of(agent), options)
    camera = Camera(config) if options.video else None  # first: it may be that nothing can be drawn here
    model = _load(agent, config)
    goals = config.evaluation.goals
    with closing(evaluation_env(config.env, goals, config.evaluation.seed)) as env:
        result = evaluate(model, env, config.evaluation.final_n_goals)
    written = agent.with_name(f"evaluation_{goals}.json")
    content = tables.evaluation_json(result, agent=agent.name, step=model.num_timesteps, goals=goals)
    console.print(tables.evaluation_table(result))
    tables.print_mean(console, result)
    try:
        write_text(written, to_json(content))
        say(console, f"Written to {written}")
        if camera is not None:
            folder = write_clips(camera.clips(model), agent.parent / "videos")
            camera.close()
            say(console, f"Clips in {folder}")
    except OSError as error:
        raise Failed(f"the evaluation cannot be written: {error}") from None
    return result


def _find_agent(path: Path) -> Path:
    if path.is_file():
        return path
    if not path.exists():
        raise InputError(f"{path} does not exist; expected a run folder, a checkpoint or an agent's file")
    if (path / AGENT_FILE).is_file():
        return path / AGENT_FILE
    newest = checkpoints.newest(path)
    if newest is None:
        raise InputError(f"{path} holds neither {AGENT_FILE} nor a checkpoint")
    return newest.folder / checkpoints.AGENT


def _config_of(agent: Path) -> RunConfig:
    if agent.suffix == ACTOR_SUFFIX:
        return actor_config(agent, actor_in(agent))
    return load_config(str(_find_config(agent)))


def actor_in(file: Path) -> Actor:
    """The actor of a file.

    Raises:
        InputError: if there is none.
    """
    try:
        return load_actor(file)
    except (FileNotFoundError, ValueError) as error:
        raise InputError(f"cannot load {file}: {error}") from error


def actor_config(file: Path, actor: Actor) -> RunConfig:
    """A config with the tasks that an actor's file names; the protocol is the default one.

    Raises:
        InputError: if it names none, or bad ones.
    """
    if actor.env is None:
        raise InputError(f"{file} does not say what it plays: save_actor(..., env={{'id': 'MT10'}}) does")
    config, problems = validated({"name": file.stem, "total_timesteps": 1_000_000, "env": actor.env})
    if config is None:
        raise InputError([f"{file}: {problem}" for problem in problems])
    return config


def _find_config(agent: Path) -> Path:
    """The run's config: beside the agent, or above its checkpoint."""
    for folder in (agent.parent, *agent.resolve().parents[1:3]):
        if (folder / CONFIG_FILE).is_file():
            return folder / CONFIG_FILE
    raise InputError(
        f"{agent} lies in no run folder: there is no {CONFIG_FILE} beside it that says which tasks it plays"
    )


def _with_options(config: RunConfig, options: EvaluateOptions) -> RunConfig:
    chosen = {
        "final_n_goals": options.episodes or config.evaluation.final_n_goals,
        "goals": options.goals or config.evaluation.goals,
    }
    changed = config.model_copy(update={"evaluation": config.evaluation.model_copy(update=chosen)})
    problems = inconsistencies(changed)
    if problems:
        as_options = [problem.replace("evaluation.final_n_goals", "episodes") for problem in problems]
        raise InputError([problem.replace("evaluation.goals", "goals") for problem in as_options])
    return changed


def _load(agent: Path, config: RunConfig) -> MTSAC | RoutedAgent | Actor:
    if agent.suffix == ACTOR_SUFFIX:
        return actor_in(agent)
    try:
        return load_agent(agent, device_here(config.agent.device))
    except ValueError as error:
        raise InputError(f"cannot load {agent}: {error}") from error
