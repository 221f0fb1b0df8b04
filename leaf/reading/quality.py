"""Flags for photographs that are too dark, too bright, blurred or nearly empty, by cleanvision's rules.

The scores and thresholds are those of cleanvision 0.3 (cleanlab/cleanvision, image_property.py), computed for many
images at once, on the ingested images.
"""

import cv2
import numpy as np

DARK = 0.32  # the 99th percentile of the pixels' brightness lies below it
BRIGHT = 0.95  # the 5th percentile lies above it
BLURRED = 0.29  # the score of the edges' and the grey histogram's spread lies below it
LOW_INFORMATION = 0.3  # a tenth of the entropy, in bits, lies below it
FLAGS = ("dark", "bright", "blurred", "low_information")

_BLUR_SIDE = 64  # cleanvision looks for blur at this resolution
_WEIGHTS = np.array([0.241, 0.691, 0.068], np.float32)  # of squared red, green, blue in perceived brightness


def flags(images: np.ndarray) -> list[str]:
    """The flags of each image of (N, H, W, 3), uint8 or float32 0..255: space-separated names, or ""."""
    pixels = images if images.dtype == np.uint8 else np.rint(images).astype(np.uint8)
    grey = _grey(pixels)
    dark, bright = _dark_and_bright(pixels)
    wrong = np.stack([dark, bright, _blurred(grey), _low_information(pixels)], axis=1)
    return [" ".join(name for name, is_set in zip(FLAGS, row, strict=True) if is_set) for row in wrong.tolist()]


def _dark_and_bright(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    # share below a threshold instead of a percentile: the same question without sorting
    squares = np.arange(256, dtype=np.float32) ** 2 / np.float32(255**2)
    table = squares[:, None] * _WEIGHTS
    brightness = table[:, 0][pixels[..., 0]]
    for channel in (1, 2):
        brightness += table[:, channel][pixels[..., channel]]
    count = brightness[0].size
    below_dark = np.count_nonzero(brightness < DARK**2, axis=(1, 2)) / count
    above_bright = np.count_nonzero(brightness > BRIGHT**2, axis=(1, 2)) / count
    return below_dark > 0.99, above_bright > 0.95


def _grey(pixels: np.ndarray) -> np.ndarray:
    """Luminance (N, S, S) uint8 as Pillow's mode L has it, no larger than cleanvision looks at."""
    side = min(_BLUR_SIDE, pixels.shape[1])
    grey = np.empty((len(pixels), side, side), np.uint8)
    for place, image in enumerate(pixels):
        small = cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA) if side < len(image) else image
        cv2.cvtColor(small, cv2.COLOR_RGB2GRAY, dst=grey[place])
    return grey


def _blurred(grey: np.ndarray) -> np.ndarray:
    edges = grey.astype(np.int16)  # the border keeps its grey values, as Pillow's filter leaves it
    wide = edges[:, :-2] + edges[:, 1:-1] + edges[:, 2:]
    around = wide[:, :, :-2] + wide[:, :, 1:-1] + wide[:, :, 2:]
    edges[:, 1:-1, 1:-1] = np.clip(9 * edges[:, 1:-1, 1:-1] - around, 0, 255)
    spread = edges.std(axis=(1, 2), dtype=np.float32)
    contrast = 1 - np.exp(-0.01 * _histograms(grey.reshape(len(grey), -1), 256).std(axis=1))
    contrast[contrast <= 0.18] = 0
    return 1 - np.exp(-0.01 * spread) + contrast < BLURRED


def _low_information(pixels: np.ndarray) -> np.ndarray:
    bins = pixels.reshape(len(pixels), -1, 3) + np.array([0, 256, 512], np.uint16)
    share = _histograms(bins.reshape(len(pixels), -1), 768) / pixels[0].size
    entropy = -(share * np.log2(share, out=np.zeros_like(share), where=share > 0)).sum(axis=1)
    return entropy * 0.1 < LOW_INFORMATION


def _histograms(values: np.ndarray, bins: int) -> np.ndarray:
    """Counts (N, bins) of the whole numbers in each row of (N, K)."""
    return np.stack([np.bincount(row, minlength=bins) for row in values])
