"""Groups of tasks that share a network, chosen from pairwise affinity."""

from mtrl_transfer.grouping.affinity import checked_affinity, standardized
from mtrl_transfer.grouping.cluster import cluster, linkage
from mtrl_transfer.grouping.controls import all_together, one_per_task, random_groups
from mtrl_transfer.grouping.groups import Grouping, serve_best, task_scores
from mtrl_transfer.grouping.select import Selection, best_selection, select_groups

__all__ = [
    "Grouping",
    "Selection",
    "all_together",
    "best_selection",
    "checked_affinity",
    "cluster",
    "linkage",
    "one_per_task",
    "random_groups",
    "select_groups",
    "serve_best",
    "standardized",
    "task_scores",
]
