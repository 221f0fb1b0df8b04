"""A trained model with all that belongs to it, ready to be asked about photographs."""

from collections.abc import Sequence
from pathlib import Path

import keras
import numpy as np

from leaf import networks
from leaf.errors import LeafError
from leaf.networks.inference import pooled
from leaf.networks.views import MOST, view
from leaf.serving import known
from leaf.serving.companions import companions
from leaf.serving.pixels import ImagesLike, as_list, name_of, prepare
from leaf.serving.prediction import Prediction

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
        kind: known.Known,
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
        path: the `.keras` file. `run.json` lies beside it; `decision.json` and `known.npz` beside it, too, or in the
            project's `data/scored`.

    Returns:
        The model, ready to `predict`.

    Raises:
        LeafError: where a file is missing, damaged, or belongs to another model.
    """
    path = Path(path)
    beside = companions(path)
    kind = known.read(beside.known, beside.sha256)
    network = networks.load(path, beside.sha256)
    return Classifier(network, beside.classes, beside.threshold, beside.temperature, kind, beside.views, beside.sha256)
