"""What an image looks like, in 28 numbers that need no network: colour, contrast, and detail from fine to coarse."""

import math

import cv2
import numpy as np

NUMBERS = 28
_SCALES = 4  # each half as large as the one before
_DARKEST = 1e-3  # of 1: keeps the logarithms of a plain image finite
_CHANNELS = np.array([[0.299, 0.587, 0.114], [1, -1, 0], [0, -1, 1]], np.float32)  # brightness, red-green, blue-green
_PLACES = np.array([[1024, 32, 1]], np.float32)  # of a colour of three times five bits among all, exact in float32


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
    # OpenCV's norms add up differences in one pass: a tenth of numpy's time on images so small.
    planes = [cv2.transform(image, channel[None] / 255) for channel in _CHANNELS]
    moments = [[float(value[0, 0]) for value in cv2.meanStdDev(plane)] for plane in planes]
    numbers: list[float] = []
    for channel, plane in enumerate(planes):
        mean, deviation = moments[channel]
        numbers += [mean, _log(deviation)]
        for _ in range(_SCALES):
            across, down = (_difference(plane, axis, cv2.NORM_L1) for axis in (1, 0))
            numbers.append(_log(across + down))
            if channel == 0:
                squares = sum(_difference(plane, axis, cv2.NORM_L2SQR) for axis in (1, 0))
                strong = squares + _DARKEST**2
                numbers += [_log(across) - _log(down), math.log(strong / (across + down + _DARKEST) ** 2)]
            half = (max(2, plane.shape[1] // 2), max(2, plane.shape[0] // 2))
            plane = cv2.resize(plane, half, interpolation=cv2.INTER_AREA)
    (mean, deviation), (other_mean, other_deviation) = moments[:2]
    product = float(((planes[0] - mean) * (planes[1] - other_mean)).mean())
    together = product / (deviation * other_deviation + _DARKEST**2)
    return [*numbers, math.log(_colours(image)), together]


def _colours(image: np.ndarray) -> int:
    """How many of 32×32×32 colours there are."""
    coarse = (image.astype(np.uint8) >> 3).astype(np.float32)
    seen = np.zeros(1 << 15, bool)
    seen[cv2.transform(coarse, _PLACES).astype(np.intp)] = True
    return int(np.count_nonzero(seen))


def _difference(plane: np.ndarray, axis: int, norm: int) -> float:
    """Mean absolute, or mean squared, difference between neighbours along an axis."""
    later, earlier = (plane[:, 1:], plane[:, :-1]) if axis else (plane[1:], plane[:-1])
    return cv2.norm(later, earlier, norm) / later.size


def _log(value: float) -> float:
    return math.log(value + _DARKEST)
