"""Detect out-of-distribution (OOD) images.

An image is out-of-distribution if its pixel statistics or pooled network features are far from the training images, or
if it is a copy of a removed outlier. Distances are Mahalanobis distances from one Gaussian fitted to all classes (Lee
2018, arXiv 1807.03888, uses one mean per class). Limits are set on validation images; docs/use.md lists measured rates.

The features of a small network trained on leaves hardly separate cartoons from leaves, and they reject more leaves than
pixel statistics do. The limit for features is therefore the largest distance of any validation image.
"""

import math
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np

from leaf.errors import LeafError
from leaf.ingest.npz import read_arrays
from leaf.store import replacing

REJECTED = {"features": 0.0, "statistics": 0.005}  # maximum share of validation images above the limit
THUMBNAIL = 16  # side in pixels
COPY_MSE = 150.0  # two thumbnails with a smaller mean squared error are copies
_SMALLEST_VARIANCE = 1e-3  # limits the weight of directions in which training images do not vary


@dataclass(frozen=True)
class Gaussian:
    """A multivariate normal distribution with a limit on the Mahalanobis distance."""

    mean: np.ndarray  # float32 (D,)
    whitening: np.ndarray  # float32 (D, D); the Mahalanobis distance is the norm of the whitened offset from the mean
    limit: float  # largest in-distribution distance

    def distance(self, vectors: np.ndarray) -> np.ndarray:
        """Return the Mahalanobis distances of `vectors` (N, D) from the mean, float32 (N,)."""
        difference = np.asarray(vectors, np.float32) - self.mean
        # Avoid `@`: BLAS threads would compete with the network's threads, and its rounding errors depend on N.
        return np.linalg.norm(np.einsum("nd,de->ne", difference, self.whitening), axis=1)

    def contains(self, vectors: np.ndarray) -> np.ndarray:
        """Return whether each of the `vectors` (N, D) is in-distribution, bool (N,)."""
        return self.distance(vectors) <= self.limit


@dataclass(frozen=True)
class OodDetector:
    """Out-of-distribution detector; see `fit`."""

    features: Gaussian  # distribution of the pooled features of training images
    statistics: Gaussian  # distribution of the pixel statistics of training images
    references: np.ndarray  # thumbnails of the removed outliers, float32 (R, 16, 16, 3), 0..255

    def in_distribution(self, features: np.ndarray, images: np.ndarray) -> np.ndarray:
        """Return whether each image is in-distribution, bool (N,), from its pooled features (N, D) and its pixels.

        `images` are (N, S, S, 3), 0..255, preprocessed like training images.
        """
        return self.features.contains(features) & self.pixels_in_distribution(images)

    def pixels_in_distribution(self, images: np.ndarray) -> np.ndarray:
        """Return whether each image is in-distribution, bool (N,), from its pixels alone, without the network."""
        copy = reference_mse(images, self.references) < COPY_MSE
        return self.statistics.contains(image_statistics(images)) & ~copy


def fit(
    train_features: np.ndarray,
    train_images: np.ndarray,
    validation_features: np.ndarray,
    validation_images: np.ndarray,
    references: np.ndarray,
) -> OodDetector:
    """Fit the distributions to training images and set the limits on validation images.

    Features are float (N, D), and images are (N, S, S, 3), uint8 or float, 0..255. The training images must not include
    synthetic images. `references` are the removed outliers, if any.

    Raises:
        LeafError: if there are fewer than two training images or no validation image.
    """
    if len(train_images) < 2 or not len(validation_images):
        raise LeafError("splits.csv: at least two training images and one validation image are required. Add images.")
    return OodDetector(
        fit_gaussian(train_features, validation_features, REJECTED["features"]),
        fit_gaussian(image_statistics(train_images), image_statistics(validation_images), REJECTED["statistics"]),
        thumbnails(references),
    )


def reference_mse(images: np.ndarray, references: np.ndarray) -> np.ndarray:
    """Return the mean squared error between each image's thumbnail and the nearest reference, (N,).

    The error is inf if there are no references.
    """
    small = thumbnails(images)
    errors = [np.square(small - reference).mean((1, 2, 3)) for reference in references]
    return np.min(errors, axis=0) if errors else np.full(len(images), np.inf)


def thumbnails(images: np.ndarray) -> np.ndarray:
    """Return thumbnails of 16 × 16 block means, float32 (N, 16, 16, 3).

    The mean squared error between two thumbnails is at most the mean squared error between the images.
    """
    small = np.zeros((len(images), THUMBNAIL, THUMBNAIL, 3), np.float32)
    for place, image in enumerate(images):
        cv2.resize(np.asarray(image, np.float32), (THUMBNAIL, THUMBNAIL), small[place], interpolation=cv2.INTER_AREA)
    return small


def write(detector: OodDetector, model_sha256: str, path: str | Path) -> None:
    """Write `detector` and the SHA-256 of its model to an .npz file. Equal detectors produce byte-identical files."""
    arrays = {"references": detector.references, "model_sha256": np.array(model_sha256)}
    for name, gaussian in (("features", detector.features), ("statistics", detector.statistics)):
        arrays |= {f"{name}_mean": gaussian.mean, f"{name}_whitening": gaussian.whitening}
        arrays[f"{name}_limit"] = np.array(gaussian.limit)
    with replacing(path) as partial, partial.open("wb") as file:
        np.savez(file, allow_pickle=False, **arrays)


def read(path: str | Path, model_sha256: str) -> OodDetector:
    """Read a file written by `write`; raise LeafError if it is missing, damaged or written for another model."""
    path = Path(path)
    if not path.is_file():
        raise LeafError(f"{path}: no such file. Run `dvc repro` first.")
    try:
        arrays = read_arrays(path)
        sha256, references = str(arrays.pop("model_sha256")), arrays["references"]
        features, statistics = (
            Gaussian(arrays[f"{name}_mean"], arrays[f"{name}_whitening"], float(arrays[f"{name}_limit"]))
            for name in ("features", "statistics")
        )
        plain = all(each.dtype.kind == "f" and np.isfinite(each).all() for each in arrays.values())
    except (LeafError, KeyError, ValueError, TypeError) as error:
        raise LeafError(f"{path}: damaged ({str(error).removeprefix(f'{path}: ')}). Run `dvc repro`.") from None
    if sha256 != model_sha256:
        raise LeafError(f"{path}: belongs to a different model than the one in run.json. Run `dvc repro`.")
    square = all(each.mean.shape * 2 == each.whitening.shape for each in (features, statistics))
    sizes = features.mean.ndim == 1 and statistics.mean.shape == (STATISTICS,)
    limits = features.limit >= 0 and statistics.limit >= 0
    if not (plain and square and sizes and limits and references.shape[1:] == (THUMBNAIL, THUMBNAIL, 3)):
        raise LeafError(f"{path}: damaged (unexpected shapes or values). Run `dvc repro`.")
    return OodDetector(features, statistics, references)


def fit_gaussian(train: np.ndarray, validation: np.ndarray, rejected: float) -> Gaussian:
    """Fit a Gaussian to `train` (N, D) and set its limit to reject the fraction `rejected` of `validation` (M, D).

    The covariance is shrunk (Ledoit and Wolf 2004), because there are few images and many dimensions.
    """
    from sklearn.covariance import ledoit_wolf

    mean, deviation = train.mean(axis=0, dtype=np.float64), train.std(axis=0, dtype=np.float64) + 1e-6
    covariance, _ = ledoit_wolf((train - mean) / deviation, assume_centered=True)
    values, vectors = np.linalg.eigh(covariance)
    whitening = vectors / np.sqrt(np.maximum(values, _SMALLEST_VARIANCE)) / deviation[:, None]
    gaussian = Gaussian(mean.astype(np.float32), whitening.astype(np.float32), np.inf)
    return replace(gaussian, limit=float(np.quantile(gaussian.distance(validation), 1 - rejected)))


STATISTICS = 28
_SCALES = 4  # number of scales; each is half the size of the previous one
_DARKEST = 1e-3  # keeps the logarithms finite for constant images (pixel values are scaled to 0..1)
_CHANNELS = np.array([[0.299, 0.587, 0.114], [1, -1, 0], [0, -1, 1]], np.float32)  # brightness, red-green, blue-green
_PLACES = np.array([[1024, 32, 1]], np.float32)  # maps a color with five bits per channel to its index, without error


def image_statistics(images: np.ndarray) -> np.ndarray:
    """Return 28 pixel statistics of images (N, H, W, 3), uint8 or float, 0..255, as float64 (N, 28).

    In photos, differences between neighboring pixels have similar distributions at all scales (Ruderman 1994). This is
    not the case in noise, drawings, text and constant images. Objects other than leaves have different colors.

    The statistics are:

    - for brightness and two color differences, the mean and the logarithms of the standard deviation and, at each of
      four scales, of the mean difference between neighboring pixels;
    - for brightness at each scale, the ratio of horizontal to vertical differences and the kurtosis of differences;
    - the number of colors, and the correlation between brightness and the first color difference.
    """
    return np.array([_measure(np.asarray(image, np.float32)) for image in images]).reshape(len(images), STATISTICS)


def _measure(image: np.ndarray) -> list[float]:
    # OpenCV's norms sum differences in a single pass and are 10× faster than NumPy for small images.
    planes = [cv2.transform(image, channel[None] / 255) for channel in _CHANNELS]
    moments = [[float(value[0, 0]) for value in cv2.meanStdDev(plane)] for plane in planes]
    statistics: list[float] = []
    for channel, plane in enumerate(planes):
        mean, deviation = moments[channel]
        statistics += [mean, _log(deviation)]
        for _ in range(_SCALES):
            across, down = (_difference(plane, axis, cv2.NORM_L1) for axis in (1, 0))
            statistics.append(_log(across + down))
            if channel == 0:
                squares = sum(_difference(plane, axis, cv2.NORM_L2SQR) for axis in (1, 0))
                strong = squares + _DARKEST**2
                statistics += [_log(across) - _log(down), math.log(strong / (across + down + _DARKEST) ** 2)]
            half = (max(2, plane.shape[1] // 2), max(2, plane.shape[0] // 2))
            plane = cv2.resize(plane, half, interpolation=cv2.INTER_AREA)
    (mean, deviation), (other_mean, other_deviation) = moments[:2]
    product = float(((planes[0] - mean) * (planes[1] - other_mean)).mean())
    together = product / (deviation * other_deviation + _DARKEST**2)
    return [*statistics, math.log(_colors(image)), together]


def _colors(image: np.ndarray) -> int:
    """Return the number of distinct colors with five bits per channel."""
    coarse = (image.astype(np.uint8) >> 3).astype(np.float32)
    seen = np.zeros(1 << 15, bool)
    seen[cv2.transform(coarse, _PLACES).astype(np.intp)] = True
    return int(np.count_nonzero(seen))


def _difference(plane: np.ndarray, axis: int, norm: int) -> float:
    """Return the mean absolute or mean squared difference between neighboring pixels along an axis."""
    later, earlier = (plane[:, 1:], plane[:, :-1]) if axis else (plane[1:], plane[:-1])
    return cv2.norm(later, earlier, norm) / later.size


def _log(value: float) -> float:
    return math.log(value + _DARKEST)
