"""Mean squared errors between images, exact, one image at a time out of the memory map.

The unit is grey levels squared: 0 for equal images, 65025 between black and white. OpenCV's norm adds the squares
in one pass without a float copy of the images: about a tenth of the time of the same sum in numpy.
"""

import cv2
import numpy as np


def to_reference(images: np.ndarray, rows: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Mean squared error of the images in `rows` (K,) to one `reference` (H,W,3) of their dtype: float64 (K,)."""
    plain = np.asarray(images)  # indexing a memmap costs more than the distance itself
    exact = plain.dtype == np.uint8
    sums = np.fromiter((cv2.norm(plain[i], reference, cv2.NORM_L2SQR) for i in rows), np.float64, len(rows))
    return _mean(sums, exact, reference.size)


def of_pairs(images: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """Mean squared error of each pair of rows: int64 (K,2) → float64 (K,)."""
    plain = np.asarray(images)
    exact = plain.dtype == np.uint8
    sums = np.fromiter((cv2.norm(plain[i], plain[j], cv2.NORM_L2SQR) for i, j in pairs), np.float64, len(pairs))
    return _mean(sums, exact, int(np.prod(plain.shape[1:])))


def _mean(sums: np.ndarray, exact: bool, size: int) -> np.ndarray:
    # OpenCV squares the root of the sum: of whole numbers, rounding gives back the sum itself.
    return (np.rint(sums) if exact else sums) / size
