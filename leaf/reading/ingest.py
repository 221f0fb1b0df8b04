"""Ingest: stream a data set once, write its images as one array and give a table about them."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import numpy as np
import pandas as pd

from leaf.errors import LeafError
from leaf.reading.folder import FolderSource
from leaf.reading.npz import NpzSource
from leaf.reading.quality import flags
from leaf.reading.source import FractionalError, Source
from leaf.store import replacing


@dataclass
class ArrayFile:
    """An array on disk that grows by its first axis."""

    file: BinaryIO
    item: tuple[int, ...]
    dtype: np.dtype
    count: int = 0

    def append(self, block: np.ndarray) -> None:
        """Write more items, (n, *item) of the array's dtype."""
        if block.dtype != self.dtype or block.shape[1:] != self.item:
            raise ValueError(f"{block.dtype} {block.shape} into {self.dtype} {self.item}")
        self.file.write(np.ascontiguousarray(block).data)
        self.count += len(block)

    def write_header(self, count: int) -> None:
        """Write the header of `count` items at the file's start. Its length is the same for any count."""
        self.file.seek(0)
        header = {"descr": self.dtype.str, "fortran_order": False, "shape": (count, *self.item)}
        np.lib.format.write_array_header_1_0(self.file, header)


@contextmanager
def growing_array(path: str | Path, item: tuple[int, ...], dtype: np.dtype) -> Iterator[ArrayFile]:
    """Give an ArrayFile whose items have the shape `item`; `path` appears whole when the block ends, or not at all."""
    with replacing(path) as partial:
        try:
            with partial.open("wb") as file:
                array = ArrayFile(file, item, dtype)
                array.write_header(0)
                yield array
                array.write_header(array.count)
        except OSError as error:
            if error.filename is None:  # a failed write does not name its file
                raise OSError(error.errno, error.strerror, str(path)) from None
            raise


@dataclass(frozen=True)
class Ingested:
    """index: image, source, label, group, split, hash, flags. unreadable: file, reason. notes: what else to say."""

    index: pd.DataFrame
    unreadable: pd.DataFrame
    notes: list[str]
    dtype: np.dtype


class Progress(Protocol):
    """What a progress bar has to do here, as tqdm does."""

    def update(self, n: int) -> Any:
        """Count n more images."""


def ingest(
    dataset: str | Path,
    images_path: str | Path,
    classes: tuple[str, str],
    size: int,
    skip_unreadable: bool = True,
    progress: Progress | None = None,
) -> Ingested:
    """Read the .npz file or folder `dataset` and write its images to `images_path`, (N, size, size, 3) RGB.

    The images are uint8 where that loses nothing, else float32 0..255. A few at a time are in memory, however many
    there are. Raises LeafError for a data set that is not as it should be; then nothing is written.
    """
    dataset = Path(dataset)
    source = FolderSource(dataset, classes, skip_unreadable) if dataset.is_dir() else NpzSource(dataset, classes)
    check = partial(_check_classes, classes=classes, dataset=dataset)
    check(source.rows.label)
    try:
        return _write(source, images_path, size, np.dtype(np.uint8), check, progress)
    except FractionalError:
        return _write(source, images_path, size, np.dtype(np.float32), check, progress)


def _check_classes(labels: np.ndarray, classes: tuple[str, str], dataset: Path) -> None:
    if not len(labels):
        raise LeafError(f"{dataset}: no image in it can be read")
    for number, name in enumerate(classes):
        if not (labels == number).any():
            raise LeafError(f"{dataset}: no image of the class {name}; valid: images of both {' and '.join(classes)}")


def _write(
    source: Source,
    path: str | Path,
    size: int,
    dtype: np.dtype,
    check: Callable[[np.ndarray], None],
    progress: Progress | None,
) -> Ingested:
    source.unreadable.clear()
    places: list[np.ndarray] = []
    hashes: list[str] = []
    marks: list[str] = []
    with growing_array(path, (size, size, 3), dtype) as array:
        for block in source.blocks(size, as_uint8=dtype == np.uint8):
            array.append(block.images)
            places.append(block.places)
            hashes += [blake2b(image.data, digest_size=16).hexdigest() for image in block.images]
            marks += flags(block.images)
            if progress is not None:
                progress.update(len(block.images))
        kept = np.concatenate([np.empty(0, np.intp), *places])
        check(source.rows.label[kept])
    rows = source.rows
    index = pd.DataFrame(
        {
            "image": np.arange(len(kept)),
            "source": [rows.source[place] for place in kept],
            "label": rows.label[kept],
            "group": [rows.group[place] for place in kept],
            "split": [rows.split[place] for place in kept],
            "hash": hashes,
            "flags": marks,
        }
    )
    unreadable = pd.DataFrame({"file": source.unreadable.keys(), "reason": source.unreadable.values()})
    return Ingested(index, unreadable, source.notes, dtype)
