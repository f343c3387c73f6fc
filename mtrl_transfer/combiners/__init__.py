"""Combiners: from the Gramian of the task gradients to the weights of their sum."""

from mtrl_transfer.combiners.base import Combiner, live_tasks
from mtrl_transfer.combiners.famo import FAMO
from mtrl_transfer.combiners.gradnorm import GradNorm
from mtrl_transfer.combiners.log_loss import LogLoss
from mtrl_transfer.combiners.mean import Mean
from mtrl_transfer.combiners.pcgrad import PCGrad
from mtrl_transfer.combiners.random_drop import RandomDrop, RandomWeights
from mtrl_transfer.combiners.torchjd import IMTLG, MGDA, AlignedMTL, CAGrad, FairGrad, NashMTL, UPGrad
from mtrl_transfer.combiners.torchjd_others import ConFIG, GradVac, SDMGrad
from mtrl_transfer.decision import Decision

__all__ = [
    "FAMO",
    "IMTLG",
    "MGDA",
    "AlignedMTL",
    "CAGrad",
    "Combiner",
    "ConFIG",
    "Decision",
    "FairGrad",
    "GradNorm",
    "GradVac",
    "LogLoss",
    "Mean",
    "NashMTL",
    "PCGrad",
    "RandomDrop",
    "RandomWeights",
    "SDMGrad",
    "UPGrad",
    "live_tasks",
]
