"""Out-of-distribution (OOD) detection: tell images like the training images from images unlike all of them.

Three tests, any of which makes an image out-of-distribution: its pixel statistics are unlike those of the training
images (`image_statistics`); the network's pooled features of it are; it is a copy of an image that was removed as an
outlier. The first two are Mahalanobis distances (Lee 2018, arXiv 1807.03888), each with a limit chosen on validation
images, so that few images like them are rejected. docs/use.md has the measured rates: the features of a small network
trained only on leaves hardly tell a cartoon from a leaf and reject more true leaves than pixel statistics do, so the
limit for features is the largest distance of a validation image.
"""

import io
import math
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np

from leaf.errors import LeafError
from leaf.ingest.npz import read_arrays
from leaf.store import replacing

REJECTED = {"features": 0.0, "statistics": 0.005}  # share of the validation images beyond each limit
THUMBNAIL = 16  # pixels
COPY_MSE = 150.0  # mean squared error of thumbnails below which two images are copies (0..255 squared)
_SMALLEST_VARIANCE = 1e-3  # a direction in which no training image varies must not decide alone


@dataclass(frozen=True)
class Gaussian:
    """A normal distribution of vectors, and the largest Mahalanobis distance that counts as in-distribution.

    Attributes:
        mean: float32 (D,).
        whitening: turns a difference from the mean into a vector as long as the Mahalanobis distance, float32 (D, D).
        limit: the largest distance.
    """

    mean: np.ndarray
    whitening: np.ndarray
    limit: float

    def distance(self, vectors: np.ndarray) -> np.ndarray:
        """Mahalanobis distance of each vector, (N, D), from the mean: float32 (N,)."""
        difference = np.asarray(vectors, np.float32) - self.mean
        # Not `@`: the threads of its BLAS fight with those of the network, and its sums depend on N.
        return np.linalg.norm(np.einsum("nd,de->ne", difference, self.whitening), axis=1)

    def contains(self, vectors: np.ndarray) -> np.ndarray:
        """Say which vectors, (N, D), are in-distribution: bool (N,)."""
        return self.distance(vectors) <= self.limit


@dataclass(frozen=True)
class OodDetector:
    """What is needed of the training images to tell what is unlike them; made by `fit`.

    Attributes:
        features: distribution of their pooled features.
        statistics: distribution of their pixel statistics.
        references: thumbnails of the outliers, float32 (R, 16, 16, 3), 0..255.
    """

    features: Gaussian
    statistics: Gaussian
    references: np.ndarray

    def in_distribution(self, features: np.ndarray, images: np.ndarray) -> np.ndarray:
        """Say which images are like the training images.

        Args:
            features: their pooled features, (N, D).
            images: (N, S, S, 3), 0..255, prepared as the training images were.

        Returns:
            bool (N,).
        """
        return self.features.contains(features) & self.pixels_in_distribution(images)

    def pixels_in_distribution(self, images: np.ndarray) -> np.ndarray:
        """The part of `in_distribution` that needs no network: images (N, S, S, 3) to bool (N,)."""
        copy = reference_mse(images, self.references) < COPY_MSE
        return self.statistics.contains(image_statistics(images)) & ~copy


def fit(
    train_features: np.ndarray,
    train_images: np.ndarray,
    validation_features: np.ndarray,
    validation_images: np.ndarray,
    references: np.ndarray,
) -> OodDetector:
    """Fit the distributions to training images, and choose the limits on validation images.

    Args:
        train_features: float (N, D), of real training images, without synthetic ones.
        train_images: (N, S, S, 3), uint8 or float, 0..255; rows as in `train_features`.
        validation_features: float (M, D).
        validation_images: (M, S, S, 3).
        references: outliers, (R, S, S, 3); R may be 0.

    Returns:
        What `write` writes and a prediction needs; nothing in it depends on chance.

    Raises:
        LeafError: where there are fewer than two training images or no validation image.
    """
    if len(train_images) < 2 or not len(validation_images):
        raise LeafError("splits.csv: too few training or validation images to tell what is unlike them; add images")
    return OodDetector(
        fit_gaussian(train_features, validation_features, REJECTED["features"]),
        fit_gaussian(image_statistics(train_images), image_statistics(validation_images), REJECTED["statistics"]),
        thumbnails(references),
    )


def reference_mse(images: np.ndarray, references: np.ndarray) -> np.ndarray:
    """Mean squared error of each image's thumbnail to the nearest reference, (N,); infinite where there is none."""
    small = thumbnails(images)
    errors = [np.square(small - reference).mean((1, 2, 3)) for reference in references]
    return np.min(errors, axis=0) if errors else np.full(len(images), np.inf)


def thumbnails(images: np.ndarray) -> np.ndarray:
    """Give the means of 16×16 blocks, (N, S, S, 3) to float32 (N, 16, 16, 3): copies stay at least as close."""
    small = np.zeros((len(images), THUMBNAIL, THUMBNAIL, 3), np.float32)
    for place, image in enumerate(images):
        cv2.resize(np.asarray(image, np.float32), (THUMBNAIL, THUMBNAIL), small[place], interpolation=cv2.INTER_AREA)
    return small


def write(detector: OodDetector, model_sha256: str, path: str | Path) -> None:
    """Write `detector` as an .npz file that names its model; equal detectors give equal files."""
    arrays = {"references": detector.references, "model_sha256": np.array(model_sha256)}
    for name, gaussian in (("features", detector.features), ("statistics", detector.statistics)):
        arrays |= {f"{name}_mean": gaussian.mean, f"{name}_whitening": gaussian.whitening}
        arrays[f"{name}_limit"] = np.array(gaussian.limit)
    file = io.BytesIO()
    np.savez(file, allow_pickle=False, **arrays)
    with replacing(path) as partial:
        partial.write_bytes(file.getvalue())


def read(path: str | Path, model_sha256: str) -> OodDetector:
    """Read what `write` wrote. Raises LeafError where the file is missing, broken, or of another model."""
    path = Path(path)
    if not path.is_file():
        raise LeafError(f"{path}: no such file; run `dvc repro` first")
    try:
        arrays = read_arrays(path)
    except LeafError as error:
        raise LeafError(f"{path}: damaged ({str(error).removeprefix(f'{path}: ')}); run `dvc repro`") from None
    try:
        if str(arrays["model_sha256"]) != model_sha256:
            raise LeafError(f"{path}: belongs to another model than run.json names; run `dvc repro`")
        features, statistics = (
            Gaussian(arrays[f"{name}_mean"], arrays[f"{name}_whitening"], float(arrays[f"{name}_limit"]))
            for name in ("features", "statistics")
        )
        detector = OodDetector(features, statistics, arrays["references"])
    except (KeyError, ValueError, TypeError) as error:
        raise LeafError(f"{path}: damaged ({error}); run `dvc repro`") from None
    shapes = [each.mean.shape * 2 == each.whitening.shape and each.mean.ndim == 1 for each in (features, statistics)]
    values = [features.mean, features.whitening, statistics.mean, statistics.whitening, detector.references]
    plain = all(each.dtype.kind == "f" and np.isfinite(each).all() for each in values)
    limits = features.limit >= 0 and statistics.limit >= 0  # False for NaN
    thumbnails = detector.references.shape[1:] == (THUMBNAIL, THUMBNAIL, 3)
    if not (all(shapes) and statistics.mean.shape == (STATISTICS,) and plain and limits and thumbnails):
        raise LeafError(f"{path}: damaged (not the shapes and numbers that evaluate writes); run `dvc repro`")
    return detector


def fit_gaussian(train: np.ndarray, validation: np.ndarray, rejected: float) -> Gaussian:
    """Fit a shrunk covariance (Ledoit and Wolf 2004), which few images in many dimensions need.

    `train` (N, D), `validation` (M, D), of which the share `rejected` lies beyond the limit.
    """
    from sklearn.covariance import ledoit_wolf

    mean, deviation = train.mean(axis=0, dtype=np.float64), train.std(axis=0, dtype=np.float64) + 1e-6
    covariance, _ = ledoit_wolf((train - mean) / deviation, assume_centered=True)
    values, vectors = np.linalg.eigh(covariance)
    whitening = vectors / np.sqrt(np.maximum(values, _SMALLEST_VARIANCE)) / deviation[:, None]
    gaussian = Gaussian(mean.astype(np.float32), whitening.astype(np.float32), np.inf)
    return replace(gaussian, limit=float(np.quantile(gaussian.distance(validation), 1 - rejected)))


STATISTICS = 28
_SCALES = 4  # each half as large as the one before
_DARKEST = 1e-3  # of 1: keeps the logarithms of a plain image finite
_CHANNELS = np.array([[0.299, 0.587, 0.114], [1, -1, 0], [0, -1, 1]], np.float32)  # brightness, red-green, blue-green
_PLACES = np.array([[1024, 32, 1]], np.float32)  # of a colour of three times five bits among all, exact in float32


def image_statistics(images: np.ndarray) -> np.ndarray:
    """Measure pixel statistics of images.

    A photograph's differences between neighbouring pixels follow much the same law at every scale (Ruderman 1994);
    those of noise, drawings, text and plain colours do not, and those of other things than leaves go with other
    colours.

    Args:
        images: (N, H, W, 3), uint8 or float, 0..255.

    Returns:
        float64 (N, 28): for brightness and two colour differences the mean, the logarithms of the standard deviation
        and of the mean difference between neighbours at four scales; for brightness at each scale also how much of
        that lies across rather than down, and how it is spread between few strong edges and many weak ones; the
        number of distinct colours; how brightness goes with colour.
    """
    return np.array([_measure(np.asarray(image, np.float32)) for image in images]).reshape(len(images), STATISTICS)


def _measure(image: np.ndarray) -> list[float]:
    # OpenCV's norms add up differences in one pass: a tenth of numpy's time on images so small.
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
    return [*statistics, math.log(_colours(image)), together]


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
