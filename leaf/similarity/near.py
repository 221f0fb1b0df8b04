"""Near copies: every pair of images under a mean squared error, and no other.

A k-d tree over the leading components of the thumbnails proposes pairs, whole thumbnails thin them out, and the
pixels decide. The first two are lower bounds of the mean squared error, so no pair is lost.
"""

from dataclasses import dataclass

import numpy as np
from scipy.spatial import cKDTree

from leaf.errors import LeafError
from leaf.similarity import distances, symmetries
from leaf.similarity import thumbnails as small_means

MOST_PAIRS = 20_000_000
_SLACK = 0.02  # added to the search radius: far above the rounding of float32 means, far below a useful radius
_BLOCK = 1 << 16  # pairs of thumbnails compared at once: about 50 MB


@dataclass(frozen=True)
class Pairs:
    """Pairs of rows, `rows` int64 (K,2) with the smaller first and sorted; `mse` float64 (K,); `transform` (K,) text.

    `transform` is the symmetry that takes the first image to the second, "none" for plain near copies.
    """

    rows: np.ndarray
    mse: np.ndarray
    transform: np.ndarray


def near_pairs(images: np.ndarray, rows: np.ndarray, small: np.ndarray, threshold: float, turns: bool = False) -> Pairs:
    """All pairs among the images in ascending `rows` (K,) whose mean squared error is below `threshold`.

    `small` are the thumbnails of those rows. With `turns`, also pairs where one image is a copy of the other turned
    by 90°, 180°, 270° or mirrored; a pair appears once, with the symmetry of the smallest error.
    Raises LeafError where so many pairs are under the threshold that listing them would fill the memory.
    """
    if threshold <= 0 or len(rows) < 2:
        return Pairs(np.empty((0, 2), np.int64), np.empty(0), np.empty(0, object))
    axes = small_means.basis(small)
    points = small_means.project(small, axes)
    tree = cKDTree(points, balanced_tree=False)
    radius = float(np.sqrt(threshold)) + _SLACK
    _refuse_too_many(tree, points, radius, threshold)
    found = []
    for symmetry in symmetries.SYMMETRIES if turns else symmetries.SYMMETRIES[:1]:
        candidates = _candidates(tree, small, axes, radius, symmetry)
        candidates = _under(small, candidates, radius, symmetry)
        pairs = rows[candidates]
        mse = _errors(images, pairs, symmetry)
        near = mse < threshold
        found.append(Pairs(pairs[near], mse[near], np.full(int(near.sum()), symmetry, object)))
    return _once(found)


def _refuse_too_many(tree: cKDTree, points: np.ndarray, radius: float, threshold: float) -> None:
    """Estimate the number of candidate pairs from a sample before any list of them is made."""
    sample = points[:: max(1, len(points) // 500)]
    neighbours = tree.query_ball_point(sample, radius, return_length=True)
    expected = float(np.mean(neighbours - 1)) * len(points) / 2
    if expected > MOST_PAIRS:
        raise LeafError(
            f"near_mse: about {expected:.0f} pairs of images are near {threshold:g}, more than {MOST_PAIRS}; "
            "valid: a smaller number, or 0 for none"
        )


def _candidates(tree: cKDTree, small: np.ndarray, axes: np.ndarray, radius: float, symmetry: str) -> np.ndarray:
    """Places of pairs (K,2) whose components lie within `radius` once the first is turned, the smaller place first."""
    if symmetry == "none":
        pairs = tree.query_pairs(radius, output_type="ndarray")
    else:
        turned = cKDTree(small_means.project(small, axes, symmetry), balanced_tree=False)
        table = turned.sparse_distance_matrix(tree, radius, output_type="ndarray")
        pairs = np.stack([table["i"], table["j"]], axis=1)
        pairs = pairs[pairs[:, 0] < pairs[:, 1]]  # the reverse pair is found under the inverse symmetry
    return pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]


def _under(small: np.ndarray, pairs: np.ndarray, radius: float, symmetry: str) -> np.ndarray:
    """Those of `pairs` whose whole thumbnails lie within `radius`."""
    keep = np.empty(len(pairs), bool)
    for start in range(0, len(pairs), _BLOCK):
        block = pairs[start : start + _BLOCK]
        gap = (symmetries.apply(symmetry, small[block[:, 0]]) - small[block[:, 1]]).reshape(len(block), -1)
        keep[start : start + _BLOCK] = np.einsum("ij,ij->i", gap, gap) <= radius**2
    return pairs[keep]


def _errors(images: np.ndarray, pairs: np.ndarray, symmetry: str) -> np.ndarray:
    if symmetry == "none":
        return distances.of_pairs(images, pairs)
    errors = np.empty(len(pairs))
    for place, (first, second) in enumerate(pairs):
        turned = np.ascontiguousarray(symmetries.apply(symmetry, np.asarray(images[first])))
        errors[place] = distances.to_reference(images, np.array([second]), turned)[0]
    return errors


def _once(found: list[Pairs]) -> Pairs:
    """Each pair once, under the symmetry of its smallest error (the earlier one of equals)."""
    rows = np.concatenate([part.rows for part in found])
    mse = np.concatenate([part.mse for part in found])
    transform = np.concatenate([part.transform for part in found])
    order = np.lexsort((mse, rows[:, 1], rows[:, 0]))  # stable: plain copies come before turned ones
    rows, mse, transform = rows[order], mse[order], transform[order]
    new = np.ones(len(rows), bool)
    new[1:] = np.any(rows[1:] != rows[:-1], axis=1)
    return Pairs(rows[new], mse[new], transform[new])
