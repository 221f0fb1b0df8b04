"""Find crops of the same photo, which no threshold on raw pixels can detect.

Each image gets a short descriptor that changes little when the image is shifted, scaled or tinted. The image is then
aligned with the images that have the nearest descriptors. Two images show the same photo if they are highly correlated
after alignment.

The descriptor contains the magnitudes of low frequencies divided by the contrast, which are invariant to shifts, and
coarse colors by position. Among 1,370 images, the nearest neighbor of an artificial crop is its original in 99 of 100
cases, and the original is among the nearest five in all cases.

The alignment is an affine map that maximizes the enhanced correlation coefficient (Evangelidis and Psarakis 2008) from
coarse to fine, with OpenCV's findTransformECC. The coefficient is invariant to brightness and contrast.
"""

import os
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pandas as pd

from leaf.clean.distances import FINE as CELLS
from leaf.clean.distances import differ_locally, of_pairs, tolerance
from leaf.clean.groups import components, pair_table

NEIGHBORS = 2  # maximum alignments per image, so that the cost is linear in the number of images
# Squared distance between descriptors above which images are not compared. The limit includes 98 of 100 artificial
# crops, and excludes between a quarter (in data sets of similar images) and half of all nearest neighbors.
FARTHEST = 80.0
MOST_IMAGES = 1_000_000  # a search among more images would take hours and is skipped
_CELL = 1024  # a large data set has two cell centers per this number of images
_PROBES = 3  # number of cells that each image belongs to
DIMENSIONS = 64  # length of a descriptor
_SIDE, _LOW, _COLORS = 32, 8, 6
_FREQUENCIES = np.r_[:_LOW, -_LOW + 1 : 0]  # low frequencies along the vertical axis
_WINDOW = np.outer(*[np.hanning(_SIDE + 2)[1:-1]] * 2).astype(np.float32)
_LAYOUT = 1.6  # weight of the colors relative to the magnitudes
_DESCRIBED = 512  # images per batch of descriptors
_SAMPLE = 1000  # the principal components are computed from 1× to 2× this number of images
COARSE = 32  # image side in pixels at which most pairs are rejected
FINE = 96  # maximum image side for the remaining pairs
# Measured on pairs with similar descriptors in four data sets (those of benchmarks/copies.py and synthetic ones). Of
# 1,444 pairs of crops, all but one reach a correlation of 0.91 after one round on the coarse images, 0.95 after the
# last coarse round, and 0.96 after one round on the fine images. Of the other pairs, one in twelve exceeds
# COARSE_CORRELATION and one in seventy exceeds FINE_CORRELATION.
FIRST_CORRELATION = 0.88
COARSE_CORRELATION = 0.93
FINE_CORRELATION = 0.95
CORRELATION = 0.96
OVERLAP = 0.5  # minimum share of the first image that the second covers
SCALE = 1.45  # maximum scale factor between two crops, along any axis
STRETCH = 1.35  # maximum ratio of the scales along the two axes
# Pairs that are stretched by more than FORM or have a lower correlation than FORM_CORRELATION must also match in fine
# detail. With a stretch of 1.04 or more, different leaves reach a correlation of up to 0.979 (if blurred), but a detail
# correlation of only 0.61, or 0.79 if blurred (measured on leaves_by_plant, where the leaf of each image is known). For
# artificial crops, the 1st percentile of the detail correlation is 0.89; for different photos of the same leaf, it is
# 0.77 to 0.94.
FORM = 1.03
FORM_CORRELATION = 0.97
DETAIL = 0.85
_FINEST, _COARSEST = 0.6, 2.0  # standard deviations, in FINE pixels, of the blurs whose difference is the detail

# OpenCV's iteration can diverge, so run a few steps at a time and keep the best result.
_STEPS = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 5, 1e-4)
_COARSE_ROUNDS, _FINE_ROUNDS = 2, 6
_PART = 64  # pairs per thread task; with one pair per task, a tenth of the time would be overhead
_GAIN = 1e-3  # minimum gain in correlation to run another round


def same_photo_pairs(images: np.ndarray, rows: np.ndarray, every: bool = False) -> pd.DataFrame:
    """Return pairs of crops of the same photo: `image,other,kind,mse,transform,aligned_mse`, `image` before `other`.

    `images` are uint8 or float32 (N,S,S,3), and `rows` (K,) are the numbers of the images to compare, ascending. With
    `every`, pairs of images that other pairs already connect are also returned.
    """
    plain, joined = np.asarray(images), np.arange(len(rows))
    pairs, found = np.empty((0, 2), np.int64), list[tuple[np.ndarray, float]]()
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)  # the images are too small for OpenCV's own threads; the pool aligns pairs in parallel
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:  # OpenCV releases the GIL
        for likely in _likely(descriptors(plain, rows)) if len(rows) > 1 else ():
            likely = likely if every else likely[joined[likely[:, 0]] != joined[likely[:, 1]]]
            parts = [rows[likely[start : start + _PART]] for start in range(0, len(likely), _PART)]
            aligned = pool.map(lambda part: [align(plain[one], plain[other]) for one, other in part], parts)
            made = [each for part in aligned for each in part]
            found += [each for each in made if each]
            pairs = np.concatenate([pairs, likely[[each is not None for each in made]]])
            joined = components(len(rows), pairs)
    cv2.setNumThreads(threads)
    pairs = rows[pairs]
    transforms = np.array([describe(matrix, plain.shape[1]) for matrix, _ in found], object)
    errors = np.array([mse for _, mse in found], np.float64)
    table = pair_table(pairs, "aligned", of_pairs(images, pairs), transforms, errors)
    return table.sort_values(["image", "other"], ignore_index=True)


def _likely(points: np.ndarray) -> list[np.ndarray]:
    """Return the pairs of nearest neighbors, of second-nearest neighbors, and so on, each int64 (P,2)."""
    near = pd.concat([_nearest(points, members) for members in _cells(points)])
    near = near[near["distance"] <= FARTHEST].sort_values(["image", "distance", "other"])
    near = near.drop_duplicates(["image", "other"])  # several cells may return the same neighbor
    near["place"] = near.groupby("image").cumcount()
    near[["image", "other"]] = np.sort(near[["image", "other"]], axis=1)
    near = near.sort_values(["place", "image", "other"]).drop_duplicates(["image", "other"])
    return [near.loc[near["place"] == place, ["image", "other"]].to_numpy() for place in range(NEIGHBORS)]


def _cells(points: np.ndarray) -> list[np.ndarray]:
    """Divide many points into overlapping sets of near neighbors, so that not all pairs have to be compared."""
    if len(points) <= 8 * _CELL:
        return [np.arange(len(points))]
    centers = points[:: _CELL // 2]
    cell = _search(points, centers, _PROBES)[1].ravel()
    order = np.argsort(cell, kind="stable")
    return np.split(order // _PROBES, np.searchsorted(cell[order], np.arange(1, len(centers))))


def _search(points: np.ndarray, others: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the squared distances from each point to the nearest `count` of `others`, and their indices."""
    return cv2.batchDistance(points, others, cv2.CV_32F, normType=cv2.NORM_L2SQR, K=count)


def _nearest(points: np.ndarray, members: np.ndarray) -> pd.DataFrame:
    """Return the nearest neighbors of each member among `members`: `image,other,distance` (squared)."""
    count = min(NEIGHBORS, len(members) - 1)
    distance, near = _search(points[members], points[members], count + 1)
    others = near != np.arange(len(members))[:, None]
    others[others.all(axis=1), -1] = False  # with many identical points, a point may be missing from its own list
    columns = {"image": np.repeat(members, count), "other": members[near[others]], "distance": distance[others]}
    return pd.DataFrame(columns)


def descriptors(images: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Return descriptors of `images[rows]` (K,S,S,3), float32 (K, DIMENSIONS), which are close for similar images.

    The descriptors are the leading principal components of raw descriptors, computed from a sample of the images.
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
    spectrum = np.fft.rfft2(planes * _WINDOW)[:, :, _FREQUENCIES, :_LOW]
    return np.log1p(np.abs(spectrum)).reshape(len(small), -1)


def _layout(small: np.ndarray) -> np.ndarray:
    """Return coarse colors by position, with each channel standardized."""
    coarse = np.empty((len(small), _COLORS, _COLORS, 3), np.float32)
    for image, cells in zip(small, coarse, strict=True):
        cv2.resize(image, (_COLORS, _COLORS), cells, interpolation=cv2.INTER_AREA)
    coarse -= coarse.mean(axis=(1, 2), keepdims=True)
    coarse /= coarse.std(axis=(1, 2), keepdims=True) + 4
    return coarse.reshape(len(small), -1) / np.sqrt(10)


def _gray(image: np.ndarray, side: int) -> np.ndarray:
    """Convert an image (S,S,3) to gray and reduce it to at most `side`: float32 (side, side)."""
    side = min(side, image.shape[0])
    small = cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA)
    return cv2.cvtColor(small, cv2.COLOR_RGB2GRAY).astype(np.float32)


def align(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, float] | None:
    """Align `second` with `first`, both (S,S,3) uint8 or float32; return None if they do not show the same photo.

    Return an affine map from the first image to the second, and the mean squared error within the overlap, after
    matching the brightness and contrast of each channel. The map, float64 (2,3), uses coordinates relative to the image
    center, in units of the image side.
    """
    one, other = _gray(first, COARSE), _gray(second, COARSE)
    correlation, matrix = _step(one, other, np.eye(2, 3), 1, 3)
    if correlation < FIRST_CORRELATION:
        return None
    correlation, matrix = _step(one, other, matrix, _COARSE_ROUNDS, 3)
    if correlation < COARSE_CORRELATION:
        return None
    one, other = _gray(first, FINE), _gray(second, FINE)
    correlation, matrix = _step(one, other, matrix, _FINE_ROUNDS, 5, FINE_CORRELATION)
    if correlation < CORRELATION:
        return None
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
    a, b = first[inside].astype(np.float64), laid[inside].astype(np.float64)
    b = (b - b.mean(0)) * (a.std(0) / np.maximum(b.std(0), 1e-6)) + a.mean(0)
    return matrix, float(((a - b) ** 2).mean())


def _differ_locally(first: np.ndarray, laid: np.ndarray, inside: np.ndarray) -> bool:
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
    # An alignment error of a fraction of a pixel matters more in a smaller image.
    return bool(differ_locally(means[0], means[1], mse, tolerance(len(first)) ** 2)[0])


def describe(matrix: np.ndarray, side: int) -> str:
    """Describe `matrix` as text: the shift in pixels of an image of `side`, the scale, and the rotation in degrees."""
    across, down = matrix[:, 2] * side
    scale = np.sqrt(abs(np.linalg.det(matrix[:, :2])))
    turn = np.degrees(np.arctan2(matrix[1, 0] - matrix[0, 1], matrix[0, 0] + matrix[1, 1]))
    return f"shift {across:.1f} {down:.1f} scale {scale:.3f} turn {turn:.1f}"


def _step(
    one: np.ndarray, other: np.ndarray, start: np.ndarray, rounds: int, blur: int, least: float = -1
) -> tuple[float, np.ndarray]:
    """Refine `start` for two gray images while the correlation is at least `least`; return the best result."""
    warp = _pixels(start, len(one)).astype(np.float32)
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
    return best, _shares(kept.astype(np.float64), len(one))


def _agreement(one: np.ndarray, other: np.ndarray, warp: np.ndarray) -> float:
    """Return the correlation of two gray images within their overlap under `warp`, or -1 if they overlap too little."""
    laid = _warped(other, warp, border=-1e6)
    inside = laid > -1
    return _correlation(one[inside], laid[inside]) if inside.mean() >= OVERLAP else -1.0


def _detail(one: np.ndarray, other: np.ndarray, matrix: np.ndarray) -> float:
    """Return the correlation of fine detail within the overlap, with noise and JPEG artifacts filtered out."""
    laid, inside = laid_over(other, matrix), laid_over(np.ones_like(other), matrix) > 0.999
    reach = np.ones((7, 7), np.uint8)  # the blur mixes in pixels up to this distance outside the overlap
    inside = cv2.erode(inside.astype(np.uint8), reach, borderType=cv2.BORDER_CONSTANT, borderValue=0) > 0
    a, b = (cv2.GaussianBlur(x, (0, 0), _FINEST) - cv2.GaussianBlur(x, (0, 0), _COARSEST) for x in (one, laid))
    return _correlation(a[inside], b[inside])


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Return Pearson's correlation, or 0 if one array is uniform or both are empty."""
    if not len(a):
        return 0.0
    a, b = a - a.mean(), b - b.mean()
    return float(a @ b / np.sqrt(max((a @ a) * (b @ b), 1e-9)))


def _pixels(matrix: np.ndarray, side: int) -> np.ndarray:
    """Convert a matrix from units of the side relative to the center to OpenCV's pixel coordinates."""
    center = np.full(2, (side - 1) / 2)
    shift = matrix[:, 2] * side + center - matrix[:, :2] @ center
    return np.column_stack([matrix[:, :2], shift])


def _shares(warp: np.ndarray, side: int) -> np.ndarray:
    """Convert a matrix in OpenCV's pixel coordinates to units of the side; the inverse of `_pixels`."""
    center = np.full(2, (side - 1) / 2)
    shift = (warp[:, 2] - center + warp[:, :2] @ center) / side
    return np.column_stack([warp[:, :2], shift])


def _warped(image: np.ndarray, warp: np.ndarray, border: float = 0) -> np.ndarray:
    how = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(image, warp, image.shape[1::-1], flags=how, borderValue=border)


def laid_over(image: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Warp an image, (S,S,3) or (S,S), by the inverse of a map from `align`. Uncovered pixels are 0."""
    return _warped(image, _pixels(matrix, len(image)))
