"""Test-time augmentation: flipped, rotated and cropped views of an image."""

import cv2
import numpy as np

MAX_VIEWS = 16
_CROP = 7 / 8  # side of a crop relative to the image
_CORNERS = [(0.5, 0.5), (0, 0), (0, 1), (1, 0), (1, 1)]


def tta_view(images: np.ndarray, number: int) -> np.ndarray:
    """Return view `number` (0 to 15) of square images, float32 (N, S, S, 3), in the same shape.

    View 0 is the image itself, and views 1 to 7 are its flips, rotations by multiples of 90° and their combinations.
    Views 8 to 12 are the center and corner crops with 7/8 of the side, enlarged to full size. Views 13 to 15 are mirror
    images of views 8 to 10.
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
    """Resize images (N, h, w, C) or (N, h, w) to (N, size, size, …) with bilinear interpolation, as float32."""
    resized = np.empty((len(images), size, size, *images.shape[3:]), np.float32)
    for target, image in zip(resized, images, strict=True):
        wide = cv2.resize(np.ascontiguousarray(image, np.float32), (size, size), interpolation=cv2.INTER_LINEAR)
        target[:] = wide.reshape(target.shape)  # OpenCV drops a single-channel axis
    return resized
