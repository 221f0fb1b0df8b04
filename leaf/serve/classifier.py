"""A trained model with all that belongs to it, ready to predict photographs."""

import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, TypeAlias

import numpy as np
from PIL import Image
from pydantic import ConfigDict, Field, ValidationError
from pydantic.dataclasses import dataclass as pydantic_dataclass

from leaf.errors import LeafError
from leaf.evaluate import out_of_distribution as ood
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
    """The prediction of one image.

    Attributes:
        image: the image as it was given: a path, or its number for an array.
        label: the predicted class.
        probability: 0 to 1, of the second of two classes (`unhealthy`), whatever the label; of more, of the label.
        threshold: the probability from which the second class is predicted; None for more than two classes, of which
            the likeliest is predicted.
        known: False where the image is out-of-distribution, unlike the training images: check the label.
        probabilities: of each class, by its name; they add up to 1.
    """

    image: str
    label: str
    probability: float
    threshold: float | None
    known: bool
    probabilities: dict[str, float] = field(default_factory=dict)


MODEL = "models/model.onnx"
_RUN = ("model_sha256", "classes", "fit", "backbone")
_DECISION = ("threshold", "temperature", "views", "test_accuracy", "onnx_sha256", "without_onnx")
BATCH_SIZE = 64  # images at once, a power of two


class Classifier:
    """A trained model with its classes, threshold, temperature and out-of-distribution detector.

    Attributes:
        network: images, float32 (N, S, S, 3) in 0..255, to probabilities (N, C), features and maps.
        classes: the names of its C classes.
        image_size: S, in pixels.
        threshold: the probability of the second of two classes from which it is predicted.
        views: test-time augmentation: how many views of an image are averaged unless the caller says otherwise.
        sha256: of the `.keras` file, in hex.
        ood_detector: tells which images are unlike the training images.
        fit: how a photograph becomes a square, as the training images did (key `fit`).
        backbone, test_accuracy: which network this is, and how good it was found to be; None without a test split.
    """

    def __init__(self, network: Network, beside: "ModelFiles") -> None:
        self.network = network
        self.classes = beside.classes
        self.image_size = network.image_size
        self.threshold = beside.threshold
        self.views = beside.views
        self.sha256 = beside.sha256
        self.fit = beside.fit
        self.backbone = beside.backbone
        self.test_accuracy = beside.test_accuracy
        self.ood_detector = ood.read(beside.ood, beside.sha256)

    def predict(self, images: ImagesLike, views: int | None = None) -> list[Prediction]:
        """Predict images, in their order.

        Args:
            images: one or many, mixed as you like: paths, PIL images, arrays (H, W, 3) of uint8 or of float in 0..255;
                or one array (N, H, W, 3). Each is made a square of the network's size as the training images were.
            views: test-time augmentation: views (mirrored, turned, cropped) of each image that are averaged, 1 to 16.

        Returns:
            One `Prediction` an image.

        Raises:
            LeafError: for an image that cannot be read, naming it.

        Example:
            >>> import leaf
            >>> model = leaf.load("models/model.keras")
            >>> model.predict(["leaf.jpg"])
            [Prediction(image='leaf.jpg', label='healthy', probability=0.08, threshold=0.5, known=True,
                        probabilities={'healthy': 0.92, 'unhealthy': 0.08})]
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
        """Predict images that are prepared already, (N, S, S, 3) with N at most `BATCH_SIZE`; see `predict`.

        `pixels_known` is what `ood_detector.pixels_in_distribution` gave for them, where another thread has called it.
        """
        views = self.views if views is None else views
        if not 1 <= views <= MAX_VIEWS:
            raise LeafError(f"views: {views}; valid: a whole number from 1 to {MAX_VIEWS}")
        images = np.asarray(images, np.float32)
        probabilities, features = onnx_inference.probabilities(self.network, images, views)
        if pixels_known is None:
            pixels_known = self.ood_detector.pixels_in_distribution(images)
        known = self.ood_detector.features.contains(features) & pixels_known
        rows = zip(names, probabilities.tolist(), known.tolist(), strict=True)
        return [self._prediction(name, each, seen) for name, each, seen in rows]

    def _prediction(self, name: str, probabilities: list[float], known: bool) -> Prediction:
        two = len(self.classes) == 2
        label = int(probabilities[1] >= self.threshold) if two else int(np.argmax(probabilities))
        named = dict(zip(self.classes, probabilities, strict=True))
        shown = probabilities[1 if two else label]
        return Prediction(name, self.classes[label], shown, self.threshold if two else None, known, named)

    def heatmaps(self, images: np.ndarray) -> np.ndarray:
        """Show where the network saw the class it predicts: prepared images (N, S, S, 3) to float32 (N, S, S), 0..1."""
        return gradcam.heatmaps(self.network, np.asarray(images, np.float32))


def load(path: str | Path = MODEL) -> Classifier:
    """Load a trained model with what `dvc repro` wrote beside it.

    Args:
        path: the `.onnx` file, which needs no Keras, or the `.keras` file. `run.json` lies beside it; `decision.json`
            and `ood.npz` beside it, too, or in the project's `data/scored`.

    Returns:
        The model, ready to `predict`.

    Raises:
        LeafError: where a file is missing, damaged, or belongs to another model.
    """
    path = Path(path)
    beside = read_model_files(path)
    if path.suffix == ".onnx" and beside.without_onnx:
        print(f"{path}: {beside.without_onnx}: Keras answers", file=sys.stderr)
        path = path.with_suffix(".keras")
    if path.suffix != ".onnx":
        return Classifier(_keras_network(path, beside), beside)
    if (found := sha256(path)) != beside.onnx_sha256:
        raise LeafError(f"{path}: not the file that was evaluated: its SHA-256 is {found}, not {beside.onnx_sha256}")
    network = OnnxNetwork(path)
    if len(network.head.slopes) != len(beside.classes):
        raise LeafError(f"{path}: {len(network.head.slopes)} classes; run.json names {len(beside.classes)}")
    classifier = Classifier(network, beside)
    if network.features != len(classifier.ood_detector.features.mean):
        raise LeafError(f"{beside.ood}: not for the {network.features} features of {path}; run `dvc repro`")
    return classifier


def _keras_network(path: Path, beside: "ModelFiles") -> Network:
    from leaf.models.prediction import KerasNetwork
    from leaf.models.saving import load_model

    return KerasNetwork(load_model(path, beside.sha256), beside.temperature)


@pydantic_dataclass(frozen=True, config=ConfigDict(strict=True))
class ModelFiles:
    """What belongs to a model file.

    Attributes:
        sha256: of the model file as `train` wrote it, in hex.
        classes: the class names, the first is label 0.
        threshold: the probability of the second of two classes from which it is predicted.
        temperature: the logits are divided by it.
        views: how many views of an image were averaged when the model was evaluated.
        ood: the file of the out-of-distribution detector (`leaf.evaluate.out_of_distribution`).
        onnx_sha256: of the `.onnx` file as `evaluate` wrote it; empty where older files do not say.
        without_onnx: why that file is empty and Keras has to answer; empty where it is not.
        fit: how photographs became squares; `crop` where an older run.json does not say.
        backbone, test_accuracy: which network it is and how good; empty and None where older files do not say.
    """

    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$", alias="model_sha256")]
    classes: Annotated[tuple[str, ...], Field(min_length=2, strict=False)]
    threshold: Annotated[float, Field(ge=0, le=1)]
    temperature: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    views: Annotated[int, Field(ge=1, le=MAX_VIEWS)]
    ood: Path
    fit: Fit = "crop"
    backbone: str = ""
    onnx_sha256: str = ""
    without_onnx: str = ""
    test_accuracy: Annotated[float, Field(ge=0, le=1)] | None = None


def read_model_files(model: Path) -> ModelFiles:
    """Read what belongs to `model`: `run.json` beside it; `decision.json` and `ood.npz` beside it or in data/scored.

    Raises:
        LeafError: where the model or one of the files is missing, or a file lacks a key.
    """
    if not model.is_file():
        raise LeafError(f"{model}: no such file; run `dvc repro` first, or give another model")
    files = {model.with_name("run.json"): _RUN, _find(model, "decision.json"): _DECISION}
    values: dict[str, Any] = {"ood": _find(model, "ood.npz")}
    models: set[str] = set()
    for file, keys in files.items():
        found = read_json(file)
        if not isinstance(found, dict):
            raise LeafError(f"{file}: not as `dvc repro` writes it: no mapping")
        values |= {key: found[key] for key in keys if key in found}
        models.add(str(found.get("model_sha256")))
    try:
        made = ModelFiles(**values)
    except ValidationError as error:
        first = error.errors()[0]
        key = str(first["loc"][0])
        file = next((file for file, keys in files.items() if key in keys), model)
        raise LeafError(f"{file}: not as `dvc repro` writes it: {key}: {first['msg']}") from None
    if len(models) > 1:
        raise LeafError(f"{' and '.join(map(str, files))}: of different models; copy both from one run")
    return made


def _find(model: Path, name: str) -> Path:
    beside = model.with_name(name)
    return beside if beside.is_file() else model.parent.parent / "data" / "scored" / name


def as_list(images: ImagesLike) -> Sequence[ImageLike]:
    """Give single images as a list of one; an array (N, H, W, 3) stays as it is, a memory map unread."""
    if isinstance(images, (str, Path, Image.Image)):
        return [images]
    if isinstance(images, np.ndarray):
        return images[None] if images.ndim == 3 else images  # type: ignore[return-value]
    return list(images)


def name_of(image: ImageLike, number: int) -> str:
    """Give the name of an image in its prediction: its path as given, else its number."""
    return str(image) if isinstance(image, (str, Path)) else str(number)


def prepare(image: ImageLike | bytes, size: int, name: str, fit: Fit = "crop") -> np.ndarray:
    """Give one image as ingest would store it: turned as its EXIF says, made a square of `size` by `fit`.

    Args:
        image: a path, a file's bytes, a PIL image, or an array (H, W, 3) of uint8, or of float in 0..255.
        size: side in pixels.
        name: for the error.
        fit: how it becomes a square (`leaf.ingest.decode.to_square`), as the training images did.

    Returns:
        (size, size, 3), uint8, or float32 where the array was of floats.

    Raises:
        LeafError: `NAME: why it cannot be read`.
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
        raise LeafError(f"image {name}: an array of shape {array.shape}; valid: (height, width, 3)")
    if array.dtype == np.uint8:
        return array
    if array.dtype.kind not in "fiu":
        raise LeafError(f"image {name}: an array of {array.dtype}; valid: uint8, or numbers from 0 to 255")
    array = array.astype(np.float32)
    low, high = array.min(), array.max()
    if not (low >= 0 and high <= 255):  # also catches nan
        raise LeafError(f"image {name}: values from {low:g} to {high:g}; valid: 0 to 255")
    if 0 < high <= 1:
        raise LeafError(f"image {name}: values reach {high:g} only; valid: 0 to 255, so multiply by 255 first")
    return array
