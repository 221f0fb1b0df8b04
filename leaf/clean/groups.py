"""Which images belong together: equal hashes, equal names, and whatever pairs join."""

from collections.abc import Iterable
from dataclasses import fields, replace
from hashlib import blake2b
from typing import Any

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components


def first_copies(hashes: Iterable[str]) -> np.ndarray:
    """The first image with the same hash, for each of N hashes: int64 (N,), the image itself where it is the first."""
    first: dict[str, int] = {}
    return np.fromiter((first.setdefault(value, i) for i, value in enumerate(hashes)), np.int64)


def distinct_hashes(hashes: np.ndarray, images: np.ndarray) -> np.ndarray:
    """The `hashes`, text (N,), of `images` (N,S,S,3), where those of an image that equals no other of its hash are new.

    A hash that is not cryptographic finds who may be equal; the bytes say who is.
    """
    first = first_copies(hashes)
    found = hashes.copy()
    for image in np.flatnonzero(first != np.arange(len(first))).tolist():
        if not np.array_equal(images[image], images[first[image]]):
            found[image] = blake2b(np.ascontiguousarray(images[image]).data, digest_size=16).hexdigest()
    return found


def same_name_pairs(names: np.ndarray) -> np.ndarray:
    """Pairs int64 (K,2) of each image and the first one of the same name, "" being no name: `names` (N,)."""
    first: dict[str, int] = {}
    pairs = [(first.setdefault(name, i), i) for i, name in enumerate(names) if name != ""]
    return np.array([pair for pair in pairs if pair[0] != pair[1]], np.int64).reshape(-1, 2)


def components(count: int, pairs: np.ndarray) -> np.ndarray:
    """The smallest image number in each image's connected component: int64 (count,).

    `pairs` int64 (K,2) join the images 0 to count - 1.
    """
    ones = np.ones(len(pairs), np.int8)
    graph = coo_array((ones, (pairs[:, 0], pairs[:, 1])), shape=(count, count))
    total, component = connected_components(graph, directed=False)
    smallest = np.full(total, count, np.int64)
    np.minimum.at(smallest, component, np.arange(count))
    return smallest[component]


def without(pairs: Any, sets: np.ndarray, parted: np.ndarray) -> Any:
    """`pairs`, a dataclass of arrays (K, …) with `rows` int64 (K,2), less those between sets that are `parted`.

    `sets` int64 (N,) is each image's set, `parted` int64 (P,2) are images whose sets are not the same.
    """
    if not len(parted):
        return pairs
    gone = {tuple(row) for row in np.sort(sets[parted], axis=1).tolist()}
    stays = np.array([tuple(row) not in gone for row in np.sort(sets[pairs.rows], axis=1).tolist()], bool)
    return replace(pairs, **{each.name: getattr(pairs, each.name)[stays] for each in fields(pairs)})
