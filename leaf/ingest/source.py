"""The base class of data sets that are read as streams, and a data set of files that are decoded on all cores."""

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from leaf.errors import LeafError
from leaf.ingest.decode import DecodedImage, Fit, UnreadableError
from leaf.ingest.decode_cache import DecodeCache
from leaf.ingest.sandbox import cores, read_file, read_image

if TYPE_CHECKING:
    import pandas as pd

REFERENCES = Path("data/references")


class FractionalError(Exception):
    """Raised if a value cannot be stored as uint8, so the images must be read again as float32."""


class Source(ABC):
    """A data set that is read as a stream.

    `rows` describes each image, in data set order. Its columns are source, name (the class name, or the label as an
    integer), group, split and any additional columns. `survey` adds the column label, which is -1 for excluded images.
    """

    def __init__(self, rows: "pd.DataFrame") -> None:
        self.rows = rows
        self.cache = DecodeCache(None, {})
        self.dtype: np.dtype = np.dtype(np.uint8)  # of the stored images
        self.left_out: dict[str, str] = {}  # files excluded before decoding, and the reason
        self.unlabelled: list[str] = []  # excluded files without a label
        self.unreadable: dict[str, str] = {}  # files that could not be decoded, and the reason
        self.notes: list[str] = []  # one-line messages for the user

    @abstractmethod
    def images(self, places: np.ndarray, size: int, fit: Fit) -> Iterator[tuple[int, DecodedImage, str]]:
        """Yield the row, the image and the hash (of the file, or of the array in an .npz) for rows `places`, in order.

        Raises:
            FractionalError: if `dtype` is uint8 and a value cannot be stored as uint8.
        """


Item = TypeVar("Item")
Result = TypeVar("Result")

AHEAD = 128
_CHUNK = 16  # items per task; submitting a task takes as long as decoding a small file


def in_order(
    work: Callable[[Sequence[Item]], Sequence[Result]], items: Sequence[Item], threads: int
) -> Iterator[Result]:
    """Call `work` on chunks of the items in threads, and yield the results of all items in order.

    At most about `AHEAD` items are in progress, or finished but not yet consumed.
    """
    with ThreadPoolExecutor(threads, "ahead") as pool:
        waiting: deque[Future[Sequence[Result]]] = deque()
        try:
            for start in range(0, len(items), _CHUNK):
                waiting.append(pool.submit(work, items[start : start + _CHUNK]))
                if len(waiting) > AHEAD // _CHUNK:
                    yield from waiting.popleft().result()
            while waiting:
                yield from waiting.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)


class FileSource(Source):
    """A data set with one image file per row of `rows`; `path` maps a file name to its path."""

    def __init__(self, rows: "pd.DataFrame", path: Callable[[str], Path], skip_unreadable: bool) -> None:
        super().__init__(rows)
        self.path = path
        self.skip_unreadable = skip_unreadable

    def images(self, places: np.ndarray, size: int, fit: Fit) -> Iterator[tuple[int, DecodedImage, str]]:
        """Decode the files on all cores; see `Source.images`.

        A file that cannot be read is added to `unreadable` or, without `skip_unreadable`, raises LeafError.
        """
        files = self.rows["source"].iloc[places].tolist()
        decoded = in_order(lambda part: self._decode(part, size, fit), files, cores())
        for place, file, (image, file_hash) in zip(places.tolist(), files, decoded, strict=True):
            if isinstance(image, DecodedImage):
                yield place, image, file_hash
            elif self.skip_unreadable:
                self.unreadable[file] = image
            else:
                raise LeafError(f"{self.path(file)}: cannot be read ({image}). Replace it, or set `unreadable: skip`.")

    def _decode(self, files: Sequence[str], size: int, fit: Fit) -> list[tuple[DecodedImage | str, str]]:
        """Return, for each file, its image or the reason why it cannot be read, and the hash of its bytes."""
        images: list[tuple[DecodedImage | str, str]] = []
        for file in files:
            try:
                images.append(self.cache.read(self.path(file), lambda data: read_image(data, size, fit)))
            except UnreadableError as why:
                images.append((str(why), ""))
        return images


def read_references(named: Sequence[int | str], size: int, fit: Fit) -> list[int | tuple[str, np.ndarray]]:
    """Keep image numbers, and replace each name of a file in data/references with (name, pixels (size, size, 3))."""
    references: list[int | tuple[str, np.ndarray]] = []
    for each in named:
        if isinstance(each, int):
            references.append(each)
            continue
        path = REFERENCES / each
        if not path.resolve().is_relative_to(REFERENCES.resolve()) or not path.is_file():
            valid = ", ".join(sorted(file.name for file in REFERENCES.glob("[!.]*"))) or "none"
            raise LeafError(f"references: {path}: no such file in {REFERENCES}. Available files: {valid}.")
        try:
            references.append((each, read_image(read_file(path), size, fit).pixels))
        except UnreadableError as error:
            raise LeafError(f"references: {path}: {error}. Use an image file.") from None
    return references
