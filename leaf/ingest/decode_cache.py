"""The images of an earlier run, kept aside, so that a data set that grew is not decoded anew.

DVC deletes a stage's outputs before it runs it. One array is kept, that of the last folder, by a hard link where the
disk allows, so that it takes no room while it is also the stage's output. What counts is content: a file by the hash of
its bytes, its pixels by their own hash, and the code that decodes.
"""

import json
import os
import shutil
import uuid
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import PIL

from leaf.ingest.decode import Picture
from leaf.ingest.source import content_hash, pixel_hash
from leaf.store import read_array, read_json, read_table, replacing, write_table

if TYPE_CHECKING:
    import pandas as pd

_POINTER = "ingested.json"
_KEPT = ["file_hash", "hash", "flags", "width", "height"]  # columns of index.csv


class DecodeCache:
    """The images that an earlier run decoded with the same settings; empty where there are none."""

    def __init__(self, folder: Path | None, settings: Mapping[str, Any]) -> None:
        """Look in `folder`; `settings` are what decoding depends on."""
        self._folder = folder
        self._key = _key(settings)
        self._images = np.empty((0, 1, 1, 3), np.uint8)
        self._rows: dict[str, tuple[int, str, str, int, int]] = {}
        if folder is None:
            return
        with suppress(Exception):  # whatever is wrong with what was kept, the files themselves are there
            kept = read_json(folder / _POINTER)
            table = read_table(folder / kept["name"] / "index.csv", text=["hash", "file_hash", "flags"])
            images = read_array(folder / kept["name"] / "images.npy")
            if kept["key"] == self._key and len(images) == len(table):
                self._images = images
                columns = (table[name].tolist() for name in _KEPT[1:])
                rows = zip(range(len(table)), *columns, strict=True)
                self._rows = dict(zip(table["file_hash"], rows, strict=True))

    def picture(self, file_hash: str) -> Picture | None:
        """What the file with this hash gave; None where it is not known, or no longer as it was."""
        if file_hash not in self._rows:
            return None
        row, digest, _, width, height = self._rows[file_hash]
        pixels = np.array(self._images[row])
        if pixel_hash(pixels.data) == digest:
            return Picture(pixels, width, height, frames=False)  # the flags of `described` tell
        del self._rows[file_hash]
        return None

    def described(self, file_hash: str) -> tuple[str, str] | None:
        """The hash of the pixels that `picture` gave, and their flags; None where it gave none."""
        known = self._rows.get(file_hash)
        return known and known[1:3]

    def keep(self, images: Path, index: "pd.DataFrame") -> None:
        """Keep the array of this run in the place of the earlier one; where the disk refuses, keep nothing."""
        if self._folder is None:
            return
        name = f"ingested-{uuid.uuid4().hex}"
        with suppress(OSError):
            (self._folder / name).mkdir(parents=True)
            try:
                os.link(images, self._folder / name / "images.npy")
            except OSError:
                shutil.copyfile(images, self._folder / name / "images.npy")
            write_table(index[_KEPT], self._folder / name / "index.csv")
            with replacing(self._folder / _POINTER) as partial:
                partial.write_text(json.dumps({"name": name, "key": self._key}), encoding="utf-8")
            for other in self._folder.glob("ingested-*"):
                if other.name != name:
                    shutil.rmtree(other, ignore_errors=True)


def _key(settings: Mapping[str, Any]) -> str:
    """What pixels and flags depend on: the settings, our code, and the libraries that decode."""
    code = b"".join(path.read_bytes() for path in sorted(Path(__file__).parent.glob("*.py")))
    return content_hash(json.dumps([settings, cv2.__version__, PIL.__version__], sort_keys=True).encode() + code)
