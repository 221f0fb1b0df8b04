"""Compute mean squared errors of images, in squared gray levels: 0 if identical, 65025 between black and white."""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np

SIDE = 8  # cells along each side of the block means
FINE = 16  # cells along each side of the finer means, which detect local differences
# PEAK limits the ratio of the largest squared difference of a cell to the mean squared error plus FLOOR. A different
# subject on the same background changes whole cells; JPEG noise averages out within cells. At 96 pixels, the ratio to
# the mean squared error alone is at most 1.9 for near duplicates at JPEG quality 75 (99th percentile 1.3) and 2.3 at
# quality 50. It is at least 5 for 99% of synthetic pairs of different subjects (leaves on paper or on one background,
# padded strips, slides). In smaller images, cells have fewer pixels, so `differ_locally` multiplies PEAK by `noise`.
PEAK, FLOOR = 2.2, 4.0
_ROUNDING = 1e-5  # rounding error of float32 squared distances, relative to the largest squared norm
_STACK = 32  # images per batch of block means


def to_reference(images: np.ndarray, rows: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Return the mean squared error between each image in `rows` (K,) and `reference` (H,W,3): float64 (K,)."""
    plain = np.asarray(images)  # indexing a memmap is slower than computing the distance
    return _mean_squared_errors((plain[row], reference) for row in rows)


def of_pairs(
    images: np.ndarray, pairs: np.ndarray, transform: Callable[[np.ndarray], np.ndarray] = np.asarray
) -> np.ndarray:
    """Return the mean squared error of each pair (K,2), with `transform` applied to the first image: float64 (K,)."""
    plain = np.asarray(images)
    return _mean_squared_errors((np.ascontiguousarray(transform(plain[i])), plain[j]) for i, j in pairs)


def _mean_squared_errors(pairs: Iterable[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    errors = []
    for one, other in pairs:
        # OpenCV is 10× as fast as NumPy because it makes no float copy. Some builds return the square of a rounded
        # root; for integers, rounding restores the exact sum.
        total = cv2.norm(one, other, cv2.NORM_L2SQR)
        errors.append((round(total) if one.dtype == np.uint8 else total) / one.size)
    return np.array(errors, np.float64)


def to_references(
    images: np.ndarray,
    rows: np.ndarray,
    small: np.ndarray,
    references: Sequence[np.ndarray],
    within: float,
    further: int,
) -> Iterator[np.ndarray]:
    """Yield the distances of `to_reference` for each reference; those of distant images are infinite.

    All distances up to `within` and the next `further` ones are finite. The block means `small` of `rows` bound each
    distance from below, so most images of a large data set are never read.
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
            # Unknown distances are at least `beyond`.
            if count >= len(rows) or (distance < beyond).sum() >= (distance <= within).sum() + further:
                break
            count += count // 2 + 1
        distance[distance >= beyond] = np.inf
        yield distance


def block_means(images: np.ndarray, rows: np.ndarray, side: int = SIDE) -> np.ndarray:
    """Return the means of the images in `rows` over side × side cells: float32 (K,h,w,3), scaled by 1/√(h·w·3).

    The squared Euclidean distance between two results is at most the mean squared error between their images.
    """
    plain = np.asarray(images)
    height, width = min(side, plain.shape[1]), min(side, plain.shape[2])
    small = np.empty((len(rows), height, width, plain.shape[3]), np.float32)

    def part(start: int) -> None:  # all images have the same height, so in a vertical stack no cell spans two of them
        stack = plain[rows[start : start + _STACK]].astype(np.float32).reshape(-1, *plain.shape[2:])
        cells = small[start : start + _STACK].reshape(-1, *small.shape[2:])
        cv2.resize(stack, cells.shape[1::-1], cells, interpolation=cv2.INTER_AREA)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(part, range(0, len(rows), _STACK)))
    small /= np.float32(np.sqrt(small[0].size)) if len(small) else np.float32(1)
    return small


def fine_means(images: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Return the means of the images in `rows` over FINE × FINE cells, in gray levels: float32 (K,h,w,3)."""
    means = block_means(images, rows, FINE)
    return means * np.float32(np.sqrt(np.prod(means.shape[1:])))


def tolerance(size: int) -> float:
    """Return the noise of block means in an image of side `size`, relative to an image of 96 px; at least 1."""
    return max(1.0, 96 / size)


def differ_locally(first: np.ndarray, second: np.ndarray, mse: np.ndarray | float, noise: float) -> np.ndarray:
    """Return whether each pair of images differs in one place rather than slightly everywhere: bool (K,).

    Differences in brightness or contrast are ignored, even if one image is saturated. `first` and `second` (K,h,w,3)
    are `fine_means`, `mse` (K,) is the mean squared error, and `noise` is the `tolerance` of this image size.
    """
    means = [each.mean(axis=(1, 2), keepdims=True) for each in (first, second)]
    spreads = [each.std(axis=(1, 2), keepdims=True) + 1e-6 for each in (first, second)]
    contrast = np.clip(spreads[0] / spreads[1], 0.8, 1.25)
    expected = (means[0] + contrast * (second - means[1]), means[1] + (first - means[0]) / contrast)
    peak = np.minimum(
        *(
            np.square(np.clip(there, 0, 255) - each).mean(axis=-1).max(axis=(1, 2), initial=0)
            for there, each in zip(expected, (first, second), strict=True)
        )
    )
    spread = np.maximum(mse - np.square(means[0] - means[1]).mean(axis=(1, 2, 3)), 0)
    return peak > PEAK * noise * (spread + FLOOR)
