"""Cache features of frozen backbones for all projects on this machine. Reading the cache does not require Keras.

The cache has one folder per combination of backbone and weights. Each file contains the features of up to 512 images
and is named after the hash of its content, so damaged files are detected, deleted and recomputed.
"""

from collections import defaultdict
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import xxhash

from leaf import store

LIMIT = 4 * 2**30  # maximum total size in bytes; above this, the least recently used files are deleted
BATCH = 64  # images per batch; constant, so that features do not depend on what is cached
_BLOCK = 512  # images per file


class NotCachedError(Exception):
    """Raised if the features of an image are not cached."""


def cached(
    key: str, width: int, images: np.ndarray, rows: np.ndarray, predict: Callable[[np.ndarray], np.ndarray]
) -> np.ndarray:
    """Return the features of `rows` of `images`, float32 (len(rows), `width`); compute only those not cached.

    Args:
        key: identifier of the model.
        width: number of features.
        images: (N, H, W, 3), uint8 or float, 0..255. Rows of a memory map are read one at a time.
        rows: int64 (M,), in any order.
        predict: maps up to `BATCH` images, float32 (N, H, W, 3), to features.
    """
    found, missing = _lookup(key, width, images, rows)
    unknown = list(missing)
    for start in range(0, len(unknown), _BLOCK):
        names = unknown[start : start + _BLOCK]
        block = np.empty(len(names), _row_dtype(width))
        block["image"] = np.array(names, "V16")
        for first in range(0, len(names), BATCH):
            batch = [images[rows[missing[name][0]]] for name in names[first : first + BATCH]]
            block["features"][first : first + BATCH] = predict(np.stack(batch).astype(np.float32))
        for name, features in zip(names, block["features"], strict=True):
            found[missing[name]] = features
        content = block.tobytes()
        file = store.cache_folder("features") / key / f"{xxhash.xxh3_128_hexdigest(content)}.features"
        with suppress(OSError), store.replacing(file) as partial:  # ignore errors such as a full disk
            partial.write_bytes(content)
        enforce_limit()
    return found


def stored_features(key: str, width: int, images: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Return the cached features of `rows` of `images` (see `cached`); raise NotCachedError if any is missing."""
    found, missing = _lookup(key, width, images, rows)
    if missing:
        raise NotCachedError
    return found


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


def _row_dtype(width: int) -> np.dtype:
    return np.dtype([("image", "V16"), ("features", "<f4", (width,))])


def _lookup(key: str, width: int, images: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, dict[bytes, list[int]]]:
    """Return the features (len(rows), `width`) and a dict from image hashes to the uncached positions in `rows`."""
    found = np.empty((len(rows), width), np.float32)
    missing: dict[bytes, list[int]] = defaultdict(list)
    for place, row in enumerate(rows):
        missing[_hash(images[row])].append(place)
    for path in sorted((store.cache_folder("features") / key).glob("*.features")):
        if not missing:
            break
        block = _read(path, _row_dtype(width))
        hits = [number for number, name in enumerate(block["image"].tolist()) if name in missing]
        for number in hits:
            found[missing.pop(block["image"][number].tobytes(), [])] = block["features"][number]
        if hits:
            with suppress(OSError):
                path.touch()
    return found, missing


def _hash(image: np.ndarray) -> bytes:
    """Return a hash of an image's pixels; a float image with integer values has the same hash as its uint8 copy."""
    whole = image.astype(np.uint8)
    pixels = whole if image.dtype == np.uint8 or np.array_equal(whole, image) else image
    return xxhash.xxh3_128(np.ascontiguousarray(pixels).data, seed=pixels.itemsize).digest()


_verified: set[tuple[str, int, int]] = set()  # name, inode and size of files whose hash this process has checked


def _read(path: Path, dtype: np.dtype) -> np.ndarray:
    """Return the rows of a file, or an empty array if it is missing or damaged.

    The hash of a file is verified once per process, and a damaged file is deleted.
    """
    try:
        stat = path.stat()
        if (known := (path.name, stat.st_ino, stat.st_size)) in _verified:
            return np.memmap(path, dtype, "r")
        content = path.read_bytes()
    except (OSError, ValueError):
        return np.empty(0, dtype)
    if xxhash.xxh3_128_hexdigest(content) == path.stem:
        _verified.add(known)
        return np.frombuffer(content, dtype)
    with suppress(OSError):
        path.unlink()
    return np.empty(0, dtype)
