"""Features of a backbone that does not learn: of each image computed once on this machine, and kept.

They lie outside the project (`leaf.store.cache_folder`), a folder for each backbone with its weights, in files of some
hundred images. A file is named after its content: one that is damaged is seen, and its features are computed anew.
"""

import json
from collections import defaultdict
from contextlib import suppress
from pathlib import Path
from typing import Any

import keras
import numpy as np
import xxhash

from leaf import store
from leaf.models.build import build_model
from leaf.models.prediction import pooled, predict_padded, softmax, submodel

ROOM = 4 * 2**30  # bytes that all kept features may take; above it the files that were not used for longest go
_BLOCK = 512  # images of a file
_BATCH = 64  # images at once, whatever else is known already: features do not depend on the neighbours of an image


def frozen_features(
    images: np.ndarray, rows: np.ndarray, backbone: str, weights: str, weights_sha256: str
) -> np.ndarray:
    """Give the features, float32 (len(rows), D), that an untrained backbone makes of `rows` of `images`.

    Arguments as for `build` and `kept_features`.
    """
    return cached_features(
        build_model(backbone, images.shape[1], weights=weights, weights_sha256=weights_sha256), images, rows
    )


def cached_features(model: keras.Model, images: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Give `features` of `rows` of `images`, float32 (len(rows), D), from those that are kept where they are.

    Args:
        model: from `build` or `load`; what its head is does not matter, all else does (`backbone_key`).
        images: (N, H, W, 3), uint8 or float, 0..255, squares as ingest writes them; of a memory map each row is read
            for its hash, and again where its features are not known.
        rows: int64, in any order.
    """
    inner = submodel(model, "features", lambda: pooled(model))
    kind = np.dtype([("image", "V16"), ("features", "<f4", (inner.output_shape[-1],))])
    found = np.empty((len(rows), inner.output_shape[-1]), np.float32)
    places: dict[bytes, list[int]] = defaultdict(list)
    for place, row in enumerate(rows):
        places[_hash(images[row])].append(place)
    folder = store.cache_folder("features") / backbone_key(model)
    for path in sorted(folder.glob("*.features")):
        block = _read(path, kind)
        here = [number for number, name in enumerate(block["image"].tolist()) if name in places]
        for number in here:
            found[places.pop(block["image"][number].tobytes(), [])] = block["features"][number]
        if here:
            with suppress(OSError):
                path.touch()
    unknown = list(places)
    for start in range(0, len(unknown), _BLOCK):
        block = np.empty(len(unknown[start : start + _BLOCK]), kind)
        block["image"] = np.array(unknown[start : start + _BLOCK], "V16")
        for first in range(0, len(block), _BATCH):
            names = unknown[start + first : start + min(first + _BATCH, len(block))]
            batch = np.stack([images[rows[places[name][0]]] for name in names]).astype(np.float32)
            block["features"][first : first + _BATCH] = predict_padded(inner, batch, _BATCH)
        for name, features in zip(unknown[start:], block["features"], strict=False):
            found[places[name]] = features
        _write(block, folder)
    return found


def head_on_features(model: keras.Model) -> keras.Model | None:
    """Give the head of `model` as a network from its features (N, D) to its logits, with the same variables.

    None where the backbone drops values at random in training, also while it is frozen: its features are not fixed.
    """
    inner = submodel(model, "features", lambda: pooled(model))
    if any(isinstance(each, keras.layers.Dropout) and each.rate for each in inner.operations):
        return None
    return keras.Model(pooled(model), model.output)


def cached_probabilities(
    model: keras.Model, images: np.ndarray, rows: np.ndarray, temperature: float = 1.0
) -> np.ndarray:
    """Give `probabilities` of `rows` of `images`, float64 (len(rows), C): what the head makes of `kept_features`."""
    normalization, dense = model.get_layer("batch_normalization"), model.get_layer("dense")
    return softmax(np.asarray(dense(normalization(cached_features(model, images, rows)))), temperature)


def backbone_key(model: keras.Model) -> str:
    """Hash what the features of `model` depend on beside the images: its operations but for the head, their weights,
    Keras, the backend and the device; 32 hex digits. What matters only while it learns is left out."""
    inner = submodel(model, "features", lambda: pooled(model))
    made_by = (keras.__version__, keras.backend.backend(), keras.distribution.list_devices())
    layers = _lasting(json.loads(inner.to_json())["config"]["layers"])
    digest = xxhash.xxh3_128(json.dumps([made_by, layers], sort_keys=True).encode())
    for weight in inner.weights:
        digest.update(np.ascontiguousarray(keras.ops.convert_to_numpy(weight)).data)
    return digest.hexdigest()


_LEARNING = ("trainable", "rate", "seed", "build_config")  # and initializers


def _lasting(config: Any) -> Any:
    if isinstance(config, dict):
        kept = {key: value for key, value in config.items() if key not in _LEARNING and "initializer" not in key}
        return {key: _lasting(value) for key, value in kept.items()}
    return [_lasting(each) for each in config] if isinstance(config, list) else config


def _hash(image: np.ndarray) -> bytes:
    """Of an image's pixels; those of a float image of whole numbers are those of uint8."""
    whole = image.astype(np.uint8)
    pixels = whole if image.dtype == np.uint8 or np.array_equal(whole, image) else image
    return xxhash.xxh3_128(np.ascontiguousarray(pixels).data, seed=pixels.itemsize).digest()


def _read(path: Path, kind: np.dtype) -> np.ndarray:
    """The rows of a file; none where it is gone, and where it is damaged, after which it is gone."""
    try:
        content = path.read_bytes()
    except OSError:
        return np.empty(0, kind)
    if xxhash.xxh3_128_hexdigest(content) == path.stem:
        return np.frombuffer(content, kind)
    with suppress(OSError):
        path.unlink()
    return np.empty(0, kind)


def _write(block: np.ndarray, folder: Path) -> None:
    """Keep a block, and make room for it; on a full disk it is not kept."""
    content = block.tobytes()
    with suppress(OSError):
        with store.replacing(folder / f"{xxhash.xxh3_128_hexdigest(content)}.features") as partial:
            partial.write_bytes(content)
        files = [(path.stat(), path) for path in folder.parent.glob("*/*.features")]
        taken = sum(stat.st_size for stat, _ in files)
        for stat, path in sorted(files, key=lambda file: file[0].st_mtime_ns):
            if taken <= ROOM:
                return
            path.unlink(missing_ok=True)
            taken -= stat.st_size
