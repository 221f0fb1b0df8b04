"""Mean squared errors between images, exact, and every pair of images below one: the near copies.

The unit is grey levels squared: 0 for equal images, 65025 between black and white. OpenCV's norm adds the squares
in one pass without a float copy of the images: about a tenth of the time of the same sum in numpy.

Near copies: the leading components of the block means propose pairs, whole block means thin them out, and the pixels
decide. The first two are lower bounds of the mean squared error, so no pair is lost.
"""

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import cv2
import numpy as np

from leaf.errors import LeafError

SIDE = 8  # cells along either side of the block means
COMPONENTS = 32
MOST_PAIRS = 20_000_000
_BASIS_SAMPLE = 2000  # images that the components are computed from; any orthonormal basis keeps the bound
_COUNT_SAMPLE = 500  # images by which the number of pairs is estimated
_SLACK = 0.02  # added to the search radius: far above the rounding of float32 means, far below a useful radius
_STACK = 32  # images whose block means are computed at once
_BLOCK = 1 << 12  # pairs of block means compared at once: 3 MB
_ROWS, _COLUMNS = 256, 2048  # points of either side compared at once: their distances fit into a core's cache
_ROUNDING = 1e-5  # of squared distances in float32, as a share of the largest square
SYMMETRIES = (
    "none",
    "turn_90",
    "turn_180",
    "turn_270",
    "mirror",
    "mirror_turn_90",
    "mirror_turn_180",
    "mirror_turn_270",
)


def to_reference(images: np.ndarray, rows: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Mean squared error of the images in `rows` (K,) to one `reference` (H,W,3) of their dtype: float64 (K,)."""
    plain = np.asarray(images)  # indexing a memmap costs more than the distance itself
    exact = plain.dtype == np.uint8
    sums = np.fromiter((cv2.norm(plain[i], reference, cv2.NORM_L2SQR) for i in rows), np.float64, len(rows))
    return _mean(sums, exact, reference.size)


def to_references(
    images: np.ndarray,
    rows: np.ndarray,
    small: np.ndarray,
    references: Sequence[np.ndarray],
    within: float,
    further: int,
) -> Iterator[np.ndarray]:
    """`to_reference` of each of `references`, but infinite for images that stand behind all that are wanted.

    Wanted are the distances up to `within` and so many `further` ones. `small` are the block means of `rows`, which
    bound the distances from below: most images of a large set are never looked at.
    """
    flat = small.reshape(len(small), -1)
    one = np.zeros(1, np.int64)
    small_references = [block_means(reference[None], one).reshape(1, -1) for reference in references]
    heads = np.concatenate([np.empty((0, flat.shape[1]), np.float32), *small_references])
    squares, others = (np.einsum("ij,ij->i", each, each) for each in (flat, heads))
    rounding = _ROUNDING * max(squares.max(initial=0), others.max(initial=0))
    bounds = squares - 2 * (heads @ flat.T) + others[:, None] - rounding
    for bound, reference in zip(bounds, references, strict=True):
        distance = np.full(len(rows), np.inf)
        count = int((bound <= within).sum()) + further
        while True:
            beyond = np.partition(bound, count)[count] if count < len(rows) else np.inf
            new = np.flatnonzero((bound < beyond) & np.isinf(distance))
            distance[new] = to_reference(images, rows[new], reference)
            # What is not known yet stands at `beyond` or behind it.
            if count >= len(rows) or (distance < beyond).sum() >= (distance <= within).sum() + further:
                break
            count += count // 2 + 1
        distance[distance >= beyond] = np.inf
        yield distance


def of_pairs(images: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """Mean squared error of each pair of rows: int64 (K,2) → float64 (K,)."""
    plain = np.asarray(images)
    exact = plain.dtype == np.uint8
    sums = np.fromiter((cv2.norm(plain[i], plain[j], cv2.NORM_L2SQR) for i, j in pairs), np.float64, len(pairs))
    return _mean(sums, exact, int(np.prod(plain.shape[1:])))


def _mean(sums: np.ndarray, exact: bool, size: int) -> np.ndarray:
    # OpenCV squares the root of the sum: of whole numbers, rounding gives back the sum itself.
    return (np.rint(sums) if exact else sums) / size


def block_means(images: np.ndarray, rows: np.ndarray, side: int = SIDE) -> np.ndarray:
    """Area means of the images in `rows` on side × side cells: float32 (K, h, w, 3), scaled by 1/√(h·w·3).

    The squared Euclidean distance of two of them is at most the mean squared error of their images.
    """
    plain = np.asarray(images)
    height, width = min(side, plain.shape[1]), min(side, plain.shape[2])
    small = np.empty((len(rows), height, width, plain.shape[3]), np.float32)

    def part(start: int) -> None:  # images of equal height, one under the other, share no cell
        stack = plain[rows[start : start + _STACK]].astype(np.float32).reshape(-1, *plain.shape[2:])
        cells = small[start : start + _STACK].reshape(-1, *small.shape[2:])
        cv2.resize(stack, cells.shape[1::-1], cells, interpolation=cv2.INTER_AREA)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(part, range(0, len(rows), _STACK)))
    small /= np.float32(np.sqrt(small[0].size)) if len(small) else np.float32(1)
    return small


def basis(small: np.ndarray, components: int = COMPONENTS) -> np.ndarray:
    """Leading principal components of block means (K,h,w,3), orthonormal: float64 (h·w·3, components)."""
    flat = small.reshape(len(small), -1)
    step = max(1, len(flat) // _BASIS_SAMPLE)
    sample = flat[::step].astype(np.float64)
    sample -= sample.mean(axis=0)
    _, vectors = np.linalg.eigh(sample.T @ sample)
    return vectors[:, ::-1][:, :components]


def project(small: np.ndarray, axes: np.ndarray, symmetry: str = "none") -> np.ndarray:
    """Block means (K,h,w,3), turned by `symmetry`, on the basis `axes`: float32 (K, components)."""
    turned = np.ascontiguousarray(transformed(small, symmetry)).reshape(len(small), -1)
    return turned @ axes.astype(np.float32)


def transformed(images: np.ndarray, symmetry: str) -> np.ndarray:
    """Images (…,S,S,3), mirrored left to right and then turned anticlockwise, as `symmetry` says."""
    if "mirror" in symmetry:
        images = images[..., ::-1, :]
    turns = int(symmetry.rpartition("_")[2]) // 90 if "turn" in symmetry else 0
    return np.rot90(images, turns, axes=(-3, -2))


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

    `small` are the block means of those rows. With `turns`, also pairs where one image is a copy of the other turned
    by 90°, 180°, 270° or mirrored; a pair appears once, with the symmetry of the smallest error.
    Raises LeafError where so many pairs are under the threshold that listing them would fill the memory.
    """
    if threshold <= 0 or len(rows) < 2:
        return Pairs(np.empty((0, 2), np.int64), np.empty(0), np.empty(0, object))
    axes = basis(small)
    points = project(small, axes)
    radius = float(np.sqrt(threshold)) + _SLACK
    _refuse_too_many(points, radius, threshold)
    found = []
    for symmetry in SYMMETRIES if turns else SYMMETRIES[:1]:
        candidates = _candidates(points, small, axes, radius, symmetry)
        candidates = _under(small, candidates, radius, symmetry)
        pairs = rows[candidates]
        mse = _errors(images, pairs, symmetry)
        near = mse < threshold
        found.append(Pairs(pairs[near], mse[near], np.full(int(near.sum()), symmetry, object)))
    return _once(found)


def _refuse_too_many(points: np.ndarray, radius: float, threshold: float) -> None:
    """Estimate the number of candidate pairs from a sample before any list of them is made."""
    sample = points[:: max(1, len(points) // _COUNT_SAMPLE)]
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
        turned = project(small, axes, symmetry)
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

    def part(start: int) -> np.ndarray:
        block = rows[start : start + _ROWS]
        end = high[start + len(block) - 1]
        gaps, near = np.empty(len(block) * _COLUMNS, np.float32), np.empty(len(block) * _COLUMNS, bool)
        found = [np.empty((0, 2), np.int64)]
        for begin in range(low[start], end, _COLUMNS):
            stretch = columns[:, begin : min(begin + _COLUMNS, end)]
            count = len(block) * stretch.shape[1]
            np.matmul(block, stretch, out=gaps[:count].reshape(len(block), -1))
            np.less_equal(gaps[:count], radius**2 + rounding, out=near[:count])
            i, j = np.divmod(np.flatnonzero(near[:count]), stretch.shape[1])
            i, j = i + start, j + begin
            if second is None:
                i, j = i[i < j], j[i < j]
            found.append(np.stack([order[i], others[j]], axis=1))
        return np.concatenate(found)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        yield from pool.map(part, range(0, len(left), _ROWS))


def _under(small: np.ndarray, pairs: np.ndarray, radius: float, symmetry: str) -> np.ndarray:
    """Those of `pairs` whose whole block means lie within `radius`."""
    keep = np.empty(len(pairs), bool)
    for start in range(0, len(pairs), _BLOCK):
        block = pairs[start : start + _BLOCK]
        gap = (transformed(small[block[:, 0]], symmetry) - small[block[:, 1]]).reshape(len(block), -1)
        keep[start : start + _BLOCK] = np.einsum("ij,ij->i", gap, gap) <= radius**2
    return pairs[keep]


def _errors(images: np.ndarray, pairs: np.ndarray, symmetry: str) -> np.ndarray:
    if symmetry == "none":
        return of_pairs(images, pairs)
    errors = np.empty(len(pairs))
    for place, (first, second) in enumerate(pairs):
        turned = np.ascontiguousarray(transformed(np.asarray(images[first]), symmetry))
        errors[place] = to_reference(images, np.array([second]), turned)[0]
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
