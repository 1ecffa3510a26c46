"""Which candidates can be compared: connected parts of the graph of battles or of shared judges."""

import warnings

import numpy as np
import pandas as pd
from jaxtyping import Int
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components


def components(
    candidates: pd.Index,
    first: Int[np.ndarray, " E"],
    second: Int[np.ndarray, " E"],
    num_nodes: int,
    link: str,
) -> Int[np.ndarray, " C"]:
    """The part of each candidate, from 0; warns if there is more than one.

    Args:
        candidates: the first nodes of the graph; others, such as judges, come after them.
        first: one end of each edge.
        second: the other end.
        num_nodes: of the graph.
        link: what joins candidates of a part, for the warning.
    """
    graph = coo_array((np.ones(len(first)), (first, second)), shape=(num_nodes, num_nodes))
    parts = connected_components(graph, directed=False)[1][: len(candidates)]
    numbers = np.unique(parts)
    if len(numbers) > 1:
        groups = [list(candidates[parts == part]) for part in numbers]
        warnings.warn(
            f"the candidates fall into {len(groups)} groups that {link}: {groups}; scores are "
            "comparable within a group only",
            stacklevel=4,
        )
    return parts
