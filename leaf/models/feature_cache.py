"""Cache of features from frozen backbones, shared by all projects on this machine. Reading it needs no Keras.

`leaf.store.cache_folder` has one folder per backbone and weights, with files of up to 512 images. Each file is named
after the hash of its content, so damaged files are detected, deleted and recomputed.
"""

import json
from collections import defaultdict
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xxhash

from leaf import store

if TYPE_CHECKING:
    import keras

LIMIT = 4 * 2**30  # bytes in the whole cache; above this, the least recently used files are deleted
_BLOCK = 512  # images per file
_BATCH = 64  # constant batch size, so that features do not depend on what is cached


def frozen_features(
    images: np.ndarray, rows: np.ndarray, backbone: str, weights: str, weights_sha256: str
) -> np.ndarray:
    """Return the features of `rows` of `images` from a frozen backbone; see `build_model` and `cached_features`."""
    from leaf.models.build import build_model

    model = build_model(backbone, images.shape[1], weights=weights, weights_sha256=weights_sha256)
    return cached_features(model, images, rows)


def cached_features(model: "keras.Model", images: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Return the pooled features, float32 (len(rows), D), of `rows` of `images`; compute only those not cached.

    Args:
        model: from `build_model` or `load_model`. The cache key ignores the head (`backbone_key`).
        images: (N, H, W, 3), uint8 or float, 0..255. Rows of a memory map are read one at a time.
        rows: int64 (M,), in any order.
    """
    from leaf.models import prediction

    inner = prediction.submodel(model, "features", lambda: prediction.pooled(model))
    predict = partial(prediction.predict_padded, inner, size=_BATCH)
    return cached(backbone_key(model), inner.output_shape[-1], images, rows, predict)


def cached(
    key: str, width: int, images: np.ndarray, rows: np.ndarray, predict: Callable[[np.ndarray], np.ndarray]
) -> np.ndarray:
    """Return features, float32 (len(rows), `width`), for `rows` of `images`; compute only those not in the cache.

    `key` identifies the model. `predict` maps up to 64 images, float32 (N, H, W, 3), to features.
    """
    found, missing = _lookup(key, width, images, rows)
    unknown = list(missing)
    for start in range(0, len(unknown), _BLOCK):
        block = np.empty(len(unknown[start : start + _BLOCK]), _kind(width))
        block["image"] = np.array(unknown[start : start + _BLOCK], "V16")
        for first in range(0, len(block), _BATCH):
            names = unknown[start + first : start + min(first + _BATCH, len(block))]
            batch = np.stack([images[rows[missing[name][0]]] for name in names]).astype(np.float32)
            block["features"][first : first + _BATCH] = predict(batch)
        for name, features in zip(unknown[start:], block["features"], strict=False):
            found[missing[name]] = features
        _write(block, store.cache_folder("features") / key)
    return found


class NotCachedError(Exception):
    """Raised if an image's features are not in the cache."""


def stored_features(key: str, width: int, images: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Return the cached features, float32 (len(rows), `width`), for `rows` of `images`.

    `key` is the `backbone_key`.

    Raises:
        NotCachedError: if an image's features are not in the cache.
    """
    found, missing = _lookup(key, width, images, rows)
    if missing:
        raise NotCachedError
    return found


def _kind(width: int) -> np.dtype:
    return np.dtype([("image", "V16"), ("features", "<f4", (width,))])


def _lookup(key: str, width: int, images: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, dict[bytes, list[int]]]:
    """Return features (len(rows), `width`) and the positions of missing ones by image hash."""
    found = np.empty((len(rows), width), np.float32)
    missing: dict[bytes, list[int]] = defaultdict(list)
    for place, row in enumerate(rows):
        missing[_hash(images[row])].append(place)
    for path in sorted((store.cache_folder("features") / key).glob("*.features")):
        if not missing:
            break
        block = _read(path, _kind(width))
        hits = [number for number, name in enumerate(block["image"].tolist()) if name in missing]
        for number in hits:
            found[missing.pop(block["image"][number].tobytes(), [])] = block["features"][number]
        if hits:
            with suppress(OSError):
                path.touch()
    return found, missing


def head_on_features(model: "keras.Model") -> "keras.Model | None":
    """Return the head of `model`, from features (N, D) to logits, sharing its variables.

    Return None if the backbone has active dropout, because its features then vary between steps even when frozen.
    """
    import keras

    from leaf.models.prediction import pooled, submodel

    inner = submodel(model, "features", lambda: pooled(model))
    if any(isinstance(each, keras.layers.Dropout) and each.rate for each in inner.operations):
        return None
    return keras.Model(pooled(model), model.output)


def backbone_key(model: "keras.Model") -> str:
    """Return a hash (32 hex digits) of the backbone's operations and weights, the Keras version, backend and device.

    Settings that affect only training are ignored.
    """
    import keras

    from leaf.models.prediction import pooled, submodel

    inner = submodel(model, "features", lambda: pooled(model))
    made_by = (keras.__version__, keras.backend.backend(), keras.distribution.list_devices())
    layers = _without_training_keys(json.loads(inner.to_json())["config"]["layers"])
    digest = xxhash.xxh3_128(json.dumps([made_by, layers], sort_keys=True).encode())
    for weight in inner.weights:
        digest.update(np.ascontiguousarray(keras.ops.convert_to_numpy(weight)).data)
    return digest.hexdigest()


_TRAINING_KEYS = ("trainable", "rate", "seed", "build_config")


def _without_training_keys(config: Any) -> Any:
    if isinstance(config, dict):
        kept = {key: value for key, value in config.items() if key not in _TRAINING_KEYS and "initializer" not in key}
        return {key: _without_training_keys(value) for key, value in kept.items()}
    return [_without_training_keys(each) for each in config] if isinstance(config, list) else config


def _hash(image: np.ndarray) -> bytes:
    """Hash an image's pixels; a float image with integer values has the same hash as its uint8 copy."""
    whole = image.astype(np.uint8)
    pixels = whole if image.dtype == np.uint8 or np.array_equal(whole, image) else image
    return xxhash.xxh3_128(np.ascontiguousarray(pixels).data, seed=pixels.itemsize).digest()


_verified: set[tuple[str, int, int]] = set()  # name, inode and size of files whose hash this process has checked


def _read(path: Path, kind: np.dtype) -> np.ndarray:
    """Memory-map a file's rows; return no rows if it is missing, and delete it if damaged. Hash each file only once."""
    try:
        stat = path.stat()
        if (known := (path.name, stat.st_ino, stat.st_size)) in _verified:
            return np.memmap(path, kind, "r")
        content = path.read_bytes()
    except (OSError, ValueError):
        return np.empty(0, kind)
    if xxhash.xxh3_128_hexdigest(content) == path.stem:
        _verified.add(known)
        return np.frombuffer(content, kind)
    with suppress(OSError):
        path.unlink()
    return np.empty(0, kind)


def _write(block: np.ndarray, folder: Path) -> None:
    """Write a block and enforce the limit; skip the write if the disk is full."""
    content = block.tobytes()
    with suppress(OSError), store.replacing(folder / f"{xxhash.xxh3_128_hexdigest(content)}.features") as partial:
        partial.write_bytes(content)
    enforce_limit()


def enforce_limit() -> None:
    """Delete the least recently used files until the cache fits within `LIMIT`."""
    with suppress(OSError):
        files = [(path.stat(), path) for path in store.cache_folder("features").glob("*/*")]
        used = sum(stat.st_size for stat, _ in files)
        for stat, path in sorted(files, key=lambda file: file[0].st_mtime_ns):
            if used <= LIMIT:
                return
            path.unlink(missing_ok=True)
            used -= stat.st_size
