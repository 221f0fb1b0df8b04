"""Pair and group images."""

from collections.abc import Iterable
from hashlib import blake2b

import numpy as np
import pandas as pd


def pair_table(
    pairs: np.ndarray,
    kind: str,
    mse: float | np.ndarray,
    transform: str | np.ndarray = "",
    aligned_mse: float | np.ndarray = np.nan,
) -> pd.DataFrame:
    """Return pairs of images, int64 (K,2), as rows of data/cleaned/pairs.csv."""
    columns = {"kind": kind, "mse": mse, "transform": transform, "aligned_mse": aligned_mse}
    return pd.DataFrame({"image": pairs[:, 0], "other": pairs[:, 1], **columns})


def first_copies(hashes: Iterable[str]) -> np.ndarray:
    """Return the number of the first image with each hash: int64 (N,)."""
    first: dict[str, int] = {}
    return np.fromiter((first.setdefault(value, i) for i, value in enumerate(hashes)), np.int64)


def distinct_hashes(hashes: np.ndarray, images: np.ndarray) -> np.ndarray:
    """Return `hashes`, text (N,), with a new hash for each image (N,S,S,3) that collides with a different image.

    The hash is not cryptographic, so images with the same hash are compared byte by byte.
    """
    first = first_copies(hashes)
    found = hashes.copy()
    for image in np.flatnonzero(first != np.arange(len(first))).tolist():
        if not np.array_equal(images[image], images[first[image]]):
            found[image] = blake2b(np.ascontiguousarray(images[image]).data, digest_size=16).hexdigest()
    return found


def same_name_pairs(names: Iterable[str]) -> np.ndarray:
    """Pair each image with the first image of the same name: int64 (K,2). Empty names match nothing."""
    first: dict[str, int] = {}
    pairs = [(first.setdefault(name, i), i) for i, name in enumerate(names) if name != ""]
    return np.array([pair for pair in pairs if pair[0] != pair[1]], np.int64).reshape(-1, 2)


def components(count: int, pairs: np.ndarray) -> np.ndarray:
    """Return the smallest image number in each image's connected component, int64 (count,), given `pairs` (K,2)."""
    from scipy.sparse import coo_array  # slow to import
    from scipy.sparse.csgraph import connected_components

    ones = np.ones(len(pairs), np.int8)
    graph = coo_array((ones, (pairs[:, 0], pairs[:, 1])), shape=(count, count))
    _, component = connected_components(graph, directed=False)
    _, smallest = np.unique(component, return_index=True)
    return smallest[component]
