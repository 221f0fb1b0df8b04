"""Near copies: every pair of images under a mean squared error, and no other.

The leading components of the thumbnails propose pairs, whole thumbnails thin them out, and the pixels decide. The
first two are lower bounds of the mean squared error, so no pair is lost.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from leaf.errors import LeafError
from leaf.similarity import distances
from leaf.similarity import distances as small_means

MOST_PAIRS = 20_000_000
_SLACK = 0.02  # added to the search radius: far above the rounding of float32 means, far below a useful radius
_BLOCK = 1 << 12  # pairs of thumbnails compared at once: 3 MB
_ROWS, _COLUMNS = 256, 2048  # points of either side compared at once: their distances fit into a core's cache
_ROUNDING = 1e-5  # of squared distances in float32, as a share of the largest square
_SAMPLE = 500  # images by which the number of pairs is estimated


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
    radius = float(np.sqrt(threshold)) + _SLACK
    _refuse_too_many(points, radius, threshold)
    found = []
    for symmetry in distances.SYMMETRIES if turns else distances.SYMMETRIES[:1]:
        candidates = _candidates(points, small, axes, radius, symmetry)
        candidates = _under(small, candidates, radius, symmetry)
        pairs = rows[candidates]
        mse = _errors(images, pairs, symmetry)
        near = mse < threshold
        found.append(Pairs(pairs[near], mse[near], np.full(int(near.sum()), symmetry, object)))
    return _once(found)


def _refuse_too_many(points: np.ndarray, radius: float, threshold: float) -> None:
    """Estimate the number of candidate pairs from a sample before any list of them is made."""
    sample = points[:: max(1, len(points) // _SAMPLE)]
    neighbours = sum(len(part) for part in _within(sample, points, radius)) - len(sample)
    expected = neighbours / len(sample) * len(points) / 2
    if expected > MOST_PAIRS:
        raise LeafError(
            f"near_mse: about {expected:.0f} pairs of images are near {threshold:g}, more than {MOST_PAIRS}; "
            "valid: a smaller number, or 0 for none"
        )


def _candidates(points: np.ndarray, small: np.ndarray, axes: np.ndarray, radius: float, symmetry: str) -> np.ndarray:
    """Places of pairs (K,2) whose components lie within `radius` once the first is turned, the smaller place first."""
    if symmetry == "none":
        pairs = np.sort(np.concatenate([np.empty((0, 2), np.int64), *_within(points, None, radius)]), axis=1)
    else:
        turned = small_means.project(small, axes, symmetry)
        # Of a pair the other way round the inverse symmetry is found.
        ordered = (part[part[:, 0] < part[:, 1]] for part in _within(turned, points, radius))
        pairs = np.concatenate([np.empty((0, 2), np.int64), *ordered])
    return pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]


def _within(first: np.ndarray, second: np.ndarray | None, radius: float) -> Iterator[np.ndarray]:
    """Places (K,2) of the points of `first` (A,D) and `second` (B,D) that lie within `radius`, part by part.

    Rounding may add pairs a little farther apart. Without `second` each pair among `first` comes once. All is sorted
    by the leading component, so that a block of points is compared with a stretch of the others only, and there the
    distances are a matrix product: from 5,000 to 80,000 points that took a fifth to an eighth of a k-d tree's time.
    """
    order = np.argsort(first[:, 0], kind="stable")
    others = order if second is None else np.argsort(second[:, 0], kind="stable")
    centre = first.mean(axis=0)
    left = np.asarray(first[order] - centre, np.float32)
    right = left if second is None else np.asarray(second[others] - centre, np.float32)
    squares = [np.einsum("ij,ij->i", points, points) for points in (left, right)]
    rounding = _ROUNDING * max(float(each.max()) for each in squares)
    reach = np.float32(radius + rounding)
    low = np.arange(len(left)) if second is None else np.searchsorted(right[:, 0], left[:, 0] - reach)
    high = np.searchsorted(right[:, 0], left[:, 0] + reach, side="right")
    # (-2a, a², 1) · (b, 1, b²) = (a - b)²
    rows = np.column_stack([-2 * left, squares[0], np.ones_like(squares[0])])
    columns = np.column_stack([right, np.ones_like(squares[1]), squares[1]]).T
    gaps, near = np.empty(_ROWS * _COLUMNS, np.float32), np.empty(_ROWS * _COLUMNS, bool)
    for start in range(0, len(left), _ROWS):
        block = rows[start : start + _ROWS]
        end = high[start + len(block) - 1]
        for begin in range(low[start], end, _COLUMNS):
            stretch = columns[:, begin : min(begin + _COLUMNS, end)]
            count = len(block) * stretch.shape[1]
            np.matmul(block, stretch, out=gaps[:count].reshape(len(block), -1))
            np.less_equal(gaps[:count], radius**2 + rounding, out=near[:count])
            i, j = np.divmod(np.flatnonzero(near[:count]), stretch.shape[1])
            i, j = i + start, j + begin
            if second is None:
                i, j = i[i < j], j[i < j]
            yield np.stack([order[i], others[j]], axis=1)


def _under(small: np.ndarray, pairs: np.ndarray, radius: float, symmetry: str) -> np.ndarray:
    """Those of `pairs` whose whole thumbnails lie within `radius`."""
    keep = np.empty(len(pairs), bool)
    for start in range(0, len(pairs), _BLOCK):
        block = pairs[start : start + _BLOCK]
        gap = (distances.apply(symmetry, small[block[:, 0]]) - small[block[:, 1]]).reshape(len(block), -1)
        keep[start : start + _BLOCK] = np.einsum("ij,ij->i", gap, gap) <= radius**2
    return pairs[keep]


def _errors(images: np.ndarray, pairs: np.ndarray, symmetry: str) -> np.ndarray:
    if symmetry == "none":
        return distances.of_pairs(images, pairs)
    errors = np.empty(len(pairs))
    for place, (first, second) in enumerate(pairs):
        turned = np.ascontiguousarray(distances.apply(symmetry, np.asarray(images[first])))
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
