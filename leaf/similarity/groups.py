"""Groups: connected components of images over pairs."""

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components


def components(count: int, pairs: np.ndarray) -> np.ndarray:
    """The smallest image number in each image's component over `pairs` int64 (K,2) of 0..count-1: int64 (count,)."""
    ones = np.ones(len(pairs), np.int8)
    graph = coo_array((ones, (pairs[:, 0], pairs[:, 1])), shape=(count, count))
    total, component = connected_components(graph, directed=False)
    smallest = np.full(total, count, np.int64)
    np.minimum.at(smallest, component, np.arange(count))
    return smallest[component]


def chain(names: np.ndarray) -> np.ndarray:
    """Pairs int64 (K,2) that tie each image to the first one of the same name, "" being none: names (N,) text."""
    first: dict[str, int] = {}
    pairs = [(first.setdefault(name, i), i) for i, name in enumerate(names) if name]
    return np.array([pair for pair in pairs if pair[0] != pair[1]], np.int64).reshape(-1, 2)
