"""Find near duplicates: pairs of images with the same content, except for compression or brightness.

Two images are near duplicates if

1. their mean squared error is below a threshold,
2. their block means, minus the mean color, differ little compared with the variation between neighboring blocks, so
   different images with padding, paper or low contrast are not near duplicates, and
3. they do not differ in only one place, as different leaves on the same background do (`distances.differ_locally`).

The search is exact: candidate pairs are selected by a lower bound on the distance in condition 2, computed from
principal components of the block means.
"""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import pandas as pd

from leaf.clean.distances import differ_locally, fine_means, of_pairs, tolerance
from leaf.clean.groups import pair_table
from leaf.errors import LeafError

COMPONENTS = 32
MOST_PAIRS = 20_000_000
# Condition 2: the maximum squared distance per unit of structure, as a share of the threshold. At 96 px, JPEG copies at
# quality 50 reach at most a quarter of this maximum. The maximum is higher for smaller images, whose blocks have fewer
# pixels.
SHARE = 0.1 / 150
FLAT, MOST_STRUCTURE = 20.0, 200.0  # structure of a uniform image; cap on the variance at edges
_BASIS_SAMPLE = 2000  # images used to compute the components; the bound holds for any orthonormal basis
_COUNT_SAMPLE = 500  # images used to estimate the number of pairs
_ROWS, _COLUMNS = 256, 2048  # points per block; the distances of a block fit in a core's cache
_ROUNDING = 1e-5  # rounding error of float32 squared distances, relative to the largest squared norm
_BLOCK = 1 << 12  # candidate pairs per batch
_TASKS = 32  # number of thread tasks; one task per block would add more overhead than the computation takes
_TURNS = ("none", "turn_90", "turn_180", "turn_270")
SYMMETRIES = (*_TURNS, "mirror", "mirror_turn_90", "mirror_turn_180", "mirror_turn_270")


class Points(NamedTuple):
    """Projected block means (K,D), squared-distance limits (K,) and mean-gray bins, int64 (K,).

    Near duplicates fall in the same or adjacent bins.
    """

    components: np.ndarray
    limits: np.ndarray
    slabs: np.ndarray


def near_pairs(
    images: np.ndarray, rows: np.ndarray, small: np.ndarray, threshold: float, turns: bool = False
) -> pd.DataFrame:
    """Return all pairs of near duplicates: `image,other,kind,mse,transform,aligned_mse`.

    Each pair appears once, smaller number first. `kind` is `near` or `turned`; for `turned`, `transform` is the
    symmetry with the smallest error that maps `image` to `other`.

    `images` are uint8 or float32 (N,S,S,3), `rows` (K,) are the numbers of the images to compare, ascending, and
    `small` are their block means. With `turns`, copies that are mirrored or rotated by multiples of 90° are included.

    Raises:
        LeafError: if the pairs would not fit in memory.
    """
    if threshold <= 0 or len(rows) < 2:
        return pair_table(np.empty((0, 2), np.int64), "near", np.empty(0))
    # Condition 1 limits differences in the mean color.
    color = small.mean(axis=(1, 2), keepdims=True)
    small = small - color
    limits = threshold * SHARE * tolerance(images.shape[1]) * (structure(small) + FLAT)
    axes = basis(small)
    # Mean gray levels of near duplicates differ by at most √threshold.
    slabs = np.floor(color.mean(axis=(1, 2, 3)) * np.sqrt(small[0].size / threshold) * 0.9999).astype(np.int64)
    points = Points(project(small, axes), limits, slabs)
    _refuse_too_many(points, threshold)
    found = [pair_table(np.empty((0, 2), np.int64), "near", np.empty(0))]
    for symmetry in SYMMETRIES if turns else SYMMETRIES[:1]:
        candidates = _candidates(points, small, axes, symmetry)
        for start in range(0, len(candidates), _BLOCK):
            block = candidates[start : start + _BLOCK]
            gap = (transformed(small[block[:, 0]], symmetry) - small[block[:, 1]]).reshape(len(block), -1)
            under = np.einsum("ij,ij->i", gap, gap) <= limits[block].mean(axis=1)
            found.append(_near(images, rows[block[under]], threshold, symmetry))
    # For equal errors, the stable sort puts the untransformed copy first.
    table = pd.concat(found).sort_values(["image", "other", "mse"], kind="stable", ignore_index=True)
    return table.drop_duplicates(["image", "other"], ignore_index=True)


def _near(images: np.ndarray, pairs: np.ndarray, threshold: float, symmetry: str) -> pd.DataFrame:
    """Return the pairs (K,2) that meet conditions 1 and 3."""
    mse = of_pairs(images, pairs, partial(transformed, symmetry=symmetry))
    pairs, mse = pairs[mse < threshold], mse[mse < threshold]
    first, second = (fine_means(images, pairs[:, side]) for side in (0, 1))
    near = ~differ_locally(transformed(first, symmetry), second, mse, tolerance(images.shape[1]))
    kind, transform = ("near", "") if symmetry == "none" else ("turned", symmetry)
    return pair_table(pairs[near], kind, mse[near], transform)


def structure(small: np.ndarray) -> np.ndarray:
    """Return the variance in each 2×2 window of `small` (K,h,w,3), capped and averaged per image: float32 (K,)."""
    found = np.empty(len(small), np.float32)
    for start in range(0, len(small), _ROWS):  # fits in a core's cache
        cells = small[start : start + _ROWS] * np.float32(np.sqrt(small[0].size))
        mean, square = (
            (each[:, 1:, 1:] + each[:, 1:, :-1] + each[:, :-1, 1:] + each[:, :-1, :-1]) / 4
            for each in (cells, cells * cells)
        )
        variance = (square - mean * mean).mean(axis=-1)
        found[start : start + _ROWS] = np.minimum(variance, MOST_STRUCTURE).mean(axis=(1, 2))
    return found


def basis(small: np.ndarray) -> np.ndarray:
    """Return the leading principal components of block means (K,h,w,3): float64 (h·w·3, COMPONENTS), orthonormal."""
    flat = small.reshape(len(small), -1)
    step = max(1, len(flat) // _BASIS_SAMPLE)
    sample = flat[::step].astype(np.float64)
    sample -= sample.mean(axis=0)
    _, vectors = np.linalg.eigh(sample.T @ sample)
    return vectors[:, ::-1][:, :COMPONENTS]


def project(small: np.ndarray, axes: np.ndarray, symmetry: str = "none") -> np.ndarray:
    """Transform block means (K,h,w,3) by `symmetry` and project them onto the basis `axes`: float32 (K, COMPONENTS)."""
    turned = np.ascontiguousarray(transformed(small, symmetry)).reshape(len(small), -1)
    return turned @ axes.astype(np.float32)


def transformed(images: np.ndarray, symmetry: str) -> np.ndarray:
    """Apply `symmetry` to images (…,S,S,3): mirror left to right, then rotate counterclockwise."""
    if "mirror" in symmetry:
        images = images[..., ::-1, :]
    turns = int(symmetry.rpartition("_")[2]) // 90 if "turn" in symmetry else 0
    return np.rot90(images, turns, axes=(-3, -2))


def _refuse_too_many(points: Points, threshold: float) -> None:
    """Raise LeafError if the number of candidate pairs, estimated from a sample, is too high."""
    step = max(1, len(points.limits) // _COUNT_SAMPLE)
    sample = Points(*(each[::step] for each in points))
    neighbors = sum(len(part) for part in _within(sample, points)) - len(sample.limits)
    expected = neighbors / len(sample.limits) * len(points.limits) / 2
    if expected > MOST_PAIRS:
        raise LeafError(
            f"near_mse: about {expected:,.0f} pairs may differ by less than {threshold:g} (limit: {MOST_PAIRS:,}). "
            "Set a lower near_mse, or 0 to skip the search."
        )


def _candidates(points: Points, small: np.ndarray, axes: np.ndarray, symmetry: str) -> np.ndarray:
    """Return sorted positions (K,2) of pairs whose components are close after transforming the first image."""
    if symmetry == "none":
        pairs = np.sort(np.concatenate([np.empty((0, 2), np.int64), *_within(points)]), axis=1)
    else:
        turned = points._replace(components=project(small, axes, symmetry))
        # The inverse symmetry finds the same pairs in reverse order.
        ordered = (part[part[:, 0] < part[:, 1]] for part in _within(turned, points))
        pairs = np.concatenate([np.empty((0, 2), np.int64), *ordered])
    return pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]


def _within(first: Points, second: Points | None = None) -> Iterator[np.ndarray]:
    """Yield positions (K,2) of pairs with a squared distance up to the mean of their limits, plus rounding errors."""
    # Points are divided into cells by bin and first component, and sorted by the second component. Matrix products
    # compare each block of points with one range of its own cell and of each adjacent cell.
    other = second or first  # without `second`, each pair of `first` is found once
    center = first.components.mean(axis=0)
    left, right = (np.asarray(each.components - center, np.float32) for each in (first, other))
    squares, other_squares = (np.einsum("ij,ij->i", each, each) for each in (left, right))
    rounding = _ROUNDING * max(float(squares.max()), float(other_squares.max()))
    reach = 1.001 * float(np.sqrt((first.limits.max() + other.limits.max()) / 2 + rounding))
    span = np.ptp(left[:, 0]) * np.ptp(first.slabs) * _ROWS / len(left)  # about _ROWS points per cell
    steps = [np.floor((each[:, 0] - left[:, 0].min()) / max(reach, span)).astype(np.int64) for each in (left, right)]
    steps = [np.clip(each, -2, steps[0].max() + 2) + 3 for each in steps]
    width = int(steps[0].max()) + 4  # so that the last cell of a bin is not adjacent to the first cell of the next bin
    cells, other_cells = first.slabs * width + steps[0], other.slabs * width + steps[1]
    offsets = [0, 1, width - 1, width, width + 1]
    if second is not None:
        offsets += [-each for each in offsets[1:]]
    order, others = (np.lexsort((each[:, 1], cell)) for each, cell in ((left, cells), (right, other_cells)))
    # (-2a, a² - limit/2, 1) · (b, 1, b² - limit/2) = (a - b)² - (limit + limit)/2
    ones = np.ones(max(len(left), len(right)))
    rows = np.column_stack([-2 * left, squares - first.limits / 2, ones[: len(left)]])[order].astype(np.float32)
    columns = (
        np.column_stack([right, ones[: len(right)], other_squares - other.limits / 2])[others].astype(np.float32).T
    )
    cells, other_cells = cells[order], other_cells[others]
    heights, other_heights = left[order, 1], right[others, 1]

    def pairs_of(start: int, end: int) -> np.ndarray:
        block, ends = rows[start:end], [heights[start] - reach, heights[end - 1] + reach]
        found = [np.empty((0, 2), np.int64)]
        for offset in offsets:
            bottom, top = np.searchsorted(other_cells, [cells[start] + offset, cells[start] + offset + 1])
            low, high = bottom + np.searchsorted(other_heights[bottom:top], ends)
            same = second is None and offset == 0
            for begin in range(max(low, start) if same else low, high, _COLUMNS):
                gaps = block @ columns[:, begin : min(begin + _COLUMNS, high)]
                i, j = np.divmod(np.flatnonzero(gaps.ravel() <= rounding), gaps.shape[1])
                i, j = i + start, j + begin
                if same:
                    i, j = i[i < j], j[i < j]
                found.append(np.stack([order[i], others[j]], axis=1))
        return np.concatenate(found)

    edges = [0, *(np.flatnonzero(np.diff(cells)) + 1).tolist(), len(cells)]
    blocks = [(start, min(start + _ROWS, end)) for begin, end in pairwise(edges) for start in range(begin, end, _ROWS)]
    tasks = [blocks[start::_TASKS] for start in range(min(_TASKS, len(blocks)))]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        yield from pool.map(lambda task: np.concatenate([pairs_of(*block) for block in task]), tasks)
