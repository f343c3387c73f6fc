"""When tasks' data help each other, and what to do where they do not (Wu, Zhang, Ré, arXiv 2005.00944)."""

from mtrl_transfer.information.alignment import AlignmentSchedule, TaskAlignment
from mtrl_transfer.information.covariance_similarity import covariance_similarity, pairwise_covariance_similarity
from mtrl_transfer.information.task_weights import svd_task_weights

__all__ = [
    "AlignmentSchedule",
    "TaskAlignment",
    "covariance_similarity",
    "pairwise_covariance_similarity",
    "svd_task_weights",
]
