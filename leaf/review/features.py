"""Image features for the review pages: those of the trained model, of a pretrained backbone, or of colors and shape."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from leaf.clean.same_photo import descriptors
from leaf.evaluate.baselines import joint_histograms
from leaf.models.onnx_inference import OnnxNetwork
from leaf.params import Params
from leaf.store import cache_folder, replacing, sha256

_BATCH = 64


def image_features(
    images: np.ndarray, rows: np.ndarray, hashes: Sequence[str], choices: Params, folder: Path = Path()
) -> tuple[np.ndarray, str]:
    """Return the features of `rows` of `images`, float32 (M, D), from the best available source, and its name.

    Args:
        images: (N, S, S, 3), uint8 or float32 in 0..255.
        rows: int (M,).
        hashes: hash of the pixels of each row; the features of the trained model are cached by it.
        choices: the project's parameters; pretrained weights are used if no model is trained.
        folder: project folder.
    """
    model = folder / "models/model.onnx"
    if model.is_file() and model.stat().st_size:  # empty if ONNX cannot represent the model
        network = OnnxNetwork(model)
        if network.image_size == images.shape[1]:
            cache = cache_folder("review") / f"{sha256(model)}.npz"
            return _model_features(network, images, rows, hashes, cache), "the trained model"
    if choices.weights != "random":
        from leaf.models.feature_cache import frozen_features  # imports Keras, which takes seconds

        made = frozen_features(images, rows, choices.backbone, choices.weights, choices.weights_sha256)
        return made, f"{choices.backbone} ({choices.weights})"
    return np.concatenate([descriptors(images, rows), joint_histograms(images, rows)], axis=1), "colors and shape"


def _model_features(
    network: OnnxNetwork, images: np.ndarray, rows: np.ndarray, hashes: Sequence[str], cache: Path
) -> np.ndarray:
    """Compute the features of images that the file `cache` lacks, and add them to it."""
    known: dict[str, np.ndarray] = {}
    if cache.is_file():
        try:
            with np.load(cache, allow_pickle=False) as kept:
                known = dict(zip(kept["hashes"].tolist(), kept["features"], strict=True))
        except (OSError, ValueError, KeyError):  # damaged: compute all of them
            known = {}
    missing = [place for place, each in enumerate(hashes) if each not in known]
    for start in tqdm(range(0, len(missing), _BATCH), desc="features", unit=" batches", disable=None):
        places = missing[start : start + _BATCH]
        _, made = network.predict(np.asarray(images[rows[places]], np.float32))
        known |= {hashes[place]: each for place, each in zip(places, made, strict=True)}
    if missing:
        for old in cache.parent.glob("*.npz"):  # of earlier models
            if old != cache:
                old.unlink(missing_ok=True)
        with replacing(cache) as partial:
            np.savez(partial, hashes=np.array(list(known)), features=np.stack(list(known.values())))
    return np.stack([known[each] for each in hashes]) if len(hashes) else np.empty((0, network.features), np.float32)
