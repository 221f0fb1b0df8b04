"""What an image looks like, in 28 numbers that need no network: colour, contrast, and detail from fine to coarse."""

import cv2
import numpy as np

NUMBERS = 28
_SCALES = 4  # each half as large as the one before
_DARKEST = 1e-3  # of 1: keeps the logarithms of a plain image finite
_CHANNELS = np.array([[0.299, 0.587, 0.114], [1, -1, 0], [0, -1, 1]], np.float32)  # brightness, red-green, blue-green


def looks(images: np.ndarray) -> np.ndarray:
    """Measure images.

    A photograph's differences between neighbouring pixels follow much the same law at every scale (Ruderman 1994);
    those of noise, drawings, text and plain colours do not, and those of other things than leaves stand beside other
    colours.

    Args:
        images: (N, H, W, 3), uint8 or float, 0..255.

    Returns:
        float64 (N, 28): for brightness and two colour differences the mean, the logarithms of the standard deviation
        and of the mean difference between neighbours at four scales; for brightness at each scale also how much of
        that lies across rather than down, and how it is spread between few strong edges and many weak ones; the
        number of distinct colours; how brightness goes with colour.
    """
    return np.array([_measure(np.asarray(image, np.float32)) for image in images]).reshape(len(images), NUMBERS)


def _measure(image: np.ndarray) -> list[float]:
    planes = np.tensordot(image / 255, _CHANNELS, axes=(2, 1))
    brightness, difference = planes[..., 0], planes[..., 1]
    numbers: list[float] = []
    for channel in range(3):
        plane = np.ascontiguousarray(planes[..., channel])
        numbers += [float(plane.mean()), _log(plane.std())]
        for _ in range(_SCALES):
            across, down = np.abs(np.diff(plane, axis=1)), np.abs(np.diff(plane, axis=0))
            numbers.append(_log(across.mean() + down.mean()))
            if channel == 0:
                strong = (across**2).mean() + (down**2).mean() + _DARKEST**2
                numbers += [
                    _log(across.mean()) - _log(down.mean()),
                    float(np.log(strong / (across.mean() + down.mean() + _DARKEST) ** 2)),
                ]
            half = (max(2, plane.shape[1] // 2), max(2, plane.shape[0] // 2))
            plane = cv2.resize(plane, half, interpolation=cv2.INTER_AREA)
    coarse = (image // 8).astype(np.int32)
    colours = np.count_nonzero(np.bincount((coarse[..., 0] << 10 | coarse[..., 1] << 5 | coarse[..., 2]).ravel()))
    spread = brightness.std() * difference.std() + _DARKEST**2
    together = ((brightness - brightness.mean()) * (difference - difference.mean())).mean() / spread
    return [*numbers, float(np.log(colours)), float(together)]


def _log(value: np.floating) -> float:
    return float(np.log(value + _DARKEST))
