"""Tell an image of the kind that a model was trained on from one that is unlike them all.

Three questions, any of which makes an image unknown: does it look like no training image (`looks`); does the network
see in it what it saw in no training image (pooled features); is it a copy of a picture that was removed as an outlier.
The first two are Mahalanobis distances (Lee 2018, arXiv 1807.03888), each with a threshold from validation images, so
that few true ones are lost. docs/use.md has the measured figures: a small network trained on leaves alone hardly sees
that a cartoon is none and loses more true leaves than looks do, so its limit is the furthest validation image.
"""

import io
import math
import zipfile
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from leaf.errors import LeafError
from leaf.store import replacing

LOST = {"features": 0.0, "looks": 0.005}  # share of the validation images that each threshold may lose
THUMBNAIL = 16  # pixels
COPY = 150.0  # mean squared error between thumbnails, below which two images are copies (0..255 squared)
_FLOOR = 1e-3  # under the variances: what no training image varies in must not decide alone


@dataclass(frozen=True)
class Cloud:
    """A normal distribution of vectors, and the distance from its centre up to which one belongs to it.

    Attributes:
        centre: float32 (D,).
        whitening: turns a difference from the centre into a vector as long as the Mahalanobis distance, float32 (D, D).
        limit: largest distance.
    """

    centre: np.ndarray
    whitening: np.ndarray
    limit: float

    def distance(self, vectors: np.ndarray) -> np.ndarray:
        """Mahalanobis distance of each vector, (N, D), from the centre: float32 (N,)."""
        apart = np.asarray(vectors, np.float32) - self.centre
        # Not `@`: the threads of its BLAS fight with those of the network, and its sums depend on N.
        return np.linalg.norm(np.einsum("nd,de->ne", apart, self.whitening), axis=1)

    def holds(self, vectors: np.ndarray) -> np.ndarray:
        """Say which vectors, (N, D), belong to the cloud: bool (N,)."""
        return self.distance(vectors) <= self.limit


@dataclass(frozen=True)
class Known:
    """What is remembered of the training images; made by `fit`.

    Attributes:
        features: of what the network's head saw in them.
        looks: of what they look like.
        references: thumbnails of pictures that are outliers, float32 (R, 16, 16, 3), 0..255.
    """

    features: Cloud
    looks: Cloud
    references: np.ndarray

    def holds(self, features: np.ndarray, images: np.ndarray) -> np.ndarray:
        """Say which images are of the kind that the model was trained on.

        Args:
            features: what the network's head sees in them, (N, D).
            images: (N, S, S, 3), 0..255, prepared as the training images were.

        Returns:
            bool (N,).
        """
        return self.features.holds(features) & self.seems(images)

    def seems(self, images: np.ndarray) -> np.ndarray:
        """Say the same by the images alone, (N, S, S, 3), before a network has seen them: bool (N,)."""
        copy = reference_distance(images, self.references) < COPY
        return self.looks.holds(looks(images)) & ~copy


def fit(
    train_features: np.ndarray,
    train_images: np.ndarray,
    validation_features: np.ndarray,
    validation_images: np.ndarray,
    references: np.ndarray,
) -> Known:
    """Remember the training images, and choose the thresholds on validation images.

    Args:
        train_features: float (N, D), of real training images, synthetic ones left out.
        train_images: (N, S, S, 3), uint8 or float, 0..255; rows as in `train_features`.
        validation_features: float (M, D).
        validation_images: (M, S, S, 3).
        references: outlier pictures, (R, S, S, 3); R may be 0.

    Returns:
        What `write` writes and a prediction needs; nothing in it is random.

    Raises:
        LeafError: where there are fewer than two training images or no validation image.
    """
    if len(train_images) < 2 or not len(validation_images):
        raise LeafError("splits.csv: too few training or validation images to learn what a known image is; add images")
    return Known(
        _cloud(train_features, validation_features, LOST["features"]),
        _cloud(looks(train_images), looks(validation_images), LOST["looks"]),
        thumbnails(references),
    )


def reference_distance(images: np.ndarray, references: np.ndarray) -> np.ndarray:
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


def write(known: Known, model_sha256: str, path: str | Path) -> None:
    """Write `known` as an .npz file that names the model it belongs to; equal ones are equal files."""
    arrays = {"references": known.references, "model_sha256": np.array(model_sha256)}
    for name in ("features", "looks"):
        cloud: Cloud = getattr(known, name)
        arrays |= {f"{name}_centre": cloud.centre, f"{name}_whitening": cloud.whitening}
        arrays[f"{name}_limit"] = np.array(cloud.limit)
    file = io.BytesIO()
    np.savez(file, allow_pickle=False, **arrays)
    with replacing(path) as partial:
        partial.write_bytes(file.getvalue())


def read(path: str | Path, model_sha256: str) -> Known:
    """Read what `write` wrote. Raises LeafError where the file is missing, broken, or of another model."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            owner = str(arrays["model_sha256"])
            clouds = [
                Cloud(arrays[f"{name}_centre"], arrays[f"{name}_whitening"], float(arrays[f"{name}_limit"]))
                for name in ("features", "looks")
            ]
            known = Known(clouds[0], clouds[1], arrays["references"])
    except FileNotFoundError:
        raise LeafError(f"{path}: no such file; run `dvc repro` first") from None
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise LeafError(f"{path}: damaged ({error}); run `dvc repro`") from None
    if owner != model_sha256:
        raise LeafError(f"{path}: belongs to another model than run.json names; run `dvc repro`")
    return known


def _cloud(train: np.ndarray, validation: np.ndarray, lost: float) -> Cloud:
    """Fit a shrunk covariance (Ledoit and Wolf 2004), which few images in many dimensions need."""
    from sklearn.covariance import ledoit_wolf

    centre, spread = train.mean(axis=0, dtype=np.float64), train.std(axis=0, dtype=np.float64) + 1e-6
    covariance, _ = ledoit_wolf((train - centre) / spread, assume_centered=True)
    values, vectors = np.linalg.eigh(covariance)
    whitening = vectors / np.sqrt(np.maximum(values, _FLOOR)) / spread[:, None]
    cloud = Cloud(centre.astype(np.float32), whitening.astype(np.float32), np.inf)
    limit = float(np.quantile(cloud.distance(validation), 1 - lost))
    return Cloud(cloud.centre, cloud.whitening, limit)


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
