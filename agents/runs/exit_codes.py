"""Exit codes of commands, and their messages about bad input and interruptions."""

from __future__ import annotations

import signal
from collections.abc import Callable, Sequence
from types import FrameType

from mtrl_transfer.agents.runs.errors import Failed, InputError, Interrupted
from mtrl_transfer.agents.runs.stopping import handled
from mtrl_transfer.agents.runs.streams import STDERR

FAILED = 1
BAD_INPUT = 2
INTERRUPTED = 130


class Incomplete(Exception):
    """The work is done as far as it could be; the lines say what is missing."""

    def __init__(self, lines: Sequence[str]) -> None:
        super().__init__("\n".join(lines))


def exit_code(program: str, work: Callable[[], object]) -> int:
    """Do the work and return the exit code; bad input ends in one message, SIGTERM as SystemExit does.

    Args:
        program: its name, for the message.
        work: does the command's work.
    """
    try:
        with handled((signal.SIGTERM,), _exit):
            work()
    except SystemExit as stop:  # SIGTERM; or argparse has said what is wrong, or printed its help
        return int(stop.code or 0)
    except InputError as error:
        lines = "\n  ".join(error.problems)
        print(f"{program}: bad input\n  {lines}", file=STDERR)
        return BAD_INPUT
    except Incomplete as error:
        print(error, file=STDERR)
        return FAILED
    except Interrupted as error:
        print(error, file=STDERR)
        return 128 + error.signal_number
    except Failed as error:
        print(f"{program}: {error}", file=STDERR)
        return FAILED
    except OSError as error:
        if error.filename is None:  # no file's fault
            raise
        print(f"{program}: {error}", file=STDERR)
        return FAILED
    except KeyboardInterrupt:
        print("Interrupted; what is not in a checkpoint is lost.", file=STDERR)
        return INTERRUPTED
    return 0


def _exit(number: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + number)
