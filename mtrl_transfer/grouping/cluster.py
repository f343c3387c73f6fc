"""Groups by hierarchical clustering: a baseline, and the dendrogram."""

from __future__ import annotations

import numpy as np

from mtrl_transfer.grouping.affinity import Affinity, standardized
from mtrl_transfer.grouping.groups import Grouping, check_n_groups, disjoint


def linkage(affinity: Affinity) -> np.ndarray:
    """Average linkage `[T - 1, 4]`, as scipy's, of tasks by mutual affinity.

    Distances are how far the mean of both directions, each in its receiver's standard deviations (`standardized`),
    lies below the largest one.
    """
    from scipy.cluster import hierarchy  # takes long to import
    from scipy.spatial.distance import squareform

    matrix = standardized(affinity)
    if len(matrix) < 2:
        return np.zeros((0, 4))
    mutual = (matrix + matrix.T) / 2
    np.fill_diagonal(mutual, -np.inf)
    distances = mutual.max() - mutual
    np.fill_diagonal(distances, 0.0)
    return hierarchy.linkage(squareform(distances, checks=False), "average")


def cluster(affinity: Affinity, n_groups: int) -> Grouping:
    """Disjoint groups by cutting the dendrogram of `linkage`; some may hold one task.

    Args:
        affinity: `[T giver, T receiver]`; see `checked_affinity`.
        n_groups: 1 to T.

    Raises:
        ValueError: for another number of groups.
    """
    from scipy.cluster import hierarchy

    tree = linkage(affinity)
    check_n_groups(n_groups, len(tree) + 1)
    # cut_tree and not fcluster: with equal distances the latter gives fewer clusters than asked for.
    labels = hierarchy.cut_tree(tree, n_groups).ravel() if len(tree) else np.zeros(1, int)
    return disjoint(np.flatnonzero(labels == label).tolist() for label in range(n_groups))
