"""Two images laid over one another: the affine map that takes one onto the other, and how well they then agree.

Method: enhanced correlation coefficient (Evangelidis and Psarakis 2008), OpenCV's findTransformECC, from coarse to
fine. The coefficient does not change with brightness and contrast, so a tint is no difference.
"""

from dataclasses import dataclass

import cv2
import numpy as np

COARSE = 32  # side of the images that most pairs are refused on
FINE = 96  # side, at most, of the images that the rest are judged on
# Measured on likely pairs: after one round on the coarse images planted crops of one photograph reach 0.94 at the 1st
# percentile, where one pair of different photographs in seven reaches FIRST_CORRELATION; in the end they reach 0.94 at
# the 1st percentile there, and 0.975 at the 5th on the fine images, where different leaves stay below 0.946.
FIRST_CORRELATION = 0.85
COARSE_CORRELATION = 0.9
CORRELATION = 0.97
OVERLAP = 0.5  # share of the first image that the second must cover
SCALE = 1.35  # crops of one photograph differ by no more in scale, along any axis
# Nor does a crop change the picture's form: planted ones stay below 1.025, and two different blurred leaves that are
# made to agree by an affine map need 1.04 and more.
STRETCH = 1.03  # one axis against the other

# OpenCV's iteration may leave an optimum that it has reached: a few steps at a time, the best kept.
_STEPS = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 5, 1e-4)
_COARSE_ROUNDS, _FINE_ROUNDS = 2, 6
_GAIN = 1e-3  # another round is worth its time where the last one gained so much correlation


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
    found = _step(one, other, found[1], _FINE_ROUNDS, 5)
    if found[0] < CORRELATION:
        return None
    correlation, matrix = found
    stretch = np.linalg.svd(matrix[:, :2], compute_uv=False)
    if stretch[0] > SCALE or stretch[1] < 1 / SCALE or stretch[0] > STRETCH * stretch[1]:
        return None
    mse, overlap = _error(first, second, matrix)
    return Alignment(matrix, correlation, mse) if overlap >= OVERLAP else None


def describe(matrix: np.ndarray, side: int) -> str:
    """A matrix in words: the shift in pixels of images of `side`, the scale and the turn in degrees."""
    across, down = matrix[:, 2] * side
    scale = np.sqrt(abs(np.linalg.det(matrix[:, :2])))
    turn = np.degrees(np.arctan2(matrix[1, 0] - matrix[0, 1], matrix[0, 0] + matrix[1, 1]))
    return f"shift {across:.1f} {down:.1f} scale {scale:.3f} turn {turn:.1f}"


def _step(one: np.ndarray, other: np.ndarray, start: np.ndarray, rounds: int, blur: int) -> tuple[float, np.ndarray]:
    """Improve the matrix `start` on two grey images: the best correlation met and its matrix."""
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
        if gain < _GAIN:
            break
    return best, _shares(kept.astype(np.float64), one.shape[0])


def _agreement(one: np.ndarray, other: np.ndarray, warp: np.ndarray) -> float:
    """Correlation of two grey images over their overlap once `warp` lays the other over the one; -1 without overlap."""
    how, size = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, one.shape[::-1]
    laid = cv2.warpAffine(other, warp, size, flags=how, borderValue=-1e6)
    inside = laid > -1
    if inside.mean() < OVERLAP:
        return -1.0
    a, b = one[inside] - one[inside].mean(), laid[inside] - laid[inside].mean()
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


def _error(first: np.ndarray, second: np.ndarray, matrix: np.ndarray) -> tuple[float, float]:
    """The mean squared error over the overlap, tints made equal, and the overlap's share of the first image."""
    side = first.shape[0]
    how = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    warp = _pixels(matrix, side)
    laid = cv2.warpAffine(second.astype(np.float32), warp, (side, side), flags=how)
    inside = cv2.warpAffine(np.ones((side, side), np.float32), warp, (side, side), flags=how) > 0.999
    overlap = float(inside.mean())
    if overlap < OVERLAP:
        return np.inf, overlap
    one, other = first[inside].astype(np.float64), laid[inside].astype(np.float64)
    other = (other - other.mean(0)) * (one.std(0) / np.maximum(other.std(0), 1e-6)) + one.mean(0)
    return float(((one - other) ** 2).mean()), overlap
