"""Refusal of comparisons that mix runs whose matrix products had different precision."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

from mtrl_transfer.agents.runs.compare.plan import Plan
from mtrl_transfer.agents.runs.compare.planned import is_finished
from mtrl_transfer.agents.runs.errors import InputError
from mtrl_transfer.agents.runs.outcome import Unreadable, read_protocol
from mtrl_transfer.agents.runs.protocol import precision_here
from mtrl_transfer.agents.runs.run_folder import PROTOCOL_FILE


def check_before_running(plan: Plan) -> None:
    """Refuse, before any work, to add runs to others whose products had another precision.

    Raises:
        InputError: naming the runs by precision.
    """
    found = []
    for run in (one.planned for one in plan.runs):
        with suppress(Unreadable):
            found.append((run.label, read_protocol(run.run_dir / PROTOCOL_FILE)["precision"]))
        if plan.config.engine == "local" and not is_finished(run):
            found.append((run.label, precision_here(run.config)))
    refuse_mixture(found, plan)


def refuse_mixture(precisions: Sequence[tuple[str, str]], plan: Plan) -> None:
    """Refuse runs of different precision; ``unknown`` counts as a precision.

    Args:
        precisions: label and precision of each run.
        plan: plan of the comparison.

    Raises:
        InputError: naming the runs by precision, unless ``mix_precisions`` permits them.
    """
    runs: dict[str, dict[str, None]] = {}
    for label, precision in precisions:
        runs.setdefault(precision, {})[label] = None
    if len(runs) > 1 and not plan.config.mix_precisions:
        told = "; ".join(f"{precision}: {', '.join(labels)}" for precision, labels in runs.items())
        raise InputError(
            f"matrix products differ in precision ({told}), so the same seed gives another run; compare runs of one "
            "precision, or set mix_precisions=true"
        )
