"""The command lines ``mtrl-train``, ``mtrl-evaluate``, ``mtrl-compare`` and ``mtrl-group``."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence

from rich.console import Console

from mtrl_transfer.agents.runs.compare.command import compare as compare_methods
from mtrl_transfer.agents.runs.config.yaml_files import comparisons, presets
from mtrl_transfer.agents.runs.evaluate import evaluate_run
from mtrl_transfer.agents.runs.exit_codes import exit_code
from mtrl_transfer.agents.runs.grouping.stages import STAGES, run_stage
from mtrl_transfer.agents.runs.run_folder import load_run
from mtrl_transfer.agents.runs.streams import STDOUT
from mtrl_transfer.agents.runs.train import train as train_run


def train(arguments: Sequence[str] | None = None) -> int:
    """Train an agent: ``CONFIG key.sub=value ...``. Returns the exit code."""
    parser = argparse.ArgumentParser(
        "mtrl-train",
        description="Train a multi-task agent, evaluate it by the protocol and keep all of it in a run folder.",
        epilog=f"Presets: {', '.join(presets())}. All keys, with their meaning: agents/runs/config/schema.py.",
    )
    parser.add_argument("config", metavar="CONFIG", help="a YAML file, or a preset's name")
    parser.add_argument(
        "overrides", metavar="key.sub=value", nargs="*", default=[], help="e.g. agent.learning_rate=1e-3 seed=3"
    )
    return run_command(parser, arguments, lambda of: train_run(load_run(of.config, of.overrides), Console(file=STDOUT)))


def evaluate(arguments: Sequence[str] | None = None) -> int:
    """Evaluate an agent: ``CHECKPOINT_OR_RUN_DIR [episodes=50] [goals=unseen] [video=true]``. Returns the exit code."""
    parser = argparse.ArgumentParser("mtrl-evaluate", description="Evaluate a trained agent by the protocol.")
    parser.add_argument("agent", metavar="CHECKPOINT_OR_RUN_DIR", help="a run folder, a checkpoint or an agent's zip")
    parser.add_argument(
        "options",
        metavar="key=value",
        nargs="*",
        default=[],
        help="episodes=50, goals=train or goals=unseen, video=true for a clip of each task",
    )
    return run_command(parser, arguments, lambda of: evaluate_run(of.agent, of.options, Console(file=STDOUT)))


def compare(arguments: Sequence[str] | None = None) -> int:
    """Compare methods: ``COMPARISON key=value ...``. Returns the exit code; 1 where runs are missing in the report."""
    parser = argparse.ArgumentParser(
        "mtrl-compare",
        description="Train methods times seeds, as far as that is not done already, and report how they compare.",
        epilog=f"Presets: {', '.join(comparisons())}. All keys, with their meaning: agents/runs/compare/schema.py.",
    )
    parser.add_argument("comparison", metavar="COMPARISON", help="a YAML file, or a preset's name")
    parser.add_argument(
        "overrides", metavar="key.sub=value", nargs="*", default=[], help="e.g. seeds=[1,2,3,4,5] engine=ray"
    )
    return run_command(parser, arguments, lambda of: compare_methods(of.comparison, of.overrides, Console(file=STDOUT)))


def group(arguments: Sequence[str] | None = None) -> int:
    """Choose which tasks share a network: ``STAGE CONFIG key=value ...``. Returns the exit code."""
    parser = argparse.ArgumentParser(
        "mtrl-group",
        description="Measure affinity in a joint run, choose groups of tasks, train them, report. Each stage does what "
        "is missing of those before it; called again, it goes on.",
    )
    parser.add_argument("stage", choices=STAGES, help="how far to go")
    parser.add_argument("config", metavar="CONFIG", help="of the joint run: a YAML file, or a preset's name")
    parser.add_argument(
        "overrides", metavar="key=value", nargs="*", default=[], help="of the config, or groups.n_groups=[2,3] and such"
    )
    return run_command(parser, arguments, lambda of: run_stage(of.stage, of.config, of.overrides, Console(file=STDOUT)))


def run_command(
    parser: argparse.ArgumentParser,
    arguments: Sequence[str] | None,
    work: Callable[[argparse.Namespace], object],
) -> int:
    """Parse the arguments and do the work. Return the exit code."""
    return exit_code(parser.prog, lambda: work(parser.parse_args(arguments)))
