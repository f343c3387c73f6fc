"""Command lines ``mtrl-train``, ``mtrl-evaluate``, ``mtrl-compare``, ``mtrl-group``, ``mtrl-demo`` and ``mtrl-push``.

Heavy imports lie inside the functions, so that ``--help`` answers at once.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mtrl_transfer.agents.runs.config.yaml_files import comparisons, find_config, presets
from mtrl_transfer.agents.runs.errors import InputError
from mtrl_transfer.choices import did_you_mean

if TYPE_CHECKING:
    from pydantic import BaseModel
    from rich.console import Console

STAGES = ("measure", "choose", "train", "report")


def train(arguments: Sequence[str] | None = None) -> int:
    """Train an agent: ``CONFIG key.sub=value ...``. Returns the exit code."""
    parser = _parser(
        "mtrl-train",
        "Train a multi-task agent, evaluate it by the protocol and keep all of it in a run folder.",
        f"""examples:
  mtrl-train mt10_quick                                        train a preset
  mtrl-train point seed=3 agent.learning_rate=1e-3             with other keys; --seed 3 works too
  mtrl-train point seeds=1,2,3 run_dir=runs/mine               three runs, one after the other: runs/mine/s1, ...
  mtrl-train runs/FOLDER/config.yaml resume=true               go on with a run
  mtrl-train mine.yaml from=runs/FOLDER                        begin with what another run has learned
  mtrl-train --keys agent.policy_kwargs                        keys, defaults and their meaning
  mtrl-train --print-config point > mine.yaml                  a preset as a file

presets: {", ".join(presets())}""",
    )
    _add_config(parser, "config", keys=_run_keys, preset=_config)

    def work(of: argparse.Namespace, console: Console) -> None:
        from mtrl_transfer.agents.runs.seeds import runs_to_do
        from mtrl_transfer.agents.runs.train import train as train_run

        for config in runs_to_do(of.config, of.overrides):
            train_run(config, console)

    return run_command(parser, arguments, work)


def evaluate(arguments: Sequence[str] | None = None) -> int:
    """Evaluate an agent: ``CHECKPOINT_OR_RUN_DIR [episodes=50] [goals=unseen] [video=true]``. Returns the exit code."""
    parser = _parser(
        "mtrl-evaluate",
        "Evaluate a trained agent by the protocol.",
        "examples:\n  mtrl-evaluate runs/FOLDER\n  mtrl-evaluate runs/FOLDER/checkpoints/100000 episodes=10 video=true",
    )
    parser.add_argument(
        "agent", metavar="CHECKPOINT_OR_RUN_DIR", type=_first, help="a run folder, a checkpoint or an agent's file"
    )
    _add_options(parser, "episodes=50, goals=train or goals=unseen, video=true for a clip of each task")

    def work(of: argparse.Namespace, console: Console) -> None:
        from mtrl_transfer.agents.runs.evaluate import evaluate_run

        evaluate_run(of.agent, of.options, console)

    return run_command(parser, arguments, work)


def compare(arguments: Sequence[str] | None = None) -> int:
    """Compare methods: ``COMPARISON key=value ...``. Returns the exit code; 1 where runs are missing in the report."""
    parser = _parser(
        "mtrl-compare",
        "Train methods times seeds, where that is not done already, and report how they compare.",
        f"""examples:
  mtrl-compare point
  mtrl-compare mt10 seeds=1,2,3,4,5 engine=ray
  mtrl-compare --keys                                          keys, defaults and their meaning
  mtrl-compare --print-config point > mine.yaml                a preset as a file

presets: {", ".join(comparisons())}""",
    )
    _add_config(parser, "comparison", keys=_comparison_keys, preset=_comparison)

    def work(of: argparse.Namespace, console: Console) -> None:
        from mtrl_transfer.agents.runs.compare.command import compare as compare_methods

        compare_methods(of.comparison, of.overrides, console)

    return run_command(parser, arguments, work)


def group(arguments: Sequence[str] | None = None) -> int:
    """Choose which tasks share a network: ``STAGE CONFIG key=value ...``. Returns the exit code."""
    parser = _parser(
        "mtrl-group",
        "Measure affinity in a joint run, choose groups of tasks, train them, report. Each stage does what is missing "
        "of those before it; called again, it goes on.",
        "examples:\n  mtrl-group report point_groups\n  mtrl-group choose mt10_quick 'groups.n_groups=[2,3]'",
    )
    parser.add_argument("stage", choices=STAGES, help="how far to go")
    parser.add_argument(
        "config", metavar="CONFIG", type=_first, help="of the joint run: a YAML file, or a preset's name"
    )
    _add_options(parser, "of the config, or groups.n_groups=[2,3] and such")

    def work(of: argparse.Namespace, console: Console) -> None:
        from mtrl_transfer.agents.runs.grouping.stages import run_stage

        run_stage(of.stage, of.config, of.options, console)

    return run_command(parser, arguments, work)


def demo(arguments: Sequence[str] | None = None) -> int:
    """Play a trained agent: ``[video=false] [episodes=1] [out=demo] [agent=FILE]``. Returns the exit code."""
    parser = _parser(
        "mtrl-demo",
        "A trained agent plays all tasks of MT10: a table, and one clip of all of them.",
        "examples:\n  mtrl-demo\n  mtrl-demo video=false episodes=5\n  mtrl-demo agent=actor.safetensors out=mine",
    )
    _add_options(
        parser, "video=false for the table alone, episodes=1 per task, out=demo for demo.gif and demo.mp4, agent=FILE"
    )

    def work(of: argparse.Namespace, console: Console) -> None:
        from mtrl_transfer.agents.runs.demo import play

        play(of.options, console)

    return run_command(parser, arguments, work)


def push(arguments: Sequence[str] | None = None) -> int:
    """Upload a finished run: ``REPO RUN_FOLDER [private=true]``. Returns the exit code."""
    parser = _parser(
        "mtrl-push",
        "Put a finished run on the Hugging Face Hub: agent, config, protocol, scores and a model card, no pickle.",
        "examples:\n  mtrl-push me/mt10-agent runs/FOLDER\n  mtrl-push me/mt10-agent runs/FOLDER private=true",
    )
    parser.add_argument("repo", metavar="REPO", type=_first, help="user/name; made if it is new")
    parser.add_argument("folder", metavar="RUN_FOLDER", type=_first, help="of a finished run")
    _add_options(parser, "private=true for a private repository")

    def work(of: argparse.Namespace, console: Console) -> None:
        from mtrl_transfer.agents.runs.push import push as push_run

        push_run(of.repo, of.folder, of.options, console)

    return run_command(parser, arguments, work)


def run_command(
    parser: argparse.ArgumentParser,
    arguments: Sequence[str] | None,
    work: Callable[[argparse.Namespace, Console], object],
) -> int:
    """Parse the arguments and do the work. Return the exit code."""
    try:
        of = parser.parse_args(as_overrides(sys.argv[1:] if arguments is None else arguments, parser))
    except SystemExit as stop:  # argparse has said what is wrong, or printed its help
        return int(stop.code or 0)
    from rich.console import Console

    from mtrl_transfer.agents.runs.exit_codes import exit_code
    from mtrl_transfer.agents.runs.streams import STDOUT

    return exit_code(parser.prog, lambda: work(of, Console(file=STDOUT)))


def run_options(
    program: str,
    description: str,
    examples: str,
    work: Callable[[Sequence[str], Console], object],
    arguments: Sequence[str] | None,
) -> int:
    """Run a command that takes ``key=value`` options alone. Return the exit code."""
    parser = _parser(program, description)
    _add_options(parser, examples)
    return run_command(parser, arguments, lambda of, console: work(of.options, console))


def as_overrides(arguments: Sequence[str], parser: argparse.ArgumentParser) -> list[str]:
    """Rewrite ``--seed 3`` and ``--seed=3`` as ``seed=3``, last of all, where the command has no such option."""
    kept, overrides, waiting = list[str](), list[str](), list(arguments)
    while waiting:
        argument = waiting.pop(0)
        name, equals, value = argument.removeprefix("--").partition("=")
        if not argument.startswith("--") or not name or f"--{name}" in parser._option_string_actions:
            kept.append(argument)
        elif equals or (waiting and not waiting[0].startswith("--")):
            overrides.append(f"{name.replace('-', '_')}={value if equals else waiting.pop(0)}")
        else:
            kept.append(argument)
    return kept + overrides


def _first(argument: str) -> str:
    """Refuse ``key=value`` where a file or a name has to come first."""
    if "=" in argument and not Path(argument).exists():
        raise argparse.ArgumentTypeError(f"expected a file or a name before {argument}")
    return argument


def _parser(program: str, description: str, epilog: str = "") -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        program,
        description=description,
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"{program} {_version()}")
    return parser


def _add_config(
    parser: argparse.ArgumentParser, name: str, keys: Callable[[str], str], preset: Callable[[str], str]
) -> None:
    """Add a config and its overrides, and the options that print keys and presets."""
    parser.add_argument("--keys", action=_Print, text=keys, metavar="PREFIX", nargs="?", help="print keys, and exit")
    parser.add_argument("--print-config", action=_Print, text=preset, metavar="PRESET", help="print a preset, and exit")
    parser.add_argument(name, metavar=name.upper(), type=_first, help="a YAML file, or a preset's name")
    parser.add_argument("overrides", metavar="key.sub=value", nargs="*", default=[], help="keys that win over the file")


def _add_options(parser: argparse.ArgumentParser, meaning: str) -> None:
    parser.add_argument("options", metavar="key=value", nargs="*", default=[], help=meaning)


def _version() -> str:
    try:
        return version("mtrl-transfer")
    except PackageNotFoundError:
        return "of a checkout"


class _Print(argparse.Action):
    """Option that prints a text and exits, as ``--help`` does."""

    def __init__(self, option_strings: Sequence[str], dest: str, text: Callable[[str], str], **options: Any) -> None:
        super().__init__(option_strings, dest, **options)
        self._text = text

    def __call__(self, parser: argparse.ArgumentParser, of: object, value: Any, option: str | None = None) -> None:
        try:
            print(self._text(value or ""))
        except InputError as error:
            parser.error(str(error))
        parser.exit()


def _run_keys(prefix: str) -> str:
    from mtrl_transfer.agents.runs.config.schema import RunConfig

    return _keys(RunConfig, prefix)


def _comparison_keys(prefix: str) -> str:
    from mtrl_transfer.agents.runs.compare.schema import CompareConfig

    return _keys(CompareConfig, prefix)


def _keys(model: type[BaseModel], prefix: str) -> str:
    from mtrl_transfer.agents.runs.config.reference import reference

    keys = {key.name: key for key in reference(model)}
    found = [key for name, key in keys.items() if name.startswith(prefix)]
    if not found:
        raise InputError(f"no key begins with {prefix!r}{did_you_mean(prefix, keys)}")
    return "\n".join(f"{key.name} = {key.default}    ({key.kind})\n    {key.meaning}" for key in found).replace("`", "")


def _config(preset: str) -> str:
    from mtrl_transfer.agents.runs.config.loading import load_config, to_yaml

    return to_yaml(load_config(str(find_config(preset)))).rstrip()


def _comparison(preset: str) -> str:
    """Return its file as it stands, with the base named so that the text can lie anywhere."""
    text = find_config(preset, comparisons()).read_text(encoding="utf-8")
    return re.sub(r"^base: \.\./(\w+)\.yaml", r"base: \1", text, flags=re.MULTILINE).rstrip()
