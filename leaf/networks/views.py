"""Deterministic views of an image, for test-time augmentation."""

from collections.abc import Callable

import keras
import numpy as np

MOST = 16
_CROPPED = 7 / 8  # side of a crop, of the whole side


def view(images: np.ndarray, number: int) -> np.ndarray:
    """Give view `number` of square images.

    0 is the image; 1 to 7 its mirror images and quarter turns; 8 to 12 crops of 7/8 of the side (the middle, the
    four corners), enlarged to the whole; 13 to 15 the first crops mirrored.

    Args:
        images: float32 (N, S, S, 3).
        number: 0 to 15.

    Returns:
        float32 (N, S, S, 3).
    """
    if number < len(_TURNS):
        return np.ascontiguousarray(_TURNS[number](images))
    number -= len(_TURNS)
    corner = number % len(_CORNERS)
    cropped = _crop(images, *_CORNERS[corner])
    return np.ascontiguousarray(cropped[:, :, ::-1]) if number >= len(_CORNERS) else cropped


def _crop(images: np.ndarray, vertical: float, horizontal: float) -> np.ndarray:
    size = images.shape[1]
    side = max(1, round(size * _CROPPED))
    top, left = round((size - side) * vertical), round((size - side) * horizontal)
    part = images[:, top : top + side, left : left + side]
    return keras.ops.convert_to_numpy(keras.ops.image.resize(part, (size, size)))


_TURNS: list[Callable[[np.ndarray], np.ndarray]] = [
    lambda x: x,
    lambda x: x[:, :, ::-1],
    lambda x: x[:, ::-1],
    lambda x: x[:, ::-1, ::-1],
    lambda x: x.transpose(0, 2, 1, 3),
    lambda x: x.transpose(0, 2, 1, 3)[:, :, ::-1],
    lambda x: x.transpose(0, 2, 1, 3)[:, ::-1],
    lambda x: x.transpose(0, 2, 1, 3)[:, ::-1, ::-1],
]
_CORNERS = [(0.5, 0.5), (0, 0), (0, 1), (1, 0), (1, 1)]
