"""The command lines ``mtrl-train``, ``mtrl-evaluate`` and ``mtrl-compare``, and the benchmarks."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence

from rich.console import Console

from agents.runs.benchmark import BENCHMARKS
from agents.runs.compare.command import compare as compare_methods
from agents.runs.evaluate import evaluate_run
from agents.runs.exit_codes import exit_code
from agents.runs.grouping.stages import STAGES, run_stage
from agents.runs.information.run import report as report_information
from agents.runs.run_folder import load_run
from agents.runs.streams import STDOUT
from agents.runs.supervised.run import run_study
from agents.runs.train import train as train_run
from agents.runs.yaml_files import comparisons, presets


def train(arguments: Sequence[str] | None = None) -> int:
    """Train an agent: ``CONFIG key.sub=value ...``. Returns the exit code."""
    parser = argparse.ArgumentParser(
        "mtrl-train",
        description="Train a multi-task agent, evaluate it by the protocol and keep all of it in a run folder.",
        epilog=f"Presets: {', '.join(presets())}. All keys, with their meaning: agents/runs/schema.py.",
    )
    parser.add_argument("config", metavar="CONFIG", help="a YAML file, or a preset's name")
    parser.add_argument(
        "overrides", metavar="key.sub=value", nargs="*", default=[], help="e.g. agent.learning_rate=1e-3 seed=3"
    )
    return _exit_code(parser, arguments, lambda of: train_run(load_run(of.config, of.overrides), Console(file=STDOUT)))


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
    return _exit_code(parser, arguments, lambda of: evaluate_run(of.agent, of.options, Console(file=STDOUT)))


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
    return _exit_code(parser, arguments, lambda of: compare_methods(of.comparison, of.overrides, Console(file=STDOUT)))


def benchmark(arguments: Sequence[str] | None = None) -> int:
    """Run a benchmark: ``update|envs|checkpoint|soak key=value ...``. Returns the exit code."""
    parser = argparse.ArgumentParser("benchmark", description="Measure costs, as ratios taken in one run.")
    parser.add_argument(
        "what", choices=BENCHMARKS, help="updates by combiner and measure, environments, checkpoints, a long run"
    )
    parser.add_argument("options", metavar="key=value", nargs="*", default=[], help="e.g. rows=32 hidden=[256,256,256]")
    return _exit_code(parser, arguments, lambda of: BENCHMARKS[of.what](of.options, Console(file=STDOUT)))


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
    return _exit_code(parser, arguments, lambda of: run_stage(of.stage, of.config, of.overrides, Console(file=STDOUT)))


def supervised(arguments: Sequence[str] | None = None) -> int:
    """Study groups and combiners on a supervised suite: ``key=value ...``. Returns the exit code."""
    parser = argparse.ArgumentParser(
        "supervised", description="Train every group of a small suite's tasks; measure the regret of chosen ones."
    )
    parser.add_argument(
        "options", metavar="key=value", nargs="*", default=[], help="e.g. suite=regression seeds=5 steps=600"
    )
    return _exit_code(parser, arguments, lambda of: run_study(of.options, Console(file=STDOUT)))


def information_transfer(arguments: Sequence[str] | None = None) -> int:
    """Reproduce the theory of information transfer on synthetic tasks: ``key=value ...``. Returns the exit code."""
    parser = argparse.ArgumentParser(
        "information_transfer",
        description="When tasks help each other, and what alignment and reweighting do about it, on synthetic tasks.",
    )
    parser.add_argument("options", metavar="key=value", nargs="*", default=[], help="e.g. trials=20 angles=7 seed=0")
    return _exit_code(parser, arguments, lambda of: report_information(of.options, Console(file=STDOUT)))


def _exit_code(
    parser: argparse.ArgumentParser,
    arguments: Sequence[str] | None,
    work: Callable[[argparse.Namespace], object],
) -> int:
    return exit_code(parser.prog, lambda: work(parser.parse_args(arguments)))
