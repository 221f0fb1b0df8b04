"""Histograms of colours: what an image is like wherever things stand in it."""

from collections.abc import Callable

import numpy as np

_CHANNEL_BITS = 5  # 32 levels of each channel by itself
_JOINT_BITS = 3  # of each channel: 8 × 8 × 8 colours
_BLOCK = 256


def channel_histograms(images: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Shares of 32 levels of red, of green and of blue in each image, float32 (len(rows), 96).

    `images`: (N, H, W, 3) uint8 or float32 in 0..255, `rows` of it; read a block at a time.
    """
    shift = 8 - _CHANNEL_BITS

    def levels(block: np.ndarray) -> np.ndarray:
        return (block >> shift).astype(np.int64) + (np.arange(3) << _CHANNEL_BITS)

    return _histograms(images, rows, levels, 3 << _CHANNEL_BITS)


def joint_histograms(images: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Square roots of the shares of 512 colours in each image, float32 (len(rows), 512).

    The root makes Euclidean distance Hellinger's, which suits histograms.
    """
    shift = 8 - _JOINT_BITS

    def colours(block: np.ndarray) -> np.ndarray:
        red, green, blue = np.moveaxis((block >> shift).astype(np.int64), -1, 0)
        return red << 2 * _JOINT_BITS | green << _JOINT_BITS | blue

    return np.sqrt(_histograms(images, rows, colours, 1 << 3 * _JOINT_BITS))


def _histograms(
    images: np.ndarray, rows: np.ndarray, bins_of: Callable[[np.ndarray], np.ndarray], bins: int
) -> np.ndarray:
    histograms = np.empty((len(rows), bins), np.float32)
    for start in range(0, len(rows), _BLOCK):
        block = np.clip(images[rows[start : start + _BLOCK]], 0, 255).astype(np.uint8)
        found = bins_of(block).reshape(len(block), -1)
        found += np.arange(len(block))[:, None] * bins
        counts = np.bincount(found.ravel(), minlength=len(block) * bins).reshape(len(block), bins)
        histograms[start : start + _BLOCK] = counts / (block.shape[1] * block.shape[2])
    return histograms
