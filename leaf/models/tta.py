"""Test-time augmentation: flipped, rotated and cropped views of an image."""

import cv2
import numpy as np

MAX_VIEWS = 16
_CROP = 7 / 8  # side of a crop as a fraction of the image's side
_CORNERS = [(0.5, 0.5), (0, 0), (0, 1), (1, 0), (1, 1)]


def tta_view(images: np.ndarray, number: int) -> np.ndarray:
    """Return one view of square images.

    View 0 is the image itself, 1 to 7 are its other flips and quarter turns, 8 to 12 are crops with 7/8 of the side
    (center and four corners), enlarged to full size, and 13 to 15 are the first three crops, mirrored.

    Args:
        images: float32 (N, S, S, 3).
        number: 0 to 15.

    Returns:
        float32 (N, S, S, 3).
    """
    if number < 8:
        turned = images.transpose(0, 2, 1, 3) if number & 4 else images
        return np.ascontiguousarray(turned[:, :: -1 if number & 2 else 1, :: -1 if number & 1 else 1])
    cropped = _crop(images, *_CORNERS[(number - 8) % len(_CORNERS)])
    return np.ascontiguousarray(cropped[:, :, ::-1]) if number - 8 >= len(_CORNERS) else cropped


def _crop(images: np.ndarray, vertical: float, horizontal: float) -> np.ndarray:
    size = images.shape[1]
    side = max(1, round(size * _CROP))
    top, left = round((size - side) * vertical), round((size - side) * horizontal)
    return resize(images[:, top : top + side, left : left + side], size)


def resize(images: np.ndarray, size: int) -> np.ndarray:
    """Resize (N, h, w, C) or (N, h, w) to (N, size, size, …) with bilinear interpolation, as float32."""
    resized = np.empty((len(images), size, size, *images.shape[3:]), np.float32)
    for target, image in zip(resized, images, strict=True):
        wide = cv2.resize(np.ascontiguousarray(image, np.float32), (size, size), interpolation=cv2.INTER_LINEAR)
        target[:] = wide.reshape(target.shape)  # OpenCV drops a single-channel axis
    return resized
