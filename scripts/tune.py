"""Search keys of a config by an Optuna study: ``scripts/tune.py CONFIG search=VALUES key=value ...``."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field
from rich.console import Console

from mtrl_transfer.agents import MultiTaskEvalCallback, evaluate
from mtrl_transfer.agents.declarations import Count, Section
from mtrl_transfer.agents.runs.build import evaluation_env, make_agent, training_callbacks, training_env
from mtrl_transfer.agents.runs.cli import run_command
from mtrl_transfer.agents.runs.config.loading import load_config, section
from mtrl_transfer.agents.runs.errors import InputError
from mtrl_transfer.agents.runs.streams import say
from mtrl_transfer.agents.runs.torch_settings import torch_settings
from mtrl_transfer.faults import NotFinite

EXAMPLE = """example:
  scripts/tune.py point trials=50 search="{agent.learning_rate: {low: 1e-4, high: 1e-2, log: true}, combiner.name: [mean, pcgrad]}"
"""  # noqa: E501


class Range(Section):
    """Numbers from ``low`` to ``high``, whole ones if both are."""

    low: int | float
    high: int | float
    log: bool = False

    def suggest(self, trial: Any, key: str) -> Any:
        """A trial's value of a key."""
        whole = isinstance(self.low, int) and isinstance(self.high, int)
        return (trial.suggest_int if whole else trial.suggest_float)(key, self.low, self.high, log=self.log)


class TuneOptions(Section):
    """Options of a study."""

    search: Annotated[dict[str, Range | list[Any]], Field(min_length=1)]
    """Keys of the config, each with a list of choices or a range ``{low: 1e-4, high: 1e-2, log: true}``."""
    trials: Count = 30
    """Trials in all; a study that goes on counts those it has."""
    study: Path = Path("runs/tune.db")
    """File of the study. Given again, the study goes on; several processes may share it."""

    def overrides(self, trial: Any) -> list[str]:
        """A trial's values of the searched keys."""
        return [
            f"{key}={values.suggest(trial, key) if isinstance(values, Range) else _choice(trial, key, values)}"
            for key, values in self.search.items()
        ]


def _choice(trial: Any, key: str, values: list[Any]) -> str:
    return trial.suggest_categorical(key, [json.dumps(value) for value in values])


class TrialEvaluation(MultiTaskEvalCallback):
    """Evaluation in training that reports to a trial, and ends training where the pruner says so."""

    trial: Any
    pruned = False

    def evaluate(self) -> Any:
        """Evaluate, and report mean success."""
        result = super().evaluate()
        self.trial.report(result.mean_success, self.num_timesteps)
        self.pruned = self.trial.should_prune()
        return result

    def _on_step(self) -> bool:
        return super()._on_step() and not self.pruned


def score(trial: Any, argument: str, overrides: Sequence[str]) -> float:
    """Train once, and return mean success by the protocol."""
    from optuna import TrialPruned

    config = load_config(argument, overrides)
    protocol, ask = config.evaluation, (config.env, config.evaluation.goals, config.evaluation.seed)
    with (
        torch_settings(config.matmul_precision, config.threads),
        contextlib.closing(training_env(config)) as env,
        contextlib.closing(evaluation_env(*ask)) as apart,
        contextlib.closing(evaluation_env(*ask)) as final,
    ):
        every = max((protocol.every or config.total_timesteps) // env.num_envs, 1)
        watching = TrialEvaluation(apart, every, protocol.n_goals)
        watching.trial = trial
        model = make_agent(config, env)
        model.learn(config.total_timesteps, [watching, *training_callbacks(config)], sys.maxsize)
        if watching.pruned:
            raise TrialPruned
        return evaluate(model, final, protocol.final_n_goals).mean_success


def tune(argument: str, given: Sequence[str], console: Console) -> None:
    """Run a study, or go on with it, and print the best values."""
    try:
        import optuna
    except ImportError:
        raise InputError("scripts/tune.py needs optuna: pip install 'mtrl-transfer[tune]'") from None
    own = [one for one in given if one.partition("=")[0] in TuneOptions.model_fields]
    options, overrides = section(TuneOptions, own), [one for one in given if one not in own]
    config = load_config(argument, overrides)
    options.study.parent.mkdir(parents=True, exist_ok=True)
    pruner, file = optuna.pruners.MedianPruner(), f"sqlite:///{options.study}"
    study = optuna.create_study(
        storage=file, pruner=pruner, study_name=config.name, direction="maximize", load_if_exists=True
    )
    subject = {"config": argument, "keys": sorted(overrides), "search": options.model_dump(mode="json")["search"]}
    if study.user_attrs.get("subject", subject) != subject:
        raise InputError(f"study={options.study} is of {study.user_attrs['subject']}; choose another file")
    study.set_user_attr("subject", subject)
    study.sampler = optuna.samplers.TPESampler(seed=config.seed + len(study.trials))
    left = options.trials - sum(trial.state.name in ("COMPLETE", "PRUNED") for trial in study.trials)
    study.optimize(
        lambda trial: score(trial, argument, [*overrides, *options.overrides(trial)]),
        n_trials=max(left, 0),
        catch=(NotFinite,),
    )
    best = " ".join([*overrides, *(f"{key}={value}" for key, value in study.best_params.items())])
    say(console, f"Best of {len(study.trials)} trials, of one seed: mean success {study.best_value:.3f}")
    say(console, f"  mtrl-train {argument} {best}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line. Returns the exit code."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser("tune", description=str(__doc__), epilog=EXAMPLE, formatter_class=raw)
    parser.add_argument("config", metavar="CONFIG", help="a YAML file, or a preset's name")
    parser.add_argument(
        "given", metavar="key=value", nargs="*", help="search=, trials=, study=, and keys of the config"
    )
    return run_command(parser, arguments, lambda of, console: tune(of.config, of.given, console))


if __name__ == "__main__":  # worker processes import this file
    raise SystemExit(main())
