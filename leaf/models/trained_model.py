"""Trained models for the `evaluate` stage: a Keras model, or a linear probe on cached features without Keras."""

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from leaf import store
from leaf.models.feature_cache import NotCachedError
from leaf.models.onnx_inference import Network, OnnxNetwork, softmax
from leaf.models.probe_files import KEYS, LinearHead, ProbeFiles, find_probe_files, save_probe_file

if TYPE_CHECKING:
    import keras

_BLOCK = 2048  # images copied from the memory map at a time
_COMPARED = 8  # number of images used to compare an ONNX file with Keras


def cache_probe(key: str, model: "keras.Model", path: Path, facts: Mapping[str, Any], images: np.ndarray) -> None:
    """Cache a trained probe's files, so that `evaluate` and later probes with cached features do not require Keras.

    `path` is the probe's `.keras` file, saved under its `probe_key` with `facts`. Its ONNX file is compared with Keras
    on the first few `images`, (N, S, S, 3) in 0..255.
    """
    from leaf.models import onnx_export
    from leaf.models.prediction import probe_facts

    save_probe_file(key, path, {**probe_facts(model), **facts})
    with TemporaryDirectory() as folder:
        exported = Path(folder) / "model.onnx"
        if not onnx_export.write(model, {"temperature": 1.0}, images[:_COMPARED], exported):
            save_probe_file(key, exported, {})


def load_scorer(path: Path, run: Mapping[str, Any], images: np.ndarray, rows: np.ndarray, views: int) -> "Scorer":
    """Load the model written by `train`; Keras is not needed for a probe with one view if its features are cached.

    Args:
        path: the `.keras` file.
        run: models/run.json.
        images: (N, S, S, 3) in 0..255.
        rows: images to score, int64 (M,).
        views: number of views to average.

    Raises:
        LeafError: if the model is damaged or is not the one in `run`.
    """
    key = store.load_cached_value(KEYS, run["model_sha256"], "key") if "probe" in run and views == 1 else None
    files = find_probe_files(key)
    if files and path.is_file() and store.sha256(path) == run["model_sha256"]:
        with suppress(NotCachedError):
            return ProbeScorer(files, LinearHead.read(path), images, rows)
    return KerasScorer(path, run, images, views)


class ProbeScorer:
    """Score images with a linear probe on cached features, with the interface of `KerasScorer`."""

    def __init__(self, files: ProbeFiles, head: LinearHead, images: np.ndarray, rows: np.ndarray) -> None:
        self._files, self._head, self._images, self._features = files, head, images, files.features(images, rows)
        self._places = np.full(len(images), -1)
        self._places[rows] = np.arange(len(rows))

    def features(self, rows: np.ndarray) -> np.ndarray:
        return self._features[self._places[rows]]

    def probabilities(self, rows: np.ndarray, temperature: float) -> np.ndarray:
        return softmax(self._head.logits(self.features(rows)), temperature)

    def write_onnx(self, metadata: Mapping[str, Any], rows: np.ndarray, path: Path) -> str:
        return self._files.write_onnx(self._head, metadata, self._images[rows], self.features(rows), path)


class KerasScorer:
    """Score rows, int64 (M,), of images (N, S, S, 3) with a Keras model. A probe uses the feature cache."""

    def __init__(self, path: Path, run: Mapping[str, Any], images: np.ndarray, views: int) -> None:
        from leaf.models.saving import load_model

        self._model = load_model(path, sha256=run["model_sha256"])
        self._images, self._views, self._is_probe = images, views, "probe" in run

    def features(self, rows: np.ndarray) -> np.ndarray:
        """Return pooled features, float32 (M, D)."""
        from leaf.models.prediction import cached_features, extract_features

        if self._is_probe:
            return cached_features(self._model, self._images, rows)
        return extract_features(self._model, self._images[rows])

    def probabilities(self, rows: np.ndarray, temperature: float) -> np.ndarray:
        """Return probabilities, float64 (M, C)."""
        from leaf.models.prediction import linear_head, predict_probabilities

        if self._is_probe and self._views == 1:
            return softmax(linear_head(self._model).logits(self.features(rows)), temperature)
        blocks = (self._images[rows[start : start + _BLOCK]] for start in range(0, len(rows), _BLOCK))
        return np.concatenate(
            [predict_probabilities(self._model, block, views=self._views, temperature=temperature) for block in blocks]
        )

    def write_onnx(self, metadata: Mapping[str, Any], rows: np.ndarray, path: Path) -> str:
        """Write the ONNX file and check its outputs for `rows`; see `leaf.models.onnx_export.write`."""
        from leaf.models import onnx_export

        return onnx_export.write(self._model, dict(metadata), self._images[rows], path)


Scorer: TypeAlias = ProbeScorer | KerasScorer


def load_network(path: Path, sha256: str) -> Network:
    """Load the ONNX file `path` or, if it is empty, the Keras model next to it, which must match `sha256`."""
    if path.stat().st_size:
        return OnnxNetwork(path)
    from leaf.models.prediction import KerasNetwork
    from leaf.models.saving import load_model

    return KerasNetwork(load_model(path.with_suffix(".keras"), sha256))
