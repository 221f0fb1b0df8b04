"""Crops of one photo: pairs of images that no threshold on raw pixels finds.

Every image gets a short descriptor that changes little with a shift, a scale or a tint. Each image is aligned with the
images whose descriptors are nearest, and the agreement after alignment decides.

The descriptor holds magnitudes of low frequencies, which do not change with a shift, divided by the contrast, and
coarse colors at their positions. Among 1,370 images the nearest neighbor of a planted crop is its partner in 99 of 100
cases, and one of the nearest five in all.

The alignment is an affine map by the enhanced correlation coefficient (Evangelidis and Psarakis 2008), OpenCV's
findTransformECC, from coarse to fine. The coefficient does not change with brightness and contrast.
"""

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import cv2
import numpy as np
import pandas as pd

from leaf.clean.distances import FINE as CELLS
from leaf.clean.distances import differ_locally, of_pairs, tolerance
from leaf.clean.groups import components

NEIGHBORS = 2  # alignments per image, at most: the cost of a data set grows with its size only
# Squared distance of two descriptors above which the photos differ: planted crops are closer in 98 of 100 cases, and a
# quarter (images of one kind) to a half of all nearest neighbors are farther apart.
FARTHEST = 80.0
MOST_IMAGES = 1_000_000  # above, the search would take hours and is skipped
_CELL = 1024  # images per center in a large data set
_PROBES = 3  # nearest centers whose images an image is compared with
_BLOCK = 1024  # images whose distances to others are computed at once
DIMENSIONS = 64  # of a descriptor
_SIDE, _LOW, _COLORS = 32, 8, 6
_LAYOUT = 1.6  # weight of the colors relative to the magnitudes
_DESCRIBED = 512  # images described at once
_SAMPLE = 1000  # images, at least half of them, that the components are computed from
COARSE = 32  # side of the images on which most pairs are rejected
FINE = 96  # largest side of the images on which the others are decided
# Measured on likely pairs of four data sets (benchmarks/copies.py and drawn ones). Of 1,444 pairs of one photo all but
# one reach 0.91 after one round on the coarse images, 0.95 at the end there, and 0.96 after one round on the fine ones.
# Of other pairs one in twelve exceeds COARSE_CORRELATION and one in seventy FINE_CORRELATION.
FIRST_CORRELATION = 0.88
COARSE_CORRELATION = 0.93
FINE_CORRELATION = 0.95
CORRELATION = 0.96
OVERLAP = 0.5  # smallest share of the first image that the second covers
SCALE = 1.45  # largest scale between crops of one photo, along any axis
STRETCH = 1.35  # largest ratio of the scales of the two axes
# An image with the same form needs only FORM_CORRELATION. One with another form or a lower correlation must agree in
# its fine detail, too: a stretch of 1.04 or more can align two different blurred leaves to a correlation of 0.979, but
# in detail they reach 0.61, or 0.79 when blurred (leaves_by_plant, whose leaves are known). Planted crops reach 0.89 in
# detail (1st percentile), other photos of one leaf 0.77 to 0.94.
FORM = 1.03
FORM_CORRELATION = 0.97
DETAIL = 0.85
_FINEST, _COARSEST = 0.6, 2.0  # standard deviations of the two blurs between which detail lies, in pixels of FINE

# OpenCV's iteration may leave an optimum: run a few steps at a time and keep the best.
_STEPS = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 5, 1e-4)
_COARSE_ROUNDS, _FINE_ROUNDS = 2, 6
_PART = 64  # pairs per task of a thread: single pairs cost a tenth of the time in overhead
_GAIN = 1e-3  # correlation that a round must gain for another round to start


def same_photo_pairs(images: np.ndarray, rows: np.ndarray, every: bool = False) -> pd.DataFrame:
    """Return pairs among the images in ascending `rows` (K,) that are crops of one photo.

    `images` is uint8 or float32 (N,S,S,3). The columns are `image,other,kind,mse,transform,aligned_mse`, `image` before
    `other`, with the errors before and after the alignment, and its shift, scale and rotation as text.

    Each image is aligned with its NEIGHBORS nearest ones. Unless `every` is set, a pair that earlier pairs join already
    is skipped: of many crops of one photo not every pair is listed, but they are in one connected component.
    """
    plain, joined = np.asarray(images), np.arange(len(rows))
    first, second = (np.empty(0, np.int64),) * 2
    found: list[Alignment] = []
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)  # one image is too small to split; the pool splits the pairs
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:  # OpenCV releases the GIL
        for likely in _likely(descriptors(plain, rows), FARTHEST) if len(rows) > 1 else ():
            pairs = likely if every else likely[joined[likely[:, 0]] != joined[likely[:, 1]]]
            parts = [rows[pairs[start : start + _PART]] for start in range(0, len(pairs), _PART)]
            aligned = pool.map(lambda part: [align(plain[one], plain[other]) for one, other in part], parts)
            made = [each for part in aligned for each in part]
            same = np.array([each is not None for each in made], bool)
            found += [each for each in made if each is not None]
            first, second = np.concatenate([first, pairs[same, 0]]), np.concatenate([second, pairs[same, 1]])
            joined = components(len(rows), np.stack([first, second], axis=1))
    cv2.setNumThreads(threads)
    images_of = rows[np.stack([first, second], axis=1)]
    return pd.DataFrame(
        {
            "image": images_of[:, 0],
            "other": images_of[:, 1],
            "kind": "aligned",
            "mse": of_pairs(images, images_of),
            "transform": np.array([describe(each.matrix, plain.shape[1]) for each in found], object),
            "aligned_mse": np.array([each.mse for each in found], np.float64),
        }
    ).sort_values(["image", "other"], ignore_index=True)


def _likely(points: np.ndarray, farthest: float = np.inf) -> list[np.ndarray]:
    """Return positions of pairs int64 (P,2), each once and the smaller first: of nearest neighbors, second nearest, …

    Pairs whose squared distance is above `farthest` are left out.
    """
    near = [_nearest(points, members) for members in _cells(points)]
    first, second, gap = (np.concatenate(part) for part in zip(*near, strict=True))
    close = gap <= farthest
    first, second, gap = first[close], second[close], gap[close]
    order = np.lexsort((second, gap, first))
    first, second = first[order], second[order]
    new = np.ones(len(first), bool)  # the same neighbor may come from several cells
    new[1:] = (first[1:] != first[:-1]) | (second[1:] != second[:-1])
    first, second = first[new], second[new]
    place = np.arange(len(first)) - np.searchsorted(first, first)
    pairs = np.sort(np.stack([first, second], axis=1), axis=1)
    order = np.argsort(place, kind="stable")
    pairs, once = np.unique(pairs[order], axis=0, return_index=True)
    place = place[order][once]
    return [pairs[place == neighbor] for neighbor in range(NEIGHBORS)]


def _cells(points: np.ndarray) -> list[np.ndarray]:
    """Return overlapping sets of positions such that near neighbors share a set; one set if there are few points.

    Comparing all points takes quadratic time, comparing those of the nearest cells time with the power 3/2.
    """
    count = len(points)
    if count <= 8 * _CELL:
        return [np.arange(count)]
    centers = points[:: _CELL // 2]
    cell = np.empty((count, _PROBES), np.int64)
    for start in range(0, count, _BLOCK):
        gap = _gaps(points[start : start + _BLOCK], centers)
        cell[start : start + _BLOCK] = np.argpartition(gap, _PROBES - 1, axis=1)[:, :_PROBES]
    order = np.argsort(cell.ravel(), kind="stable")
    return np.split(order // _PROBES, np.searchsorted(cell.ravel()[order], np.arange(1, len(centers))))


def _nearest(points: np.ndarray, members: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the nearest neighbors of each of `members` among them: positions of both, and squared distances."""
    wanted = min(NEIGHBORS, len(members) - 1)
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
    """Return squared distances (A,B) of points (A,D) and (B,D), up to rounding."""
    return (some**2).sum(axis=1)[:, None] + (others**2).sum(axis=1) - 2 * some @ others.T


def _waves(frequencies: np.ndarray) -> np.ndarray:
    """Return windowed waves complex64 (len(frequencies), _SIDE), rows of a Fourier transform."""
    waves = np.exp(-2j * np.pi * np.outer(frequencies, np.arange(_SIDE)) / _SIDE)
    return (waves * np.hanning(_SIDE + 2)[1:-1]).astype(np.complex64)


def _areas() -> np.ndarray:
    """Return the share of each of _SIDE pixels in each of _COLORS equal cells: float32 (_COLORS, _SIDE)."""
    borders = np.arange(_COLORS + 1)[:, None] * (_SIDE / _COLORS)
    covered = np.clip(borders - np.arange(_SIDE), 0, 1)  # the part of each pixel before each border
    return (np.diff(covered, axis=0) * (_COLORS / _SIDE)).astype(np.float32)


_DOWN = _waves(np.r_[:_LOW, -_LOW + 1 : 0])
_ACROSS = _waves(np.arange(_LOW)).T
_AREAS = _areas()


def descriptors(images: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Return descriptors of the images (N,S,S,3) in `rows` (K,): float32 (K, DIMENSIONS), near for similar images.

    They are the leading principal components of raw descriptors, computed from a sample of one or two thousand.
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
    """Return log magnitudes of the low frequencies of gray and of two color differences."""
    red, green, blue = np.moveaxis(small, -1, 0)
    planes = np.stack([(red + green + blue) / 3, red - green, green - blue], axis=1)
    planes -= planes.mean(axis=(2, 3), keepdims=True)
    planes /= planes[:, :1].std(axis=(2, 3), keepdims=True) + 4
    # Two small products give the low frequencies without a whole transform.
    spectrum = _DOWN @ planes.astype(np.complex64) @ _ACROSS
    return np.log1p(np.abs(spectrum).reshape(len(small), -1)).astype(np.float32)


def _layout(small: np.ndarray) -> np.ndarray:
    """Return coarse colors by position, each channel minus its mean and divided by its contrast."""
    coarse = np.einsum("ai,kijc,bj->kabc", _AREAS, small, _AREAS, optimize=True)
    coarse -= coarse.mean(axis=(1, 2), keepdims=True)
    coarse /= coarse.std(axis=(1, 2), keepdims=True) + 4
    return coarse.reshape(len(small), -1) / np.sqrt(10)


@dataclass(frozen=True)
class Alignment:
    """An affine map from pixels of a first image to those of a second one: `matrix` float64 (2,3).

    The unit is the side of the image and the origin its center; the last column is the shift. `mse` is the mean squared
    error over the overlap after equalizing brightness and contrast of each channel.
    """

    matrix: np.ndarray
    correlation: float
    mse: float


def gray(image: np.ndarray, side: int) -> np.ndarray:
    """Return an image (S,S,3) as gray float32 (side, side), not enlarged."""
    side = min(side, image.shape[0])
    small = cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA)
    return cv2.cvtColor(small, cv2.COLOR_RGB2GRAY).astype(np.float32)


def align(first: np.ndarray, second: np.ndarray) -> Alignment | None:
    """Align `second` with `first`, both (S,S,3) uint8 or float32; return None unless they show one photo."""
    one, other = gray(first, COARSE), gray(second, COARSE)
    found = _step(one, other, np.eye(2, 3), 1, 3)
    if found[0] < FIRST_CORRELATION:
        return None
    found = _step(one, other, found[1], _COARSE_ROUNDS, 3)
    if found[0] < COARSE_CORRELATION:
        return None
    one, other = gray(first, FINE), gray(second, FINE)
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
    """Return a matrix as text: the shift in pixels of images of `side`, the scale, and the rotation in degrees."""
    across, down = matrix[:, 2] * side
    scale = np.sqrt(abs(np.linalg.det(matrix[:, :2])))
    turn = np.degrees(np.arctan2(matrix[1, 0] - matrix[0, 1], matrix[0, 0] + matrix[1, 1]))
    return f"shift {across:.1f} {down:.1f} scale {scale:.3f} turn {turn:.1f}"


def _step(
    one: np.ndarray, other: np.ndarray, start: np.ndarray, rounds: int, blur: int, least: float = -1
) -> tuple[float, np.ndarray]:
    """Improve the matrix `start` on two gray images; return the best correlation and its matrix.

    Stop below the correlation `least`.
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
    """Return the correlation of two gray images over their overlap under `warp`, or -1 if the overlap is small."""
    how, size = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, one.shape[::-1]
    laid = cv2.warpAffine(other, warp, size, flags=how, borderValue=-1e6)
    inside = laid > -1
    if inside.mean() < OVERLAP:
        return -1.0
    return _correlation(one[inside], laid[inside])


def _detail(one: np.ndarray, other: np.ndarray, matrix: np.ndarray) -> float:
    """Return the correlation of the fine detail of two gray images over their overlap under `matrix`.

    Detail is the difference of two blurs, without the finest scale: noise and JPEG artifacts.
    """
    how, size = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, one.shape[::-1]
    warp = _pixels(matrix, one.shape[0])
    laid = cv2.warpAffine(other, warp, size, flags=how)
    inside = cv2.warpAffine(np.ones_like(other), warp, size, flags=how) > 0.999
    reach = np.ones((7, 7), np.uint8)  # of the blur, which mixes in pixels beyond the border
    inside = cv2.erode(inside.astype(np.uint8), reach, borderType=cv2.BORDER_CONSTANT, borderValue=0) > 0
    a, b = (cv2.GaussianBlur(x, (0, 0), _FINEST) - cv2.GaussianBlur(x, (0, 0), _COARSEST) for x in (one, laid))
    return _correlation(a[inside], b[inside])


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Return Pearson's coefficient of two flat float32 arrays, or 0 if one is uniform or both are empty."""
    if not len(a):
        return 0.0
    a, b = a - a.mean(), b - b.mean()
    return float(a @ b / np.sqrt(max((a @ a) * (b @ b), 1e-9)))


def _pixels(matrix: np.ndarray, side: int) -> np.ndarray:
    """Convert a matrix from shares of the side about the center to OpenCV's pixels from the corner."""
    center = np.full(2, (side - 1) / 2)
    shift = matrix[:, 2] * side + center - matrix[:, :2] @ center
    return np.column_stack([matrix[:, :2], shift])


def _shares(warp: np.ndarray, side: int) -> np.ndarray:
    center = np.full(2, (side - 1) / 2)
    shift = (warp[:, 2] - center + warp[:, :2] @ center) / side
    return np.column_stack([warp[:, :2], shift])


def laid_over(image: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Warp the second image (S,S,3) or (S,S) of an `Alignment` to the first, with 0 outside of it."""
    side = image.shape[0]
    how = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(image, _pixels(matrix, side), (side, side), flags=how)
