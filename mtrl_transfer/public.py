"""Public names of mtrl_transfer, imported when one of them is first asked for."""

from mtrl_transfer import candidates, grouping
from mtrl_transfer.choosing import (
    Basis,
    BestCandidate,
    Exact,
    FirstOrder,
    Hindsight,
    Horizon,
    LookaheadGradient,
    Ratio,
    RunningMagnitude,
    SignificantLead,
    Transference,
)
from mtrl_transfer.combiners import Combiner, Decision, Mean, PCGrad
from mtrl_transfer.combiners.registry import COMBINERS, make_combiner
from mtrl_transfer.context import Context, FunctionLookahead
from mtrl_transfer.gradients import TaskGradients, combine, gramian, keep_finite, per_task_gradients
from mtrl_transfer.grouping import (
    Grouping,
    Selection,
    all_together,
    best_selection,
    cluster,
    one_per_task,
    random_groups,
    select_groups,
)
from mtrl_transfer.horizon import horizon_transference
from mtrl_transfer.information import (
    AlignmentSchedule,
    TaskAlignment,
    covariance_similarity,
    pairwise_covariance_similarity,
    svd_task_weights,
)
from mtrl_transfer.lookahead import make_context, transference
from mtrl_transfer.model import FunctionalModel
from mtrl_transfer.parameters import split_parameters
from mtrl_transfer.recorder import Record, Recorder, Recording
from mtrl_transfer.steps import step_norm
from mtrl_transfer.update import Update

__all__ = [
    "COMBINERS",
    "AlignmentSchedule",
    "Basis",
    "BestCandidate",
    "Combiner",
    "Context",
    "Decision",
    "Exact",
    "FirstOrder",
    "FunctionLookahead",
    "FunctionalModel",
    "Grouping",
    "Hindsight",
    "Horizon",
    "LookaheadGradient",
    "Mean",
    "PCGrad",
    "Ratio",
    "Record",
    "Recorder",
    "Recording",
    "RunningMagnitude",
    "Selection",
    "SignificantLead",
    "TaskAlignment",
    "TaskGradients",
    "Transference",
    "Update",
    "all_together",
    "best_selection",
    "candidates",
    "cluster",
    "combine",
    "covariance_similarity",
    "gramian",
    "grouping",
    "horizon_transference",
    "keep_finite",
    "make_combiner",
    "make_context",
    "one_per_task",
    "pairwise_covariance_similarity",
    "per_task_gradients",
    "random_groups",
    "select_groups",
    "split_parameters",
    "step_norm",
    "svd_task_weights",
    "transference",
]
