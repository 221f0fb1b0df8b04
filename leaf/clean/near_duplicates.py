"""Near duplicates: every pair of images whose contents agree up to a re-save or a change of brightness.

Two images are near duplicates if

1. their mean squared error is below a threshold,
2. their block means, less the mean color, differ by little compared with the variation among neighboring blocks, so
   that padding, paper or a low contrast do not make different images near, and
3. they do not differ in one place only, as other leaves on the same background do (`distances.differ_locally`).

All pairs are found exactly: principal components of the block means bound condition 2 from below and propose pairs.
"""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd

from leaf.clean.distances import differ_locally, fine_means, of_pairs, to_reference, tolerance
from leaf.errors import LeafError

COMPONENTS = 32
MOST_PAIRS = 20_000_000
# Condition 2: as a share of the threshold, the largest squared distance of two images per unit of structure. At 96 px
# JPEG copies at quality 50 use up to a quarter of it; smaller images, whose blocks have fewer pixels, get more.
SHARE = 0.1 / 150
FLAT, MOST_STRUCTURE = 20.0, 200.0  # structure of a uniform image; variance beyond which an edge counts no more
_BASIS_SAMPLE = 2000  # images that the components are computed from; any orthonormal basis keeps the bound
_COUNT_SAMPLE = 500  # images from which the number of pairs is estimated
_ROWS, _COLUMNS = 256, 2048  # points compared at once: their distances fit into a core's cache
_ROUNDING = 1e-5  # of squared distances in float32, as a share of the largest square
_BLOCK = 1 << 12  # pairs compared at once
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


def near_pairs(
    images: np.ndarray, rows: np.ndarray, small: np.ndarray, threshold: float, turns: bool = False
) -> pd.DataFrame:
    """Return all near duplicates among the images in ascending `rows` (K,).

    The columns are `image,other,kind,mse,transform,aligned_mse`. Each pair appears once, `image` before `other`. `kind`
    is near, or turned with the symmetry `transform` that maps `image` to `other`.

    Args:
        images: uint8 or float32 (N,S,S,3).
        rows: numbers of the images to compare.
        small: the block means of `rows`.
        threshold: mean squared error below which images are near.
        turns: whether copies turned by 90°, 180°, 270° or mirrored are near, too; each pair has the symmetry of the
            smallest error.

    Raises:
        LeafError: if a list of the pairs would fill the memory.
    """
    if threshold <= 0 or len(rows) < 2:
        return _table(np.empty((0, 2), np.int64), np.empty(0), SYMMETRIES[0])
    # The mean color says nothing about content; condition 1 limits its difference.
    small = small - small.mean(axis=(1, 2), keepdims=True)
    limits = threshold * SHARE * tolerance(images.shape[1]) * (structure(small) + FLAT)
    axes = basis(small)
    points = project(small, axes)
    _refuse_too_many(points, limits, threshold)
    found = []
    for symmetry in SYMMETRIES if turns else SYMMETRIES[:1]:
        candidates = _candidates(points, limits, small, axes, symmetry)
        pairs = rows[candidates[_under(small, limits, candidates, symmetry)]]
        mse = _errors(images, pairs, symmetry)
        pairs, mse = pairs[mse < threshold], mse[mse < threshold]
        near = ~_differ_locally(images, pairs, mse, symmetry)
        found.append(_table(pairs[near], mse[near], symmetry))
    # A stable sort: of equal errors the plain copy comes first.
    table = pd.concat(found).sort_values(["image", "other", "mse"], kind="stable", ignore_index=True)
    return table.drop_duplicates(["image", "other"], ignore_index=True)


def _table(pairs: np.ndarray, mse: np.ndarray, symmetry: str) -> pd.DataFrame:
    plain = symmetry == SYMMETRIES[0]
    return pd.DataFrame(
        {
            "image": pairs[:, 0],
            "other": pairs[:, 1],
            "kind": "near" if plain else "turned",
            "mse": mse,
            "transform": "" if plain else symmetry,
            "aligned_mse": np.nan,
        }
    )


def structure(small: np.ndarray) -> np.ndarray:
    """Return the mean variance among four neighboring block means, capped: float32 (K,) for `small` (K,h,w,3)."""
    cells = small * np.float32(np.sqrt(np.prod(small.shape[1:])))

    def windows(values: np.ndarray) -> np.ndarray:
        return (values[:, 1:, 1:] + values[:, 1:, :-1] + values[:, :-1, 1:] + values[:, :-1, :-1]) / 4

    variance = (windows(cells**2) - windows(cells) ** 2).mean(axis=-1)
    return np.minimum(variance, MOST_STRUCTURE).mean(axis=(1, 2))


def basis(small: np.ndarray, components: int = COMPONENTS) -> np.ndarray:
    """Return leading principal components of block means (K,h,w,3), orthonormal: float64 (h·w·3, components)."""
    flat = small.reshape(len(small), -1)
    step = max(1, len(flat) // _BASIS_SAMPLE)
    sample = flat[::step].astype(np.float64)
    sample -= sample.mean(axis=0)
    _, vectors = np.linalg.eigh(sample.T @ sample)
    return vectors[:, ::-1][:, :components]


def project(small: np.ndarray, axes: np.ndarray, symmetry: str = "none") -> np.ndarray:
    """Project block means (K,h,w,3), turned by `symmetry`, on the basis `axes`: float32 (K, components)."""
    turned = np.ascontiguousarray(transformed(small, symmetry)).reshape(len(small), -1)
    return turned @ axes.astype(np.float32)


def transformed(images: np.ndarray, symmetry: str) -> np.ndarray:
    """Return images (…,S,S,3) mirrored left to right and then turned counterclockwise by `symmetry`."""
    if "mirror" in symmetry:
        images = images[..., ::-1, :]
    turns = int(symmetry.rpartition("_")[2]) // 90 if "turn" in symmetry else 0
    return np.rot90(images, turns, axes=(-3, -2))


def _refuse_too_many(points: np.ndarray, limits: np.ndarray, threshold: float) -> None:
    """Estimate the number of candidate pairs from a sample before listing them."""
    step = max(1, len(points) // _COUNT_SAMPLE)
    sample, others = (points[::step], limits[::step]), (points, limits)
    neighbors = sum(len(part) for part in _within(sample, others)) - len(sample[0])
    expected = neighbors / len(sample[0]) * len(points) / 2
    if expected > MOST_PAIRS:
        raise LeafError(
            f"near_mse: about {expected:.0f} pairs of images are near {threshold:g}, more than {MOST_PAIRS}; "
            "valid: a smaller number, or 0 for none"
        )


def _candidates(
    points: np.ndarray, limits: np.ndarray, small: np.ndarray, axes: np.ndarray, symmetry: str
) -> np.ndarray:
    """Return positions of pairs (K,2), the smaller first, whose components are near once the first is turned."""
    if symmetry == "none":
        pairs = np.sort(np.concatenate([np.empty((0, 2), np.int64), *_within((points, limits), None)]), axis=1)
    else:
        turned = project(small, axes, symmetry)
        # The inverse symmetry finds pairs in the other order.
        ordered = (part[part[:, 0] < part[:, 1]] for part in _within((turned, limits), (points, limits)))
        pairs = np.concatenate([np.empty((0, 2), np.int64), *ordered])
    return pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]


def _within(first: tuple[np.ndarray, np.ndarray], second: tuple[np.ndarray, np.ndarray] | None) -> Iterator[np.ndarray]:
    """Yield positions (K,2) of points whose squared distance is at most the mean of their limits.

    `first` and `second` are points (A,D), (B,D) and their limits (A,), (B,). Rounding may add pairs slightly farther
    apart. Without `second`, yield each pair of `first` once.

    Slabs of the first component, each sorted by the second, restrict a block of points to a few stretches of others,
    where the distances are a matrix product.
    """
    left, left_limits = first
    right, right_limits = second or first
    centre = left.mean(axis=0)
    left, right = np.asarray(left - centre, np.float32), np.asarray(right - centre, np.float32)
    squares = [np.einsum("ij,ij->i", points, points) for points in (left, right)]
    rounding = _ROUNDING * max(float(each.max()) for each in squares)
    reach = float(np.sqrt((left_limits.max() + right_limits.max()) / 2 + rounding)) * 1.0001 + 1e-3
    low = min(left[:, 0].min(), right[:, 0].min())
    slabs = [np.floor((points[:, 0] - low) / reach).astype(np.int64) for points in (left, right)]
    orders = [np.lexsort((points[:, 1], slab)) for points, slab in zip((left, right), slabs, strict=True)]
    order, others = orders
    # (-2a, a² - limit/2, 1) · (b, 1, b² - limit/2) = (a - b)² - (limit + limit)/2
    rows = np.column_stack([-2 * left, squares[0] - left_limits / 2, np.ones_like(squares[0])])[order]
    columns = np.column_stack([right, np.ones_like(squares[1]), squares[1] - right_limits / 2])[others].T
    rows, columns = rows.astype(np.float32), np.ascontiguousarray(columns, np.float32)
    edges = np.searchsorted(slabs[0][order], np.arange(slabs[0].max() + 2))
    other_edges = np.searchsorted(slabs[1][others], np.arange(-1, max(each.max() for each in slabs) + 3))
    heights, other_heights = left[order, 1], right[others, 1]

    def part(start: int, end: int, slab: int) -> np.ndarray:
        block = rows[start:end]
        found = [np.empty((0, 2), np.int64)]
        for other in (slab, slab + 1) if second is None else (slab - 1, slab, slab + 1):
            here = slice(*other_edges[other + 1 : other + 3])
            low, high = here.start + np.searchsorted(
                other_heights[here], [heights[start] - reach, heights[end - 1] + reach]
            )
            if second is None and other == slab:
                low = start
            for begin in range(low, high, _COLUMNS):
                gaps = block @ columns[:, begin : min(begin + _COLUMNS, high)]
                i, j = np.divmod(np.flatnonzero(gaps.ravel() <= rounding), gaps.shape[1])
                i, j = i + start, j + begin
                if second is None and other == slab:
                    i, j = i[i < j], j[i < j]
                found.append(np.stack([order[i], others[j]], axis=1))
        return np.concatenate(found)

    blocks = [
        (start, min(start + _ROWS, edges[slab + 1]), slab)
        for slab in range(len(edges) - 1)
        for start in range(edges[slab], edges[slab + 1], _ROWS)
    ]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        yield from pool.map(lambda block: part(*block), blocks)


def _under(small: np.ndarray, limits: np.ndarray, pairs: np.ndarray, symmetry: str) -> np.ndarray:
    """Return which of `pairs` meet condition 2: bool (K,)."""
    keep = np.empty(len(pairs), bool)
    for start in range(0, len(pairs), _BLOCK):
        block = pairs[start : start + _BLOCK]
        gap = (transformed(small[block[:, 0]], symmetry) - small[block[:, 1]]).reshape(len(block), -1)
        keep[start : start + _BLOCK] = np.einsum("ij,ij->i", gap, gap) <= limits[block].mean(axis=1)
    return keep


def _errors(images: np.ndarray, pairs: np.ndarray, symmetry: str) -> np.ndarray:
    if symmetry == "none":
        return of_pairs(images, pairs)
    errors = np.empty(len(pairs))
    for place, (first, second) in enumerate(pairs):
        turned = np.ascontiguousarray(transformed(np.asarray(images[first]), symmetry))
        errors[place] = to_reference(images, np.array([second]), turned)[0]
    return errors


def _differ_locally(images: np.ndarray, pairs: np.ndarray, mse: np.ndarray, symmetry: str) -> np.ndarray:
    local, noise = np.empty(len(pairs), bool), tolerance(images.shape[1])
    for start in range(0, len(pairs), _BLOCK):
        block = slice(start, start + _BLOCK)
        first, second = (fine_means(images, pairs[block, side]) for side in (0, 1))
        local[block] = differ_locally(transformed(first, symmetry), second, mse[block], noise)
    return local
