"""Load a trained model with its run files and predict images."""

import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, TypeAlias

import numpy as np
from PIL import Image
from pydantic import ConfigDict, Field, ValidationError
from pydantic.dataclasses import dataclass as pydantic_dataclass

from leaf.errors import LeafError
from leaf.evaluate import out_of_distribution as ood
from leaf.evaluate.selective import confidence
from leaf.ingest.decode import Fit, UnreadableError, from_pil, to_square
from leaf.ingest.sandbox import read_file, read_image
from leaf.models import gradcam, onnx_inference
from leaf.models.onnx_inference import Network, OnnxNetwork
from leaf.models.tta import MAX_VIEWS
from leaf.store import read_json, sha256

ImageLike: TypeAlias = str | Path | Image.Image | np.ndarray
ImagesLike: TypeAlias = ImageLike | Iterable[ImageLike]


@dataclass(frozen=True)
class Prediction:
    """The prediction of one image."""

    image: str  # path as given, or the index of an array
    label: str  # the predicted class
    answer: str  # the label, or `UNKNOWN` if the image is out-of-distribution, or `UNDECIDED` if the confidence is low
    probability: float  # of the second of two classes (`unhealthy`); with more classes, of the predicted class
    threshold: float | None  # minimum probability for predicting the second of two classes; None for more (argmax)
    known: bool  # False if the image is out-of-distribution; check its label
    probabilities: dict[str, float] = field(default_factory=dict)  # probability of each class, by name; the sum is 1


UNDECIDED, UNKNOWN = "undecided", "not like the training images"
MODEL = "models/model.onnx"
_RUN = ("model_sha256", "classes", "fit", "backbone")
_DECISION = ("threshold", "temperature", "min_confidence", "views", "test_accuracy", "onnx_sha256", "without_onnx")
BATCH_SIZE = 64  # maximum number of images per batch


class Classifier:
    """A trained model with its classes, threshold, temperature and out-of-distribution detector.

    Attributes:
        network: computes probabilities (N, C) and feature maps of images, float32 (N, S, S, 3) in 0..255.
        classes: names of the C classes.
        image_size: S, in pixels.
        threshold: minimum probability for predicting the second of two classes.
        min_confidence: confidence below which an image is undecided (`leaf.evaluate.selective`).
        views: default number of views to average (test-time augmentation), as in evaluation.
        sha256: SHA-256 of the `.keras` file, in hex.
        fit: how images are made square (key `fit` of params.yaml).
        backbone: name of the backbone.
        test_accuracy: accuracy on test, or None without a test split.
        ood_detector: out-of-distribution detector.
    """

    def __init__(self, network: Network, files: "ModelFiles") -> None:
        self.network = network
        self.classes = files.classes
        self.image_size = network.image_size
        self.threshold = files.threshold
        self.min_confidence = files.min_confidence
        self.views = files.views
        self.sha256 = files.sha256
        self.fit = files.fit
        self.backbone = files.backbone
        self.test_accuracy = files.test_accuracy
        self.ood_detector = ood.read(files.ood, files.sha256)

    def predict(self, images: ImagesLike, views: int | None = None) -> list[Prediction]:
        """Predict images, in order.

        Args:
            images: one or many paths, PIL images or arrays (H, W, 3), uint8 or float in 0..255; or an array
                (N, H, W, 3). Images are resized like the training images.
            views: number of views to average (test-time augmentation), 1 to 16.

        Returns:
            One `Prediction` per image.

        Raises:
            LeafError: if an image cannot be read.

        Example:
            >>> import leaf
            >>> model = leaf.load("models/model.keras")
            >>> model.predict(["leaf.jpg"])
            [Prediction(image='leaf.jpg', label='healthy', answer='healthy', probability=0.08, threshold=0.5,
                        known=True, probabilities={'healthy': 0.92, 'unhealthy': 0.08})]
        """
        given = as_list(images)
        rows: list[Prediction] = []
        for start in range(0, len(given), BATCH_SIZE):
            batch = given[start : start + BATCH_SIZE]
            names = [name_of(image, start + place) for place, image in enumerate(batch)]
            pixels = [prepare(image, self.image_size, name, self.fit) for image, name in zip(batch, names, strict=True)]
            rows += self.predict_prepared(names, np.stack(pixels), views)
        return rows

    def predict_prepared(
        self,
        names: Sequence[str],
        images: np.ndarray,
        views: int | None = None,
        pixels_known: np.ndarray | None = None,
    ) -> list[Prediction]:
        """Predict at most `BATCH_SIZE` resized images (N, S, S, 3); see `predict`.

        `pixels_known` is the precomputed result of `ood_detector.pixels_in_distribution`.
        """
        views = self.views if views is None else views
        if not 1 <= views <= MAX_VIEWS:
            raise LeafError(f"views: {views} is not valid. Use an integer from 1 to {MAX_VIEWS}.")
        images = np.asarray(images, np.float32)
        probabilities, features = onnx_inference.probabilities(self.network, images, views)
        if pixels_known is None:
            pixels_known = self.ood_detector.pixels_in_distribution(images)
        known = self.ood_detector.features.contains(features) & pixels_known
        certain = confidence(probabilities, self.threshold) >= self.min_confidence
        rows = zip(names, probabilities.tolist(), known.tolist(), certain.tolist(), strict=True)
        return [self._prediction(*row) for row in rows]

    def _prediction(self, name: str, probabilities: list[float], known: bool, certain: bool) -> Prediction:
        two = len(self.classes) == 2
        label = int(probabilities[1] >= self.threshold) if two else int(np.argmax(probabilities))
        named = dict(zip(self.classes, probabilities, strict=True))
        shown = probabilities[1 if two else label]
        answer = UNKNOWN if not known else self.classes[label] if certain else UNDECIDED
        threshold = self.threshold if two else None
        return Prediction(name, self.classes[label], answer, shown, threshold, known, named)

    def heatmaps(self, images: np.ndarray) -> np.ndarray:
        """Return Grad-CAM maps of the predicted class, float32 (N, S, S) in 0..1, for resized images (N, S, S, 3)."""
        return gradcam.heatmaps(self.network, np.asarray(images, np.float32))


def load(path: str | Path = MODEL) -> Classifier:
    """Load a trained model and its run files.

    Args:
        path: a `.onnx` file (runs without Keras) or a `.keras` file, with `run.json` in the same folder and
            `decision.json` and `ood.npz` in the same folder or in the project's `data/scored`.

    Raises:
        LeafError: if a file is missing, damaged or belongs to another model.
    """
    path = Path(path)
    files = read_model_files(path)
    if path.suffix == ".onnx" and files.without_onnx:
        print(f"{path}: {files.without_onnx}; using Keras instead", file=sys.stderr)
        path = path.with_suffix(".keras")
    if path.suffix != ".onnx":
        onnx_file = path.with_suffix(".onnx")
        if not files.without_onnx and onnx_file.is_file() and sha256(onnx_file) == files.onnx_sha256:
            _check_metadata(onnx_file, OnnxNetwork(onnx_file).metadata, files)
        from leaf.models.prediction import KerasNetwork
        from leaf.models.saving import load_model

        return Classifier(KerasNetwork(load_model(path, files.sha256), files.temperature), files)
    if (found := sha256(path)) != files.onnx_sha256:
        raise LeafError(f"{path}: SHA-256 is {found}, expected {files.onnx_sha256}. Run `dvc repro` to restore it.")
    network = OnnxNetwork(path)
    _check_metadata(path, network.metadata, files)
    if len(network.head.slopes) != len(files.classes):
        raise LeafError(
            f"{path}: {len(network.head.slopes)} classes, but run.json has {len(files.classes)}. Run `dvc repro`."
        )
    classifier = Classifier(network, files)
    if network.features != len(classifier.ood_detector.features.mean):
        raise LeafError(f"{files.ood}: does not match the {network.features} features of {path}. Run `dvc repro`.")
    return classifier


def _check_metadata(path: Path, metadata: Mapping[str, Any], files: "ModelFiles") -> None:
    """Raise LeafError if run.json or decision.json disagrees with the metadata of the hashed ONNX file."""
    names = ("temperature", "min_confidence", "views", "fit", "backbone", "test_accuracy")
    wanted = {key: getattr(files, key) for key in names}
    wanted |= {"classes": list(files.classes), "model_sha256": files.sha256}
    wanted["threshold"] = files.threshold if len(files.classes) == 2 else None
    for key, value in wanted.items():
        if key in metadata and metadata[key] != value:
            raise LeafError(
                f"{path}: {key} is {metadata[key]!r}, but run.json or decision.json has {value!r}. Run `dvc repro`."
            )


@pydantic_dataclass(frozen=True, config=ConfigDict(strict=True))
class ModelFiles:
    """The contents of run.json and decision.json; `Classifier` describes most of them."""

    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$", alias="model_sha256")]
    classes: Annotated[tuple[str, ...], Field(min_length=2, strict=False)]
    threshold: Annotated[float, Field(ge=0, le=1)]
    temperature: Annotated[float, Field(gt=0, allow_inf_nan=False)]  # divides the logits
    views: Annotated[int, Field(ge=1, le=MAX_VIEWS)]
    ood: Path  # the out-of-distribution detector
    min_confidence: Annotated[float, Field(ge=0, le=1)] = 0.0
    fit: Fit = "crop"
    backbone: str = ""
    onnx_sha256: str = ""
    without_onnx: str = ""  # why the model has no ONNX file; empty if it has one
    test_accuracy: Annotated[float, Field(ge=0, le=1)] | None = None


def read_model_files(model: Path) -> ModelFiles:
    """Read the run files of `model`; see `load`. Raises LeafError if one is missing or invalid."""
    if not model.is_file():
        raise LeafError(f"{model}: no such file. Run `dvc repro`, or pass another model.")
    files = {model.with_name("run.json"): _RUN, _find(model, "decision.json"): _DECISION}
    values: dict[str, Any] = {"ood": _find(model, "ood.npz")}
    models: set[str] = set()
    for file, keys in files.items():
        found = read_json(file, {})
        values |= {key: found[key] for key in keys if key in found}
        models.add(str(found.get("model_sha256")))
    try:
        made = ModelFiles(**values)
    except ValidationError as error:
        first = error.errors()[0]
        key = str(first["loc"][0])
        file = next((file for file, keys in files.items() if key in keys), model)
        raise LeafError(f"{file}: {key}: {first['msg']}. Run `dvc repro` to restore it.") from None
    if len(models) > 1:
        raise LeafError(f"{' and '.join(map(str, files))}: from different models. Copy both from the same run.")
    return made


def _find(model: Path, name: str) -> Path:
    beside = model.with_name(name)
    return beside if beside.is_file() else model.parent.parent / "data" / "scored" / name


def as_list(images: ImagesLike) -> Sequence[ImageLike]:
    """Wrap a single image in a list; return an array (N, H, W, 3) unchanged."""
    if isinstance(images, (str, Path, Image.Image)):
        return [images]
    if isinstance(images, np.ndarray):
        return images[None] if images.ndim == 3 else images  # type: ignore[return-value]
    return list(images)


def name_of(image: ImageLike, number: int) -> str:
    """Return the image's path as given, or its position if it has no path."""
    return str(image) if isinstance(image, (str, Path)) else str(number)


def prepare(image: ImageLike | bytes, size: int, name: str, fit: Fit = "crop") -> np.ndarray:
    """Decode and resize one image as ingest does, including its EXIF rotation.

    Args:
        image: a path, file content, PIL image, or array (H, W, 3) of uint8 or of float in 0..255.
        size: side in pixels.
        name: name for error messages.
        fit: how the image is made square (`leaf.ingest.decode.to_square`).

    Returns:
        (size, size, 3), uint8, or float32 for an array of floats.

    Raises:
        LeafError: if the image cannot be read.
    """
    try:
        if isinstance(image, bytes):
            return read_image(image, size, fit).pixels
        if isinstance(image, (str, Path)):
            return read_image(read_file(Path(image)), size, fit).pixels
        if isinstance(image, Image.Image):
            return from_pil(image, size, fit)
    except UnreadableError as error:
        raise LeafError(f"{name}: {error}") from None
    return to_square(_checked(np.asarray(image), name)[None], size, fit)[0]


def _checked(array: np.ndarray, name: str) -> np.ndarray:
    if array.ndim != 3 or array.shape[2] != 3 or 0 in array.shape:
        raise LeafError(f"image {name}: shape {array.shape} is not valid. Use (height, width, 3).")
    if array.dtype == np.uint8:
        return array
    if array.dtype.kind not in "fiu":
        raise LeafError(f"image {name}: dtype {array.dtype} is not valid. Use uint8, or numbers from 0 to 255.")
    array = array.astype(np.float32)
    low, high = array.min(), array.max()
    if not (low >= 0 and high <= 255):  # also catches nan
        raise LeafError(f"image {name}: values from {low:g} to {high:g} are not valid. Use 0 to 255.")
    if 0 < high <= 1:
        raise LeafError(f"image {name}: the largest value is {high:g}. Use 0 to 255: multiply by 255.")
    return array
