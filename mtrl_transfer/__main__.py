"""``python -m mtrl_transfer COMMAND ...`` runs the command ``mtrl-COMMAND``."""

from __future__ import annotations

import sys

from mtrl_transfer.agents.runs import cli

COMMANDS = {
    "train": cli.train,
    "evaluate": cli.evaluate,
    "compare": cli.compare,
    "group": cli.group,
    "demo": cli.demo,
    "push": cli.push,
}


def main() -> int:
    """Run the command that the first argument names. Returns the exit code."""
    name, *arguments = sys.argv[1:] or ["--help"]
    if name in COMMANDS:
        return COMMANDS[name](arguments)
    if name == "--version":
        return cli.train([name])
    print(f"usage: python -m mtrl_transfer {{{','.join(COMMANDS)}}} ...   (COMMAND --help says more)")
    return 0 if name in ("-h", "--help") else 2


if __name__ == "__main__":
    raise SystemExit(main())
