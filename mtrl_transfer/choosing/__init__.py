"""The choice of task gradients by transference: measure, scale, selector, and the combiner made of them."""

from mtrl_transfer.choosing.combiner import Transference
from mtrl_transfer.choosing.measure import Measure
from mtrl_transfer.choosing.measures import MEASURES, Basis, Exact, FirstOrder, Hindsight, Horizon, LookaheadGradient
from mtrl_transfer.choosing.scales import SCALES, Ratio, RunningMagnitude
from mtrl_transfer.choosing.selection import SELECTORS, BestCandidate, SignificantLead

__all__ = [
    "MEASURES",
    "SCALES",
    "SELECTORS",
    "Basis",
    "BestCandidate",
    "Exact",
    "FirstOrder",
    "Hindsight",
    "Horizon",
    "LookaheadGradient",
    "Measure",
    "Ratio",
    "RunningMagnitude",
    "SignificantLead",
    "Transference",
]
