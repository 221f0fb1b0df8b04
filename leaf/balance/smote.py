"""SMOTE in two steps: plan a table with the parents of each synthetic image, then compute the images.

Neighbors are found by pixels. Squared distances between uint8 images are computed as float32 matrix products over
slices of pixels that are small enough to be exact, without a float copy of the images. scikit-learn's search casts to
float64 and takes twice the time.
"""

from collections.abc import Iterator, Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd
from imblearn.over_sampling import SMOTE
from numpy.typing import NDArray
from sklearn.base import BaseEstimator

from leaf.errors import LeafError

Method = Literal["smote", "none", "oversample", "class_weight"]
COLUMNS = ["image", "label", "parent", "neighbour", "weight"]
_BLOCK_BYTES = 16 << 20  # working memory for float64 values
_EXACT_UP_TO = 10_000  # members; in larger classes, candidates are found on averaged pixels and compared in full
_MOST = 100_000  # maximum members of a class: all pairs take minutes and 4 GB; three times as many members take hours
_CANDIDATES = 8  # candidates per neighbor on averaged pixels
_SLICE = 1024  # channel values: 1024 × 128² = 2²⁴, so all partial sums of centered uint8 products are exact in float32
_ROWS = 2048  # images per block of the distance matrix, which takes 2048 × members × 8 bytes


def missing_images(labels: np.ndarray, classes: int, method: Method) -> np.ndarray:
    """Return the number of images that each class needs to match the largest: int64 (C,). `labels` is int (M,)."""
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

    Args:
        images: (N,H,W,3) uint8 or float32, usually a memory map. One class is read at a time; the largest is not read.
        numbers: the rows of the training images, int64 (M,).
        labels: their labels, indices into `classes`, (M,).
        method: `smote` interpolates between neighbors of one class; `oversample` copies every image of a class once
            before copying any image again; `none` and `class_weight` plan nothing.
        classes: the class names.
        neighbors: the number of neighbors for SMOTE.
        seed: random seed, used for each class as in imbalanced-learn.

    Returns:
        `image,label,parent,neighbour,weight`: `parent` and `neighbour` are rows of `images`, `weight` float64 is the
        position between them (0 for a copy).

    Raises:
        LeafError: if a class is empty, or too small or too large for SMOTE.
    """
    order = np.argsort(numbers)  # so that the order of the rows does not matter
    numbers, labels = np.asarray(numbers)[order], np.asarray(labels)[order]
    missing = missing_images(labels, len(classes), method)
    members = [numbers[labels == label] for label in range(len(classes))]
    _check_members(members, missing, method, classes, neighbors)
    parts = [np.empty((0, 4))]
    for label in np.flatnonzero(missing).tolist():
        own = members[label]
        if method == "oversample":
            parents = others = _whole_rounds(own, missing[label], seed)
            weights = np.zeros(missing[label])
        else:
            sampler = TracedSMOTE(random_state=seed, k_neighbors=PixelNeighbors(neighbors + 1))
            rows, near, weights = sampler.trace(images[own].reshape(len(own), -1), missing[label])
            parents, others = own[rows], own[near]
        parts.append(np.stack([np.full(len(parents), label), parents, others, weights], axis=1))
    table = pd.DataFrame(np.concatenate(parts), columns=COLUMNS[1:])
    table.insert(0, COLUMNS[0], np.arange(len(table)))
    return table.astype(dict.fromkeys(COLUMNS[:-1], np.int64))


def _check_members(
    members: list[np.ndarray], missing: np.ndarray, method: Method, classes: Sequence[str], neighbors: int
) -> None:
    largest = max(range(len(classes)), key=lambda label: len(members[label]) if missing[label] else 0)
    if method == "smote" and missing[largest] and len(members[largest]) > _MOST:
        raise LeafError(
            f"balance: {classes[largest]} has {len(members[largest])} training images; smote supports at most "
            f"{_MOST} per class. Set balance to class_weight, which creates no images."
        )
    least = neighbors + 1 if method == "smote" else 1
    small = [label for label, own in enumerate(members) if missing[label] and len(own) < least]
    if small:
        needs = f"SMOTE with smote_neighbors {neighbors}" if method == "smote" else method
        counts = ", ".join(f"{classes[label]} has {len(members[label])}" for label in small)
        raise LeafError(
            f"balance: {needs} requires at least {least} training images per class, but {counts}. Add images"
            + (", lower smote_neighbors, or set balance to oversample or class_weight." if method == "smote" else ".")
        )


def _whole_rounds(members: np.ndarray, missing: int, seed: int) -> np.ndarray:
    random = np.random.default_rng(seed)
    rounds = [random.permutation(members) for _ in range(-(-missing // len(members)))]
    return np.concatenate(rounds)[:missing]


class TracedSMOTE(SMOTE):
    """SMOTE (Chawla et al. 2002) that returns the two parents and the weight of each synthetic image.

    imbalanced-learn does not expose them (its issue 772) and stacks all images into a new float array. This class
    records what its `_make_samples` draws. The same seed gives the same synthetic images.
    """

    def trace(self, members: np.ndarray, samples: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Draw `samples` synthetic images from a class with `members` (N,D), uint8 or float32.

        Returns parents and neighbors, int64 rows of `members`, and weights, float64 in [0, 1): a synthetic image is
        parent + weight × (neighbor − parent).
        """
        self._validate_estimator()
        self.nn_k_.fit(members)
        nearest = self.nn_k_.kneighbors(members, return_distance=False)[:, 1:]
        self._make_samples(members, np.int64, 0, members, nearest, samples)
        return self._drawn

    def _generate_samples(
        self,
        X: np.ndarray,
        nn_data: np.ndarray,  # noqa: ARG002 (imbalanced-learn's interface)
        nn_num: np.ndarray,
        rows: np.ndarray,
        cols: np.ndarray,
        steps: np.ndarray,
        *_: Any,
    ) -> np.ndarray:
        self._drawn = rows, nn_num[rows, cols], steps[:, 0]
        return X[:0]


def interpolate(images: np.ndarray, plan: pd.DataFrame, out: np.ndarray) -> None:
    """Write parent + weight × (neighbor − parent) for every row of `plan` into `out`.

    Args:
        images: (N,H,W,3) uint8 or float32.
        plan: `parent,neighbour,weight`; the first two are rows of `images`.
        out: (len(plan),H,W,3), of the same dtype. uint8 is computed in floating point, where differences do not wrap
            around, and rounded.
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


class PixelNeighbors(BaseEstimator):
    """Find the `n_neighbors` nearest members of each member by Euclidean pixel distance, itself first.

    The search is exact for up to `exact_up_to` members. Otherwise it is approximate: candidates are found on means over
    runs of pixels and ranked by their full distance. Members at equal distances are ordered by row.
    """

    def __init__(self, n_neighbors: int = 6, exact_up_to: int = _EXACT_UP_TO) -> None:
        self.n_neighbors = n_neighbors
        self.exact_up_to = exact_up_to

    def fit(self, X: np.ndarray, y: None = None) -> "PixelNeighbors":  # noqa: ARG002 (scikit-learn's interface)
        """Keep a reference to the members (N,D), uint8 or float32."""
        self.members_ = X
        return self

    def kneighbors(
        self, X: np.ndarray | None = None, n_neighbors: int | None = None, return_distance: bool = True
    ) -> np.ndarray | tuple[np.ndarray, np.ndarray]:
        """Return the rows of the nearest members, int64 (N,k), preceded by their distances if `return_distance`.

        `X` is None or the fitted members, the only points that SMOTE queries.
        """
        if X is not None and X is not self.members_:
            raise ValueError("X must be None or the array passed to fit")
        k = n_neighbors or self.n_neighbors
        blocks = list(self._search(k))
        rows = np.concatenate([rows for rows, _ in blocks])
        if not return_distance:
            return rows
        return np.sqrt(np.concatenate([squared for _, squared in blocks])), rows

    def kneighbors_graph(self, *_: object) -> None:
        """Satisfy the interface that imbalanced-learn checks; SMOTE never calls it."""
        raise NotImplementedError

    def _search(self, k: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        members = self.members_
        small = members if len(members) <= self.exact_up_to else _averaged(members)
        wanted = k if small is members else min(k * _CANDIDATES, len(members))
        for start in range(0, len(members), _ROWS):
            own = np.arange(start, min(start + _ROWS, len(members)))
            rows, squared = _nearest(_squared_distances(small, own), own, wanted)
            if small is not members:
                rows, squared = _ranked_in_full(members, own, rows, k)
            yield rows, squared


def _squared_distances(members: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Return squared distances from `rows` to all members, float64 (len(rows),N); exact for uint8."""
    whole = members.dtype == np.uint8
    kind = np.float32 if whole else np.float64
    products = np.zeros((len(rows), len(members)))
    norms = np.zeros(len(members))
    for start in range(0, members.shape[1], _SLICE):
        part: NDArray[np.floating] = members[:, start : start + _SLICE].astype(kind)
        part -= 128  # doubles the number of exact products; distances do not change
        products += part[rows[0] : rows[-1] + 1] @ part.T
        norms += np.einsum("ij,ij->i", part, part)
    products *= -2
    products += norms
    products += norms[rows, None]
    return np.maximum(products, 0, out=products)


def _nearest(squared: np.ndarray, own: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the columns and values of the `k` smallest values of each row, ascending, with ties ordered by column.

    Each image comes first in its own list, before exact copies, because SMOTE drops the first entry.
    """
    squared[np.arange(len(own)), own] = -1
    if k < squared.shape[1]:
        columns = np.sort(np.argpartition(squared, k - 1, axis=1)[:, :k], axis=1)
    else:
        columns = np.tile(np.arange(squared.shape[1]), (len(own), 1))
    values = np.take_along_axis(squared, columns, axis=1)
    order = np.argsort(values, axis=1, kind="stable")
    return np.take_along_axis(columns, order, axis=1), np.take_along_axis(values, order, axis=1).clip(min=0)


def _averaged(members: np.ndarray) -> np.ndarray:
    """Return means over runs of adjacent values: float32 (N, at most 512)."""
    run = -(-members.shape[1] // 512)
    edges = np.arange(0, members.shape[1], run)
    means = np.empty((len(members), len(edges)), np.float32)
    for start in range(0, len(members), _ROWS):
        block = members[start : start + _ROWS].astype(np.float32)
        means[start : start + _ROWS] = np.add.reduceat(block, edges, axis=1) / run
    return means


def _ranked_in_full(
    members: np.ndarray, own: np.ndarray, candidates: np.ndarray, k: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the `k` nearest of each row's `candidates` by full distance, itself first."""
    kept = np.empty((len(own), k), np.int64)
    squared = np.empty((len(own), k))
    for place, (row, others) in enumerate(zip(own, candidates, strict=True)):
        gaps = members[others].astype(np.float32) - members[row].astype(np.float32)
        values = np.einsum("ij,ij->i", gaps, gaps, dtype=np.float64)
        values[others == row] = -1
        order = np.lexsort((others, values))[:k]
        kept[place], squared[place] = others[order], values[order].clip(min=0)
    return kept, squared
