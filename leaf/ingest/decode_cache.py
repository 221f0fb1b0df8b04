"""Cache decoded images between runs, so that only new and changed images of a data set are decoded.

DVC deletes the outputs of a stage before running it, so the cache keeps the image array of the last run. If the file
system supports hard links, this takes no extra space. A cached image is used if the hash of the file's bytes, the hash
of the pixels, and the decoding settings and code are unchanged. Files with unchanged size, timestamps and inode are not
read again.
"""

import json
import os
import shutil
import time
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import PIL
from xxhash import xxh3_128_hexdigest

from leaf.ingest.decode import DecodedImage
from leaf.ingest.sandbox import read_file
from leaf.store import read_array, read_json, read_table, write_json, write_table

if TYPE_CHECKING:
    import pandas as pd

_POINTER = "ingested.json"
_SEEN = ["path", "state", "file_hash"]
_RECENT = 2 * 10**9  # nanoseconds; some file systems round times to two seconds


class DecodeCache:
    """Cache of the images decoded by an earlier run with the same settings."""

    def __init__(self, folder: Path | None, settings: Mapping[str, Any]) -> None:
        """Load the cache from `folder` if it was written with the same decoding `settings`."""
        self._folder = folder
        self._rows: dict[str, Any] = {}  # the row of index.csv for each file hash
        self._known: dict[tuple[str, str], str] = {}  # (path, state): hash of the file's bytes
        self._seen: list[tuple[str, str, str]] = []  # path, state and hash of the files read in this run
        if folder is None:
            return
        self._key = _key(settings)
        with suppress(Exception):  # a damaged cache is ignored
            kept = read_json(folder / _POINTER)
            table = read_table(folder / kept["name"] / "index.csv", text=["hash", "file_hash", "flags"])
            images = read_array(folder / kept["name"] / "images.npy")
            seen = read_table(folder / kept["name"] / "files.csv", _SEEN, text=_SEEN)
            if kept["key"] == self._key and len(images) == len(table):
                self._known = {(path, state): file_hash for path, state, file_hash in seen[_SEEN].to_numpy().tolist()}
                self._images = images
                rows = table[["hash", "flags", "width", "height"]].itertuples()
                self._rows = dict(zip(table["file_hash"].tolist(), rows, strict=True))

    def read(self, path: Path, decode: Callable[[bytes], DecodedImage]) -> tuple[DecodedImage, str]:
        """Return the image of a file and the hash of its bytes. If the image is not cached, decode it with `decode`.

        Thread-safe. Raises UnreadableError if the file cannot be read as an image.
        """
        state = _state(path) if self._folder else ""
        file_hash = self._known.get((str(path), state), "")
        image = self._image(file_hash)
        if image is None:
            data = read_file(path)
            file_hash = content_hash(data)
            image = self._image(file_hash) or decode(data)
        if state:
            self._seen.append((str(path), state, file_hash))
        return image, file_hash

    def _image(self, file_hash: str) -> DecodedImage | None:
        """Return the cached image of the file with this hash, or None if it is missing or damaged."""
        if (known := self._rows.get(file_hash)) is None:
            return None
        pixels = np.array(self._images[known.Index])
        if pixel_hash(pixels.data) == known.hash:
            # `frames` is not needed: the flags in `described` include first_frame.
            return DecodedImage(pixels, known.width, known.height, frames=False)
        self._rows.pop(file_hash, None)
        return None

    def described(self, file_hash: str) -> tuple[str, str] | None:
        """Return the pixel hash and quality flags of an image, or None if it is not cached."""
        known = self._rows.get(file_hash)
        return known and (known.hash, known.flags)

    def keep(self, images: Path, index: "pd.DataFrame") -> None:
        """Replace the cached images and their index. Its columns are hash, file_hash, flags, width and height.

        File system errors are ignored.
        """
        if self._folder is None:
            return
        import pandas as pd  # slow to import and not needed by `leaf predict`

        name = f"ingested-{uuid.uuid4().hex}"
        with suppress(OSError):
            (self._folder / name).mkdir(parents=True)
            try:
                os.link(images, self._folder / name / "images.npy")
            except OSError:
                shutil.copyfile(images, self._folder / name / "images.npy")
            write_table(index, self._folder / name / "index.csv")
            write_table(pd.DataFrame(self._seen, columns=_SEEN), self._folder / name / "files.csv")
            write_json({"name": name, "key": self._key}, self._folder / _POINTER)
            for other in self._folder.glob("ingested-*"):
                if other.name != name:
                    shutil.rmtree(other, ignore_errors=True)


def _state(path: Path) -> str:
    """Return the size, timestamps and inode of a file, or "" if it changed too recently to rely on its timestamps."""
    with suppress(OSError):
        found = path.stat()
        times = found.st_mtime_ns, found.st_ctime_ns
        if time.time_ns() - max(times) > _RECENT:
            return f"{found.st_size} {times[0]} {times[1]} {found.st_ino}"
    return ""


def _key(settings: Mapping[str, Any]) -> str:
    """Hash everything that determines pixels and flags: settings, code and versions of the decoding libraries."""
    code = b"".join(path.read_bytes() for path in sorted(Path(__file__).parent.glob("*.py")))
    return content_hash(json.dumps([settings, cv2.__version__, PIL.__version__], sort_keys=True).encode() + code)


def content_hash(data: bytes | memoryview) -> str:
    """Return the 128-bit BLAKE2b digest of `data` in hex, which identifies an image file or an .npz array."""
    return blake2b(data, digest_size=16).hexdigest()


def pixel_hash(data: memoryview) -> str:
    """Return the 128-bit XXH3 hash of `data` in hex. It is not cryptographic: collisions can be constructed."""
    return xxh3_128_hexdigest(data)
