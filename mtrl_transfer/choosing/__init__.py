"""The choice of task gradients by transference: measure, scale, selector, and the combiner made of them."""

from mtrl_transfer.choosing.combiner import MEASURES, Transference
from mtrl_transfer.choosing.lookahead_gradient import LookaheadGradient
from mtrl_transfer.choosing.measures import Basis, Exact, FirstOrder, Measure
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
    "LookaheadGradient",
    "Measure",
    "Ratio",
    "RunningMagnitude",
    "SignificantLead",
    "Transference",
]
