"""Flag dark, bright, blurred and low-information images with cleanvision's rules and thresholds."""

import cv2
import numpy as np

FLAGS = ("dark", "bright", "blurred", "low_information")

DARK = 0.32  # flag if the 99th percentile of brightness is below this
BRIGHT = 0.95  # flag if the 5th percentile of brightness is above this
BLURRED = 0.29  # flag if the score from edges and gray histogram is below this
LOW_INFORMATION = 0.3  # flag if the entropy in bits, divided by 10, is below this

_BLUR_SIDE = 64  # resolution at which cleanvision measures blur
_BRIGHTNESS = np.array([0.241, 0.691, 0.068], np.float32)  # weights of squared red, green, blue


def quality_flags(images: np.ndarray) -> list[str]:
    """Return the space-separated flags of each image, "" if none. Images are (N, H, W, 3), uint8 or float32 0..255."""
    pixels = images if images.dtype == np.uint8 else np.rint(images).astype(np.uint8)
    dark, bright = _dark_and_bright(pixels)
    flagged = np.stack([dark, bright, _blurred(_gray(pixels)), _low_information(pixels)], axis=1)
    return [" ".join(name for name, is_set in zip(FLAGS, row, strict=True) if is_set) for row in flagged.tolist()]


def _dark_and_bright(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    # Counting the pixels below a threshold gives the same result as a percentile, without sorting.
    squares = np.arange(256, dtype=np.float32) ** 2 / np.float32(255**2)
    table = squares[:, None] * _BRIGHTNESS
    brightness = table[:, 0][pixels[..., 0]]
    for channel in (1, 2):
        brightness += table[:, channel][pixels[..., channel]]
    count = brightness[0].size
    below_dark = np.count_nonzero(brightness < DARK**2, axis=(1, 2)) / count
    above_bright = np.count_nonzero(brightness > BRIGHT**2, axis=(1, 2)) / count
    return below_dark > 0.99, above_bright > 0.95


def _gray(pixels: np.ndarray) -> np.ndarray:
    """Return the luminance, as in Pillow's mode L: uint8 (N, S, S) with S at most 64."""
    side = min(_BLUR_SIDE, pixels.shape[1])
    gray = np.empty((len(pixels), side, side), np.uint8)
    for place, image in enumerate(pixels):
        small = cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA) if side < len(image) else image
        cv2.cvtColor(small, cv2.COLOR_RGB2GRAY, dst=gray[place])
    return gray


def _blurred(gray: np.ndarray) -> np.ndarray:
    edges = gray.astype(np.int16)  # the border keeps its values, as in Pillow's FIND_EDGES
    rows = edges[:, :-2] + edges[:, 1:-1] + edges[:, 2:]
    neighbors = rows[:, :, :-2] + rows[:, :, 1:-1] + rows[:, :, 2:]
    edges[:, 1:-1, 1:-1] = np.clip(9 * edges[:, 1:-1, 1:-1] - neighbors, 0, 255)
    spread = edges.std(axis=(1, 2), dtype=np.float32)
    contrast = 1 - np.exp(-0.01 * _histograms(gray.reshape(len(gray), -1), 256).std(axis=1))
    contrast[contrast <= 0.18] = 0
    return 1 - np.exp(-0.01 * spread) + contrast < BLURRED


def _low_information(pixels: np.ndarray) -> np.ndarray:
    bins = pixels.reshape(len(pixels), -1, 3) + np.array([0, 256, 512], np.uint16)
    share = _histograms(bins.reshape(len(pixels), -1), 768) / pixels[0].size
    entropy = -(share * np.log2(share, out=np.zeros_like(share), where=share > 0)).sum(axis=1)
    return entropy * 0.1 < LOW_INFORMATION


def _histograms(values: np.ndarray, bins: int) -> np.ndarray:
    return np.stack([np.bincount(row, minlength=bins) for row in values])
