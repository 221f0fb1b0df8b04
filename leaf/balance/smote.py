"""SMOTE in two steps: plan the parents of each synthetic image in a table, then compute the images.

Neighbors are found by pixel distance. Squared distances between uint8 images are computed as float32 matrix products
over slices of pixels that are small enough to be exact, without a float copy of the images. scikit-learn's search casts
to float64 and takes twice the time.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from leaf.errors import LeafError, plural

Method = Literal["smote", "none", "oversample", "class_weight"]
COLUMNS = ["image", "label", "parent", "neighbour", "weight"]
_BLOCK_BYTES = 16 << 20  # bytes of working memory for float64 values
_EXACT_UP_TO = 10_000  # maximum images per class for exact search; in larger classes, only candidates are compared
_MOST = 100_000  # maximum images per class; comparing all pairs takes minutes and 4 GB (3× as many: hours)
_CANDIDATES = 8  # candidates per neighbor on averaged pixels
_SLICE = 1024  # channel values per slice: 1024 × 128² = 2²⁴, so float32 sums of centered uint8 products are exact
_ROWS = 2048  # images per block of the distance matrix; a block takes 2048 × members × 8 bytes


def missing_images(labels: np.ndarray, classes: int, method: Method) -> np.ndarray:
    """Return the number of synthetic images that `method` creates per class: int64 (C,). `labels` is int (M,)."""
    counts = np.bincount(labels, minlength=classes)
    return counts.max() - counts if method in ("smote", "oversample") else np.zeros_like(counts)


def plan_images(
    images: np.ndarray,
    numbers: np.ndarray,
    labels: np.ndarray,
    method: Method,
    classes: Sequence[str],
    neighbors: int,
    seed: int,
) -> pd.DataFrame:
    """Plan the synthetic images that make every class as large as the largest.

    `smote` interpolates between neighbors of one class; `oversample` copies every image of a class once before copying
    any image again; `none` and `class_weight` plan nothing. As in imbalanced-learn, every class uses `seed`.

    `images` (N,H,W,3), uint8 or float32, is usually a memory map: one class is read at a time, and the largest is not
    read. `numbers` and `labels`, int64 (M,), are the rows of the training images and their labels.

    Returns:
        `image,label,parent,neighbour,weight`: `parent` and `neighbour` are rows of `images`, `weight` float64 is the
        position between them (0 for a copy).

    Raises:
        LeafError: if a class is empty, or too small or too large for SMOTE.
    """
    order = np.argsort(numbers)  # so that the result does not depend on the order of the rows
    numbers, labels = numbers[order], labels[order]
    missing = missing_images(labels, len(classes), method)
    members = [numbers[labels == label] for label in range(len(classes))]
    _check_members(members, missing, method, classes, neighbors)
    parts = [np.empty((0, 4))]
    for label in np.flatnonzero(missing).tolist():
        own, count = members[label], int(missing[label])
        if method == "oversample":
            generator = np.random.default_rng(seed)
            rounds = [generator.permutation(own) for _ in range(-(-count // len(own)))]
            parents = others = np.concatenate(rounds)[:count]
            weights = np.zeros(count)
        else:
            nearest = nearest_members(images[own].reshape(len(own), -1), neighbors + 1)[:, 1:]
            random = np.random.RandomState(seed)  # as in imbalanced-learn, which does not return the parents
            rows, columns = np.divmod(random.randint(nearest.size, size=count), neighbors)
            weights = random.uniform(size=count)
            parents, others = own[rows], own[nearest[rows, columns]]
        parts.append(np.stack([np.full(count, label), parents, others, weights], axis=1))
    table = pd.DataFrame(np.concatenate(parts), columns=COLUMNS[1:])
    table.insert(0, COLUMNS[0], np.arange(len(table)))
    return table.astype(dict.fromkeys(COLUMNS[:-1], np.int64))


def _check_members(
    members: list[np.ndarray], missing: np.ndarray, method: Method, classes: Sequence[str], neighbors: int
) -> None:
    counts = {name: len(own) for name, own, more in zip(classes, members, missing, strict=True) if more}
    if method == "smote" and max(counts.values(), default=0) > _MOST:
        largest = max(counts, key=counts.__getitem__)
        raise LeafError(
            f"balance: {largest} has {counts[largest]} training images; smote supports at most {_MOST} per class. "
            "Set balance to class_weight, which creates no images."
        )
    least = neighbors + 1 if method == "smote" else 1
    if small := ", ".join(f"{name} has {count}" for name, count in counts.items() if count < least):
        needs = f"SMOTE with smote_neighbors {neighbors}" if method == "smote" else method
        raise LeafError(
            f"balance: {needs} requires at least {plural(least, 'training image')} per class, but {small}. Add images"
            + (", lower smote_neighbors, or set balance to oversample or class_weight." if method == "smote" else ".")
        )


def interpolate(images: np.ndarray, plan: pd.DataFrame, out: np.ndarray) -> None:
    """Write parent + weight × (neighbor − parent) for every row of `plan` into `out`.

    `images` (N,H,W,3) and `out` (len(plan),H,W,3) are both uint8 or both float32. uint8 images are interpolated in
    floating point, where differences do not wrap around, and then rounded.
    """
    parents, others = plan["parent"].to_numpy(), plan["neighbour"].to_numpy()
    weights = plan["weight"].to_numpy(np.float64)
    block = max(1, _BLOCK_BYTES // (8 * int(np.prod(images.shape[1:]))))
    for start in range(0, len(plan), block):
        rows = slice(start, start + block)
        origin = images[parents[rows]].astype(np.float32)
        mixed = (images[others[rows]].astype(np.float32) - origin) * weights[rows, None, None, None]
        mixed += origin
        if out.dtype == np.uint8:
            np.rint(mixed, out=mixed)
        out[rows] = mixed


def nearest_members(members: np.ndarray, k: int, exact_up_to: int = _EXACT_UP_TO) -> np.ndarray:
    """Return the rows of the `k` nearest members of each member by Euclidean pixel distance, itself first: int64 (N,k).

    The search is exact for up to `exact_up_to` members. Otherwise it is approximate: candidates are found on means over
    runs of pixels and ranked by their full distance. Equal distances are ordered by row. `members` is (N,D) uint8 or
    float32.
    """
    rows = np.empty((len(members), k), np.int64)
    exact = len(members) <= exact_up_to
    points, found = (members, k) if exact else (_averaged(members), min(k * _CANDIDATES, len(members)))
    for start in range(0, len(members), _ROWS):
        own = np.arange(start, min(start + _ROWS, len(members)))
        nearest = _nearest(squared_distances(points, own), own, found)
        rows[own] = nearest if exact else _ranked_in_full(members, own, nearest, k)
    return rows


def squared_distances(members: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Return squared distances from `rows` to all members, float64 (len(rows),N); exact for uint8."""
    whole = members.dtype == np.uint8
    kind = np.float32 if whole else np.float64
    products = np.zeros((len(rows), len(members)))
    norms = np.zeros(len(members))
    for start in range(0, members.shape[1], _SLICE):
        part: NDArray[np.floating] = members[:, start : start + _SLICE].astype(kind)
        part -= 128  # centering makes the sums of a slice exact, and does not change the distances
        products += part[rows[0] : rows[-1] + 1] @ part.T
        norms += np.einsum("ij,ij->i", part, part)
    products *= -2
    products += norms
    products += norms[rows, None]
    return np.maximum(products, 0, out=products)


def _nearest(squared: np.ndarray, own: np.ndarray, k: int) -> np.ndarray:
    """Return the columns of the `k` smallest values of each row, ascending, with ties ordered by column.

    Each image comes first in its own list, before exact copies, because SMOTE drops the first entry.
    """
    squared[np.arange(len(own)), own] = -1
    columns = np.sort(np.argpartition(squared, k - 1, axis=1)[:, :k], axis=1)
    order = np.argsort(np.take_along_axis(squared, columns, axis=1), axis=1, kind="stable")
    return np.take_along_axis(columns, order, axis=1)


def _averaged(members: np.ndarray) -> np.ndarray:
    """Return means over runs of adjacent values: float32 (N, at most 512)."""
    run = -(-members.shape[1] // 512)
    edges = np.arange(0, members.shape[1], run)
    means = np.empty((len(members), len(edges)), np.float32)
    for start in range(0, len(members), _ROWS):
        block = members[start : start + _ROWS].astype(np.float32)
        means[start : start + _ROWS] = np.add.reduceat(block, edges, axis=1) / run
    return means


def _ranked_in_full(members: np.ndarray, own: np.ndarray, candidates: np.ndarray, k: int) -> np.ndarray:
    """Return the `k` nearest of each row's `candidates` by full distance, itself first."""
    kept = np.empty((len(own), k), np.int64)
    for place, (row, others) in enumerate(zip(own, candidates, strict=True)):
        gaps = members[others].astype(np.float32) - members[row].astype(np.float32)
        values = np.einsum("ij,ij->i", gaps, gaps, dtype=np.float64)
        values[others == row] = -1
        kept[place] = others[np.lexsort((others, values))[:k]]
    return kept
