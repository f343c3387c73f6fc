"""How a command ends: its exit code, and what it says of bad input and of an interruption."""

from __future__ import annotations

import sys
from collections.abc import Callable

from agents.runs.errors import InputError
from agents.runs.train import Interrupted

BAD_INPUT = 2
INTERRUPTED = 130


def exit_code(program: str, work: Callable[[], object]) -> int:
    """Do the work; bad input is told in one message.

    Args:
        program: its name, for the message.
        work: to be done.
    """
    try:
        work()
    except SystemExit as stop:  # argparse has said what is wrong, or printed its help
        return int(stop.code or 0)
    except InputError as error:
        lines = "\n  ".join(error.problems)
        print(f"{program}: bad input\n  {lines}", file=sys.stderr)
        return BAD_INPUT
    except Interrupted as error:
        print(error, file=sys.stderr)
        return 128 + error.signal_number
    except KeyboardInterrupt:
        print("Interrupted; what is not in a checkpoint is lost.", file=sys.stderr)
        return INTERRUPTED
    return 0
