"""Combiners by name."""

from __future__ import annotations

import inspect
from typing import Any

from mtrl_transfer.choices import check_choice
from mtrl_transfer.combiners.base import Combiner
from mtrl_transfer.combiners.mean import Mean
from mtrl_transfer.combiners.pcgrad import PCGrad
from mtrl_transfer.combiners.transference import Decision, Transference

__all__ = ["COMBINERS", "Combiner", "Decision", "Mean", "PCGrad", "Transference", "make_combiner"]

COMBINERS: dict[str, type[Combiner]] = {"mean": Mean, "pcgrad": PCGrad, "transference": Transference}


def make_combiner(name: str, **kwargs: Any) -> Combiner:
    """The combiner of that name.

    Raises:
        ValueError: for an unknown name or argument; the message lists the known ones and the nearest.
    """
    check_choice("combiner", name, COMBINERS)
    parameters = inspect.signature(COMBINERS[name]).parameters
    for argument in kwargs:
        check_choice(f"argument of combiner {name!r}", argument, parameters)
    return COMBINERS[name](**kwargs)
