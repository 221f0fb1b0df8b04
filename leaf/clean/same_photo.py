"""Crops of one photograph: pairs that no threshold on raw pixels finds.

Every image gets a short description that hardly changes with a shift, a scale or a tint; images with near
descriptions are likely pairs; each likely pair is laid over one another, and how well the two then agree decides.

The description: magnitudes of the low frequencies do not change with a shift, and divided by the contrast not with
the light either; coarse colours in their places say what the magnitudes cannot. Among 1,370 images the true partner
of a planted crop is the nearest neighbour in 99 of 100 cases, and among the nearest five in all.

The alignment: an affine map by the enhanced correlation coefficient (Evangelidis and Psarakis 2008), OpenCV's
findTransformECC, from coarse to fine. The coefficient does not change with brightness and contrast, so a tint is no
difference.
"""

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import cv2
import numpy as np

from leaf.clean.distances import FINE as CELLS
from leaf.clean.distances import differ_locally, of_pairs, tolerance

NEIGHBOURS = 2
# Squared distance of two descriptions from which they are of different photographs: planted crops lie closer in 98
# of 100 cases, a quarter (photographs of one kind) to a half of all nearest neighbours lie farther apart.
FARTHEST = 80.0
MOST_IMAGES = 1_000_000  # the search is left out above, where it would take hours
_CELL = 1024  # images that share a centre where the set is large
_PROBES = 3  # nearest centres whose images an image is compared with
_BLOCK = 1024  # images whose distances to others are computed at once
DIMENSIONS = 64  # of a description
_SIDE, _LOW, _COLOURS = 32, 8, 6
_LAYOUT = 1.6  # weight of the colours in their places against the magnitudes
_DESCRIBED = 512  # images described at once
_SAMPLE = 1000  # images, at least half of them, that the components are computed from
COARSE = 32  # side of the images that most pairs are refused on
FINE = 96  # side, at most, of the images that the rest are judged on
# Measured on likely pairs of four sets (benchmarks/copies.py, drawn ones). Of 1,444 that are of one photograph all but
# one reached 0.91 after one round on the coarse images, and all 0.95 in the end there and 0.96 after one round on the
# fine ones. Of others one in twelve comes beyond COARSE_CORRELATION, and one in seventy beyond FINE_CORRELATION.
FIRST_CORRELATION = 0.88
COARSE_CORRELATION = 0.93
FINE_CORRELATION = 0.95
CORRELATION = 0.96
OVERLAP = 0.5  # share of the first image that the second must cover
SCALE = 1.45  # crops of one photograph differ by no more in scale, along any axis
STRETCH = 1.35  # one axis against the other
# A picture that kept its form needs no more than FORM_CORRELATION. One that did not, or that agrees less, must agree in
# its fine detail too: two different blurred leaves can be laid over one another by a stretch of 1.04 and more and then
# correlate up to 0.979, but in detail up to 0.61 as they are and 0.79 blurred (leaves_by_plant, whose leaves are
# known); planted crops reach 0.89 at the 1st percentile, other photographs of one leaf 0.77 to 0.94.
FORM = 1.03
FORM_CORRELATION = 0.97
DETAIL = 0.85
_FINEST, _COARSEST = 0.6, 2.0  # detail lies between two blurs of these standard deviations, in pixels of FINE

# OpenCV's iteration may leave an optimum that it has reached: a few steps at a time, the best kept.
_STEPS = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 5, 1e-4)
_COARSE_ROUNDS, _FINE_ROUNDS = 2, 6
_PART = 64  # pairs that a thread takes at once: turns cost a tenth of the time
_GAIN = 1e-3  # another round is worth its time where the last one gained so much correlation


@dataclass(frozen=True)
class AlignedPairs:
    """Pairs of rows int64 (K,2), the smaller first: `mse` as they are, `aligned_mse` over one another, both (K,).

    `transform` says the shift, scale and turn in words, (K,) text.
    """

    rows: np.ndarray
    mse: np.ndarray
    aligned_mse: np.ndarray
    transform: np.ndarray


def same_photo_pairs(images: np.ndarray, rows: np.ndarray) -> AlignedPairs:
    """Pairs among the images in ascending `rows` (K,) that are crops of one photograph, uint8 or float32 (N,S,S,3).

    Each image is aligned with its NEIGHBOURS most similar ones and no others: of many crops of one photograph not
    every pair is listed, but they hang together as a group.
    """
    if len(rows) < 2:
        return AlignedPairs(np.empty((0, 2), np.int64), np.empty(0), np.empty(0), np.empty(0, object))
    plain = np.asarray(images)
    pairs = rows[_likely(descriptors(plain, rows), FARTHEST)]

    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)  # one image is too small to part; the pool parts the pairs
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:  # OpenCV works outside Python's lock
        parts = [pairs[start : start + _PART] for start in range(0, len(pairs), _PART)]
        aligned = pool.map(lambda part: [align(plain[one], plain[other]) for one, other in part], parts)
        made = [each for part in aligned for each in part]
    cv2.setNumThreads(threads)
    same = np.array([each is not None for each in made], bool)
    found = [each for each in made if each is not None]
    return AlignedPairs(
        pairs[same],
        of_pairs(images, pairs[same]),
        np.array([each.mse for each in found]),
        np.array([describe(each.matrix, plain.shape[1]) for each in found], object),
    )


def _likely(points: np.ndarray, farthest: float = np.inf) -> np.ndarray:
    """Places of pairs int64 (P,2), each once and the smaller first, of an image and a near neighbour of it.

    Pairs whose squared distance is above `farthest` are left out.
    """
    near = [_nearest(points, members) for members in _cells(points)]
    first, second, gap = (np.concatenate(part) for part in zip(*near, strict=True))
    close = gap <= farthest
    first, second, gap = first[close], second[close], gap[close]
    order = np.lexsort((second, gap, first))
    first, second = first[order], second[order]
    new = np.ones(len(first), bool)  # the same neighbour may come from several cells
    new[1:] = (first[1:] != first[:-1]) | (second[1:] != second[:-1])
    first, second = first[new], second[new]
    begin = np.searchsorted(first, first)
    nearest = np.arange(len(first)) - begin < NEIGHBOURS
    pairs = np.stack([first[nearest], second[nearest]], axis=1)
    return np.unique(np.sort(pairs, axis=1), axis=0)


def _cells(points: np.ndarray) -> list[np.ndarray]:
    """Sets of places, overlapping, such that near neighbours share one: all places where there are few.

    The time of comparing all with all grows with the square; of each with its nearest cells, with the power 3/2.
    """
    count = len(points)
    if count <= 8 * _CELL:
        return [np.arange(count)]
    centres = points[:: _CELL // 2]
    cell = np.empty((count, _PROBES), np.int64)
    for start in range(0, count, _BLOCK):
        gap = _gaps(points[start : start + _BLOCK], centres)
        cell[start : start + _BLOCK] = np.argpartition(gap, _PROBES - 1, axis=1)[:, :_PROBES]
    order = np.argsort(cell.ravel(), kind="stable")
    return np.split(order // _PROBES, np.searchsorted(cell.ravel()[order], np.arange(1, len(centres))))


def _nearest(points: np.ndarray, members: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The nearest neighbours of each of `members` among them: places of both, and squared distances."""
    wanted = min(NEIGHBOURS, len(members) - 1)
    mine = points[members]
    near = np.empty((len(members), wanted), np.int64)
    gaps = np.empty((len(members), wanted), np.float32)
    for start in range(0, len(members), _BLOCK):
        gap = _gaps(mine[start : start + _BLOCK], mine)
        rows = np.arange(len(gap))
        gap[rows, start + rows] = np.inf
        for place in range(wanted):  # a tenth of argpartition's time
            near[start + rows, place] = chosen = gap.argmin(axis=1)
            gaps[start + rows, place] = gap[rows, chosen]
            gap[rows, chosen] = np.inf
    return np.repeat(members, wanted), members[near].ravel(), gaps.ravel()


def _gaps(some: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Squared distances (A,B) of points (A,D) and (B,D), but for rounding."""
    return (some**2).sum(axis=1)[:, None] + (others**2).sum(axis=1) - 2 * some @ others.T


def _waves(frequencies: np.ndarray) -> np.ndarray:
    """Windowed waves complex64 (len(frequencies), _SIDE): a product with them is a part of a Fourier transform."""
    waves = np.exp(-2j * np.pi * np.outer(frequencies, np.arange(_SIDE)) / _SIDE)
    return (waves * np.hanning(_SIDE + 2)[1:-1]).astype(np.complex64)


def _areas() -> np.ndarray:
    """Shares of each of _SIDE pixels in each of _COLOURS equal cells: float32 (_COLOURS, _SIDE)."""
    borders = np.arange(_COLOURS + 1)[:, None] * (_SIDE / _COLOURS)
    covered = np.clip(borders - np.arange(_SIDE), 0, 1)  # of each pixel, what lies before each border
    return (np.diff(covered, axis=0) * (_COLOURS / _SIDE)).astype(np.float32)


_DOWN = _waves(np.r_[:_LOW, -_LOW + 1 : 0])
_ACROSS = _waves(np.arange(_LOW)).T
_AREAS = _areas()


def descriptors(images: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Describe the images (N,S,S,3) in `rows` (K,): float32 (K, DIMENSIONS), near where the pictures are.

    The leading components of the K raw descriptions, computed from a thousand or two of them.
    """
    sample = _raw(images, rows[:: max(1, len(rows) // _SAMPLE)])
    mean = sample.mean(axis=0)
    _, vectors = np.linalg.eigh(np.cov(sample.T).astype(np.float64)) if len(rows) > 1 else (0, np.eye(len(mean)))
    axes = vectors[:, ::-1][:, :DIMENSIONS].astype(np.float32)
    found = np.empty((len(rows), axes.shape[1]), np.float32)
    for start in range(0, len(rows), _DESCRIBED):
        found[start : start + _DESCRIBED] = (_raw(images, rows[start : start + _DESCRIBED]) - mean) @ axes
    return found


def _raw(images: np.ndarray, rows: np.ndarray) -> np.ndarray:
    plain = np.asarray(images)
    small = np.empty((len(rows), _SIDE, _SIDE, 3), np.float32)
    for place, row in enumerate(rows):
        small[place] = cv2.resize(plain[row], (_SIDE, _SIDE), interpolation=cv2.INTER_AREA)
    return np.concatenate([_magnitudes(small), _LAYOUT * _layout(small)], axis=1)


def _magnitudes(small: np.ndarray) -> np.ndarray:
    """Logarithms of the low frequencies' magnitudes of grey and of two colour differences."""
    red, green, blue = np.moveaxis(small, -1, 0)
    planes = np.stack([(red + green + blue) / 3, red - green, green - blue], axis=1)
    planes -= planes.mean(axis=(2, 3), keepdims=True)
    planes /= planes[:, :1].std(axis=(2, 3), keepdims=True) + 4
    # Of the windowed spectrum the low frequencies alone: two small products instead of a whole transform.
    spectrum = _DOWN @ planes.astype(np.complex64) @ _ACROSS
    return np.log1p(np.abs(spectrum).reshape(len(small), -1)).astype(np.float32)


def _layout(small: np.ndarray) -> np.ndarray:
    """Coarse colours in their places, each channel less its mean and divided by its contrast."""
    coarse = np.einsum("ai,kijc,bj->kabc", _AREAS, small, _AREAS, optimize=True)
    coarse -= coarse.mean(axis=(1, 2), keepdims=True)
    coarse /= coarse.std(axis=(1, 2), keepdims=True) + 4
    return coarse.reshape(len(small), -1) / np.sqrt(10)


@dataclass(frozen=True)
class Alignment:
    """How the second image lies over the first: `matrix` float64 (2,3) from pixels of the first to the second.

    The matrix is in shares of the side, with the origin in the centre: its last column is the shift. `mse` is the
    mean squared error over the overlap, each channel's brightness and contrast made equal.
    """

    matrix: np.ndarray
    correlation: float
    mse: float


def grey(image: np.ndarray, side: int) -> np.ndarray:
    """An image (S,S,3) as grey float32 (side, side), or as it is where it is smaller."""
    side = min(side, image.shape[0])
    small = cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA)
    return cv2.cvtColor(small, cv2.COLOR_RGB2GRAY).astype(np.float32)


def align(first: np.ndarray, second: np.ndarray) -> Alignment | None:
    """Lay `second` over `first`, both (S,S,3) uint8 or float32; None where they are not of one photograph."""
    one, other = grey(first, COARSE), grey(second, COARSE)
    found = _step(one, other, np.eye(2, 3), 1, 3)
    if found[0] < FIRST_CORRELATION:
        return None
    found = _step(one, other, found[1], _COARSE_ROUNDS, 3)
    if found[0] < COARSE_CORRELATION:
        return None
    one, other = grey(first, FINE), grey(second, FINE)
    found = _step(one, other, found[1], _FINE_ROUNDS, 5, FINE_CORRELATION)
    if found[0] < CORRELATION:
        return None
    correlation, matrix = found
    large, small = np.linalg.svd(matrix[:, :2], compute_uv=False)
    if large > SCALE or small < 1 / SCALE or large > STRETCH * small:
        return None
    kept_form = large <= FORM * small and correlation >= FORM_CORRELATION
    if not kept_form and _detail(one, other, matrix) < DETAIL:
        return None
    laid = laid_over(second.astype(np.float32), matrix)
    inside = laid_over(np.ones(first.shape[:2], np.float32), matrix) > 0.999
    if inside.mean() < OVERLAP or _differ_locally(first, laid, inside):
        return None
    one, other = first[inside].astype(np.float64), laid[inside].astype(np.float64)
    other = (other - other.mean(0)) * (one.std(0) / np.maximum(other.std(0), 1e-6)) + one.mean(0)
    return Alignment(matrix, correlation, float(((one - other) ** 2).mean()))


def _differ_locally(first: np.ndarray, laid: np.ndarray, inside: np.ndarray) -> bool:
    """Return whether two aligned images differ in one place of their overlap `inside` (S,S)."""
    cells = (min(CELLS, len(first)),) * 2
    share = cv2.resize(inside.astype(np.float32), cells, interpolation=cv2.INTER_AREA)
    covered = share > 0.5
    means = []
    for image in (first, laid):
        sums = cv2.resize(np.where(inside[..., None], image, 0).astype(np.float32), cells, interpolation=cv2.INTER_AREA)
        mean = sums[covered] / share[covered][:, None]
        blocks = np.full(sums.shape, mean.mean(axis=0), np.float32)
        blocks[covered] = mean
        means.append(blocks[None])
    mse = float(np.square(first[inside].astype(np.float32) - laid[inside]).mean())
    # An alignment is off by a share of a pixel, which a smaller image shows more.
    return bool(differ_locally(means[0], means[1], mse, tolerance(len(first)) ** 2)[0])


def describe(matrix: np.ndarray, side: int) -> str:
    """A matrix in words: the shift in pixels of images of `side`, the scale and the turn in degrees."""
    across, down = matrix[:, 2] * side
    scale = np.sqrt(abs(np.linalg.det(matrix[:, :2])))
    turn = np.degrees(np.arctan2(matrix[1, 0] - matrix[0, 1], matrix[0, 0] + matrix[1, 1]))
    return f"shift {across:.1f} {down:.1f} scale {scale:.3f} turn {turn:.1f}"


def _step(
    one: np.ndarray, other: np.ndarray, start: np.ndarray, rounds: int, blur: int, least: float = -1
) -> tuple[float, np.ndarray]:
    """Improve the matrix `start` on two grey images: the best correlation met and its matrix.

    Below the correlation `least` another round is not worth its time.
    """
    warp = _pixels(start, one.shape[0]).astype(np.float32)
    best, kept = _agreement(one, other, warp), warp.copy()
    for _ in range(rounds):
        try:
            _, warp = cv2.findTransformECC(one, other, warp, cv2.MOTION_AFFINE, _STEPS, None, blur)
        except cv2.error:  # no convergence, or a uniform image
            break
        reached = _agreement(one, other, warp)
        gain = reached - best
        if gain > 0:
            best, kept = reached, warp.copy()
        if gain < _GAIN or best < least:
            break
    return best, _shares(kept.astype(np.float64), one.shape[0])


def _agreement(one: np.ndarray, other: np.ndarray, warp: np.ndarray) -> float:
    """Correlation of two grey images over their overlap once `warp` lays the other over the one; -1 without overlap."""
    how, size = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, one.shape[::-1]
    laid = cv2.warpAffine(other, warp, size, flags=how, borderValue=-1e6)
    inside = laid > -1
    if inside.mean() < OVERLAP:
        return -1.0
    return _correlation(one[inside], laid[inside])


def _detail(one: np.ndarray, other: np.ndarray, matrix: np.ndarray) -> float:
    """Correlation of the fine detail of two grey images over their overlap once `matrix` lays the other over the one.

    Detail is what is left of a picture less its blurred self; the finest, noise and traces of JPEG, is left out.
    """
    how, size = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, one.shape[::-1]
    warp = _pixels(matrix, one.shape[0])
    laid = cv2.warpAffine(other, warp, size, flags=how)
    inside = cv2.warpAffine(np.ones_like(other), warp, size, flags=how) > 0.999
    reach = np.ones((7, 7), np.uint8)  # of the blur: what it drew from beyond the border is no detail
    inside = cv2.erode(inside.astype(np.uint8), reach, borderType=cv2.BORDER_CONSTANT, borderValue=0) > 0
    a, b = (cv2.GaussianBlur(x, (0, 0), _FINEST) - cv2.GaussianBlur(x, (0, 0), _COARSEST) for x in (one, laid))
    return _correlation(a[inside], b[inside])


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Pearson's coefficient of two flat float32 arrays; 0 where one is uniform or both are empty."""
    if not len(a):
        return 0.0
    a, b = a - a.mean(), b - b.mean()
    return float(a @ b / np.sqrt(max((a @ a) * (b @ b), 1e-9)))


def _pixels(matrix: np.ndarray, side: int) -> np.ndarray:
    """A matrix in shares of the side about the centre, as OpenCV wants it: in pixels from the corner."""
    centre = np.full(2, (side - 1) / 2)
    shift = matrix[:, 2] * side + centre - matrix[:, :2] @ centre
    return np.column_stack([matrix[:, :2], shift])


def _shares(warp: np.ndarray, side: int) -> np.ndarray:
    centre = np.full(2, (side - 1) / 2)
    shift = (warp[:, 2] - centre + warp[:, :2] @ centre) / side
    return np.column_stack([warp[:, :2], shift])


def laid_over(image: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """The second image (S,S,3) or (S,S) of an `Alignment` as it lies over the first; black, or 0, outside of it."""
    side = image.shape[0]
    how = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(image, _pixels(matrix, side), (side, side), flags=how)
