"""A trained model with all that belongs to it, ready to be asked about photographs."""

import csv
import io
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import keras
import numpy as np

from leaf import networks
from leaf.errors import LeafError
from leaf.networks.prediction import MOST, pooled, view
from leaf.serving import ood
from leaf.serving.pixels import ImagesLike, as_list, name_of, prepare
from leaf.store import read_json


@dataclass(frozen=True)
class Prediction:
    """What the model says of one image.

    Attributes:
        image: the image as it was given: a path, or its number for an array.
        label: the predicted class.
        probability: of the second class (`unhealthy`), 0 to 1, whatever the label.
        threshold: the probability from which the second class is predicted.
        known: False where the image is unlike every training image: then label and probability mean nothing.
    """

    image: str
    label: str
    probability: float
    threshold: float
    known: bool


COLUMNS = tuple(field.name for field in fields(Prediction))


def as_csv(predictions: Iterable[Prediction]) -> Iterator[str]:
    """Give the lines of a CSV table, header first, without line ends; `known` is 1 or 0 as in the pipeline's tables."""
    yield ",".join(COLUMNS)
    for prediction in predictions:
        text = io.StringIO()
        row = vars(prediction) | {"known": int(prediction.known)}
        csv.writer(text, lineterminator="").writerow(row.values())
        yield text.getvalue()


def as_json(predictions: Iterable[Prediction]) -> Iterator[str]:
    """Give the lines of one JSON array, one prediction a line, so that a long one can be read as it grows."""
    before = "["
    for prediction in predictions:
        yield before + json.dumps(vars(prediction), ensure_ascii=False)
        before = ","
    yield "]" if before == "," else "[]"


def as_text(predictions: Iterable[Prediction], images: Sequence[str], classes: Sequence[str]) -> Iterator[str]:
    """Give the lines of a table for a person; the label of an image that is not known bears a question mark.

    Args:
        predictions: the rows.
        images: every image's name, for the width of the first column.
        classes: the labels, for the width of the second.
    """
    wide = min(60, max(len(_shown(name)) for name in [*images, "image"]))
    label = max(len(name) for name in [*classes, "label"]) + 1
    yield f"{'image'.ljust(wide)}  {'label'.ljust(label)}  probability  threshold  known"
    for row in predictions:
        said = row.label if row.known else f"{row.label}?"
        known = "yes" if row.known else "no"
        figures = f"{row.probability:11.4f}  {row.threshold:9.4f}  {known}"
        yield f"{_shown(row.image).ljust(wide)}  {said.ljust(label)}  {figures}"


def _shown(name: str) -> str:
    return name if name.isprintable() else repr(name)  # a file name may hold a line end or move the cursor


MODEL = "models/model.keras"
BATCH = 64  # images at once, a power of two


class Classifier:
    """A trained model with its classes, threshold, temperature and its knowledge of what it was trained on.

    Attributes:
        network: images, float32 (N, S, S, 3) in 0..255, to logits (N, 2).
        classes: the two labels.
        image_size: S, in pixels.
        threshold: the probability of the second class from which it is predicted.
        temperature: the logits are divided by it.
        views: how many views of an image are averaged unless the caller says otherwise.
        sha256: of the model's file, in hex.
    """

    def __init__(
        self,
        network: keras.Model,
        classes: Sequence[str],
        threshold: float,
        temperature: float,
        kind: ood.Known,
        views: int = 1,
        sha256: str = "",
    ) -> None:
        self.network = network
        self.classes = tuple(classes)
        self.image_size = int(network.inputs[0].shape[1])
        self.threshold = threshold
        self.temperature = temperature
        self.views = views
        self.sha256 = sha256
        self._kind = kind
        self._asked = keras.Model(network.inputs[0], [network.outputs[0], pooled(network)])

    def predict(self, images: ImagesLike, views: int | None = None) -> list[Prediction]:
        """Predict images, in their order.

        Args:
            images: one or many, mixed as you like: paths, PIL images, arrays (H, W, 3) of uint8 or of float in 0..255;
                or one array (N, H, W, 3). Each is centre-cropped and resized as the training images were.
            views: how many views (mirrored, turned, cropped) of each image are averaged, 1 to 16.

        Returns:
            One `Prediction` an image.

        Raises:
            LeafError: for an image that cannot be read, naming it.

        Example:
            >>> import leaf
            >>> model = leaf.load("models/model.keras")
            >>> model.predict(["leaf.jpg"])
            [Prediction(image='leaf.jpg', label='healthy', probability=0.08, threshold=0.5, known=True)]
        """
        given = as_list(images)
        rows: list[Prediction] = []
        for start in range(0, len(given), BATCH):
            batch = given[start : start + BATCH]
            names = [name_of(image, start + place) for place, image in enumerate(batch)]
            pixels = [prepare(image, self.image_size, name) for image, name in zip(batch, names, strict=True)]
            rows += self.judge(names, np.stack(pixels), views)
        return rows

    def seems_known(self, images: np.ndarray) -> np.ndarray:
        """Give what `judge` asks of prepared images (N, S, S, 3) without the network, for another thread: bool (N,)."""
        return self._kind.seems(images)

    def judge(
        self, names: Sequence[str], images: np.ndarray, views: int | None = None, seems_known: np.ndarray | None = None
    ) -> list[Prediction]:
        """Predict images that are prepared already, (N, S, S, 3) with N at most `BATCH`; see `predict`.

        `seems_known` is what the method of that name gave for them, where it has been asked already.
        """
        views = self.views if views is None else views
        if not 1 <= views <= MOST:
            raise LeafError(f"views: {views}; valid: a whole number from 1 to {MOST}")
        images = np.asarray(images, np.float32)
        logits, features = self._ask(images)
        probability = self._probability(logits)
        for number in range(1, views):
            probability += self._probability(self._ask(view(images, number))[0])
        probability /= views
        seems = self.seems_known(images) if seems_known is None else seems_known
        of_its_kind = self._kind.features.holds(features) & seems
        labels = np.where(probability >= self.threshold, self.classes[1], self.classes[0])
        rows = zip(names, labels, probability, of_its_kind, strict=True)
        return [Prediction(name, str(label), float(p), self.threshold, bool(k)) for name, label, p, k in rows]

    def heatmaps(self, images: np.ndarray) -> np.ndarray:
        """Give where the network saw the class it gives: prepared images (N, S, S, 3) to float32 (N, S, S), 0 to 1."""
        return networks.heatmaps(self.network, images)

    def _probability(self, logits: np.ndarray) -> np.ndarray:
        wide = logits.astype(np.float64)
        return 1 / (1 + np.exp((wide[:, 0] - wide[:, 1]) / self.temperature))

    def _ask(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Give logits and pooled features in one pass; filled up to a power of two, so that few shapes are compiled."""
        count = len(images)
        missing = (1 << (count - 1).bit_length()) - count
        filled = np.concatenate([images, np.repeat(images[-1:], missing, axis=0)]) if missing else images
        logits, features = self._asked.predict_on_batch(filled)
        return logits[:count], features[:count]


def load(path: str | Path = MODEL) -> Classifier:
    """Load a trained model with what `dvc repro` wrote beside it.

    Args:
        path: the `.keras` file. `run.json` lies beside it; `decision.json` and `ood.npz` beside it, too, or in the
            project's `data/scored`.

    Returns:
        The model, ready to `predict`.

    Raises:
        LeafError: where a file is missing, damaged, or belongs to another model.
    """
    path = Path(path)
    beside = companions(path)
    kind = ood.read(beside.known, beside.sha256)
    network = networks.load(path, beside.sha256)
    return Classifier(network, beside.classes, beside.threshold, beside.temperature, kind, beside.views, beside.sha256)


@dataclass(frozen=True)
class Companions:
    """What belongs to a model file.

    Attributes:
        sha256: of the model file as `train` wrote it, in hex.
        classes: the two labels.
        threshold: the probability of the second class from which it is predicted.
        temperature: the logits are divided by it.
        views: how many views of an image were averaged when the model was judged.
        known: where the file lies that says what the model knows (`leaf.serving.ood`).
    """

    sha256: str
    classes: tuple[str, ...]
    threshold: float
    temperature: float
    views: int
    known: Path


def companions(model: Path) -> Companions:
    """Read what belongs to `model`: `run.json` beside it; `decision.json` and `known.npz` beside it or in data/scored.

    Raises:
        LeafError: where the model or one of the files is missing, or a file lacks a key.
    """
    if not model.is_file():
        raise LeafError(f"{model}: no such file; run `dvc repro` first, or give another model")
    run_file, decision_file = model.with_name("run.json"), _find(model, "decision.json")
    run, decision = read_json(run_file), read_json(decision_file)
    try:
        return Companions(
            run["model_sha256"],
            tuple(run["classes"]),
            float(decision["threshold"]),
            float(decision["temperature"]),
            int(decision["views"]),
            _find(model, "known.npz"),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise LeafError(f"{run_file}, {decision_file}: not as `dvc repro` writes them ({error!r})") from None


def _find(model: Path, name: str) -> Path:
    beside = model.with_name(name)
    return beside if beside.is_file() else model.parent.parent / "data" / "scored" / name
