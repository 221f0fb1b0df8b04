"""Find crops of one photo: pairs of images that no threshold on raw pixels can detect.

Each image has a short descriptor that changes little under shifts, scaling and tinting. It is aligned with the images
that have the nearest descriptors. Two images show one photo if they correlate strongly after alignment.

The descriptor contains the magnitudes of low frequencies divided by the contrast, which are invariant to shifts, and
coarse colors by position. Among 1,370 images, the nearest neighbor of a planted crop is its partner in 99 of 100 cases,
and the partner is among the nearest five in all cases.

The alignment is an affine map that maximizes the enhanced correlation coefficient (Evangelidis and Psarakis 2008) from
coarse to fine, with OpenCV's findTransformECC. The coefficient is invariant to brightness and contrast.
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

NEIGHBORS = 2  # maximum alignments per image, so that the cost is linear in the number of images
# Squared distance between descriptors above which the photos differ. Planted crops are closer in 98 of 100 cases. A
# quarter (in data sets of similar images) to a half of all nearest neighbors are farther apart.
FARTHEST = 80.0
MOST_IMAGES = 1_000_000  # maximum number of images; a search among more would take hours and is skipped
_CELL = 1024  # images per center in a large data set
_PROBES = 3  # number of nearest centers; an image is compared with the images of these centers
_BLOCK = 1024  # images per block of the distance computation
DIMENSIONS = 64  # length of a descriptor
_SIDE, _LOW, _COLORS = 32, 8, 6
_LAYOUT = 1.6  # weight of the colors relative to the magnitudes
_DESCRIBED = 512  # images per batch of descriptors
_SAMPLE = 1000  # approximate number of images used to compute the components: one to two times this
COARSE = 32  # side of the images that reject most pairs
FINE = 96  # largest side of the images that decide the remaining pairs
# Measured on likely pairs from four data sets (benchmarks/copies.py and synthetic ones). Of 1,444 pairs of one photo,
# all but one reach 0.91 after one round on the coarse images, 0.95 after the last coarse round, and 0.96 after one
# round on the fine images. Of the other pairs, one in twelve exceeds COARSE_CORRELATION and one in seventy exceeds
# FINE_CORRELATION.
FIRST_CORRELATION = 0.88
COARSE_CORRELATION = 0.93
FINE_CORRELATION = 0.95
CORRELATION = 0.96
OVERLAP = 0.5  # smallest share of the first image that the second covers
SCALE = 1.45  # largest scale between crops of one photo, along any axis
STRETCH = 1.35  # largest ratio of the scales of the two axes
# An image with the same form needs only FORM_CORRELATION. With another form or a lower correlation, the fine detail
# must agree too: a stretch of 1.04 or more can align two different blurred leaves to a correlation of 0.979, but the
# detail correlation reaches only 0.61, or 0.79 if they are blurred (leaves_by_plant, whose leaves are known). For
# planted crops the detail correlation is 0.89 (1st percentile); for other photos of one leaf it is 0.77 to 0.94.
FORM = 1.03
FORM_CORRELATION = 0.97
DETAIL = 0.85
_FINEST, _COARSEST = 0.6, 2.0  # standard deviations of the two blurs whose difference is the detail, in FINE pixels

# OpenCV's iteration can move away from an optimum: run a few steps at a time and keep the best.
_STEPS = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 5, 1e-4)
_COARSE_ROUNDS, _FINE_ROUNDS = 2, 6
_PART = 64  # pairs per thread task: with single pairs, overhead is a tenth of the time
_GAIN = 1e-3  # minimum gain in correlation for another round


def same_photo_pairs(images: np.ndarray, rows: np.ndarray, every: bool = False) -> pd.DataFrame:
    """Return pairs of crops of one photo among the images in `rows` (K,), which are ascending.

    `images` is uint8 or float32 (N,S,S,3). The columns are `image,other,kind,mse,transform,aligned_mse`, with `image`
    before `other`: the errors before and after alignment, and the shift, scale and rotation as text.

    Each image is aligned with its NEIGHBORS nearest ones. Unless `every` is set, a pair that earlier pairs already
    connect is skipped: not every pair of many crops of one photo is listed, but they form one connected component.
    """
    plain, joined = np.asarray(images), np.arange(len(rows))
    first, second = (np.empty(0, np.int64),) * 2
    found: list[Alignment] = []
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)  # single images are too small for threads; the pool distributes the pairs
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
    """Return positions of pairs, int64 (P,2), for nearest neighbors, then for second nearest neighbors, and so on.

    Each pair appears once, smaller position first. Pairs whose squared distance exceeds `farthest` are left out.
    """
    near = [_nearest(points, members) for members in _cells(points)]
    first, second, gap = (np.concatenate(part) for part in zip(*near, strict=True))
    close = gap <= farthest
    first, second, gap = first[close], second[close], gap[close]
    order = np.lexsort((second, gap, first))
    first, second = first[order], second[order]
    new = np.ones(len(first), bool)  # several cells may return the same neighbor
    new[1:] = (first[1:] != first[:-1]) | (second[1:] != second[:-1])
    first, second = first[new], second[new]
    place = np.arange(len(first)) - np.searchsorted(first, first)
    pairs = np.sort(np.stack([first, second], axis=1), axis=1)
    order = np.argsort(place, kind="stable")
    pairs, once = np.unique(pairs[order], axis=0, return_index=True)
    place = place[order][once]
    return [pairs[place == neighbor] for neighbor in range(NEIGHBORS)]


def _cells(points: np.ndarray) -> list[np.ndarray]:
    """Divide points into overlapping sets so that near neighbors share a set; return one set if there are few points.

    Comparing all points takes O(n²) time; comparing only points in the nearest cells takes O(n^1.5).
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
    """Return each member's nearest neighbors within `members`.

    The result is the member index, the neighbor index and the squared distance, one entry per pair.
    """
    wanted = min(NEIGHBORS, len(members) - 1)
    mine = points[members]
    near = np.empty((len(members), wanted), np.int64)
    gaps = np.empty((len(members), wanted), np.float32)
    for start in range(0, len(members), _BLOCK):
        gap = _gaps(mine[start : start + _BLOCK], mine)
        rows = np.arange(len(gap))
        gap[rows, start + rows] = np.inf
        for place in range(wanted):  # takes a tenth of the time of argpartition
            near[start + rows, place] = chosen = gap.argmin(axis=1)
            gaps[start + rows, place] = gap[rows, chosen]
            gap[rows, chosen] = np.inf
    return np.repeat(members, wanted), members[near].ravel(), gaps.ravel()


def _gaps(some: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return the squared distances (A,B) between points (A,D) and (B,D), up to rounding."""
    return (some**2).sum(axis=1)[:, None] + (others**2).sum(axis=1) - 2 * some @ others.T


def _waves(frequencies: np.ndarray) -> np.ndarray:
    """Return windowed rows of the Fourier transform matrix: complex64 (len(frequencies), _SIDE)."""
    waves = np.exp(-2j * np.pi * np.outer(frequencies, np.arange(_SIDE)) / _SIDE)
    return (waves * np.hanning(_SIDE + 2)[1:-1]).astype(np.complex64)


def _areas() -> np.ndarray:
    """Return the share of each of _SIDE pixels that is in each of _COLORS equal cells: float32 (_COLORS, _SIDE)."""
    borders = np.arange(_COLORS + 1)[:, None] * (_SIDE / _COLORS)
    covered = np.clip(borders - np.arange(_SIDE), 0, 1)  # the part of each pixel before each border
    return (np.diff(covered, axis=0) * (_COLORS / _SIDE)).astype(np.float32)


_DOWN = _waves(np.r_[:_LOW, -_LOW + 1 : 0])
_ACROSS = _waves(np.arange(_LOW)).T
_AREAS = _areas()


def descriptors(images: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Return descriptors of the images in `rows` (K,) of `images` (N,S,S,3): float32 (K, DIMENSIONS).

    Similar images have near descriptors: the leading principal components of the raw descriptors, which are computed
    from a sample of one to two thousand images.
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
    """Return the log magnitudes of the low frequencies in gray and two color differences."""
    red, green, blue = np.moveaxis(small, -1, 0)
    planes = np.stack([(red + green + blue) / 3, red - green, green - blue], axis=1)
    planes -= planes.mean(axis=(2, 3), keepdims=True)
    planes /= planes[:, :1].std(axis=(2, 3), keepdims=True) + 4
    # Two small matrix products give the low frequencies without a full transform.
    spectrum = _DOWN @ planes.astype(np.complex64) @ _ACROSS
    return np.log1p(np.abs(spectrum).reshape(len(small), -1)).astype(np.float32)


def _layout(small: np.ndarray) -> np.ndarray:
    """Return coarse colors by position. Each channel is centered and divided by its contrast."""
    coarse = np.einsum("ai,kijc,bj->kabc", _AREAS, small, _AREAS, optimize=True)
    coarse -= coarse.mean(axis=(1, 2), keepdims=True)
    coarse /= coarse.std(axis=(1, 2), keepdims=True) + 4
    return coarse.reshape(len(small), -1) / np.sqrt(10)


@dataclass(frozen=True)
class Alignment:
    """An affine map from the first image to the second: `matrix`, float64 (2,3).

    Coordinates are relative to the image center, in units of the image side; the last column is the shift. `mse` is the
    mean squared error over the overlap, after each channel's brightness and contrast are equalized.
    """

    matrix: np.ndarray
    correlation: float
    mse: float


def gray(image: np.ndarray, side: int) -> np.ndarray:
    """Convert an image (S,S,3) to gray and resize it to float32 (side, side), without enlarging it."""
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
    """Return whether two aligned images differ in only one place within their overlap `inside` (S,S)."""
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
    # An alignment is off by a fraction of a pixel, which has more effect in a smaller image.
    return bool(differ_locally(means[0], means[1], mse, tolerance(len(first)) ** 2)[0])


def describe(matrix: np.ndarray, side: int) -> str:
    """Describe a matrix as text: the shift in pixels for images of `side`, the scale, and the rotation in degrees."""
    across, down = matrix[:, 2] * side
    scale = np.sqrt(abs(np.linalg.det(matrix[:, :2])))
    turn = np.degrees(np.arctan2(matrix[1, 0] - matrix[0, 1], matrix[0, 0] + matrix[1, 1]))
    return f"shift {across:.1f} {down:.1f} scale {scale:.3f} turn {turn:.1f}"


def _step(
    one: np.ndarray, other: np.ndarray, start: np.ndarray, rounds: int, blur: int, least: float = -1
) -> tuple[float, np.ndarray]:
    """Refine the matrix `start` on two gray images. Return the best correlation and its matrix.

    Stop if the correlation is below `least`.
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
    """Return the correlation of two gray images over their overlap under `warp`, or -1 if they overlap too little."""
    how, size = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, one.shape[::-1]
    laid = cv2.warpAffine(other, warp, size, flags=how, borderValue=-1e6)
    inside = laid > -1
    if inside.mean() < OVERLAP:
        return -1.0
    return _correlation(one[inside], laid[inside])


def _detail(one: np.ndarray, other: np.ndarray, matrix: np.ndarray) -> float:
    """Return the correlation of fine detail between two gray images over their overlap under `matrix`.

    Detail is the difference of two blurs. It excludes the finest scale, which contains noise and JPEG artifacts.
    """
    how, size = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, one.shape[::-1]
    warp = _pixels(matrix, one.shape[0])
    laid = cv2.warpAffine(other, warp, size, flags=how)
    inside = cv2.warpAffine(np.ones_like(other), warp, size, flags=how) > 0.999
    reach = np.ones((7, 7), np.uint8)  # reach of the blur, which mixes in pixels beyond the border
    inside = cv2.erode(inside.astype(np.uint8), reach, borderType=cv2.BORDER_CONSTANT, borderValue=0) > 0
    a, b = (cv2.GaussianBlur(x, (0, 0), _FINEST) - cv2.GaussianBlur(x, (0, 0), _COARSEST) for x in (one, laid))
    return _correlation(a[inside], b[inside])


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Return Pearson's correlation of two flat float32 arrays, or 0 if one is uniform or both are empty."""
    if not len(a):
        return 0.0
    a, b = a - a.mean(), b - b.mean()
    return float(a @ b / np.sqrt(max((a @ a) * (b @ b), 1e-9)))


def _pixels(matrix: np.ndarray, side: int) -> np.ndarray:
    """Convert a matrix from units of the side relative to the center to OpenCV's pixels from the corner."""
    center = np.full(2, (side - 1) / 2)
    shift = matrix[:, 2] * side + center - matrix[:, :2] @ center
    return np.column_stack([matrix[:, :2], shift])


def _shares(warp: np.ndarray, side: int) -> np.ndarray:
    center = np.full(2, (side - 1) / 2)
    shift = (warp[:, 2] - center + warp[:, :2] @ center) / side
    return np.column_stack([warp[:, :2], shift])


def laid_over(image: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Warp the second image of an `Alignment`, (S,S,3) or (S,S), onto the first; pixels outside it are 0."""
    side = image.shape[0]
    how = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(image, _pixels(matrix, side), (side, side), flags=how)
