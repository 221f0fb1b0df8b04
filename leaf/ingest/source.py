"""The base class of data sets, which are read as streams, and a data set of files that are decoded on all cores."""

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import numpy as np

from leaf.errors import LeafError
from leaf.ingest.decode import DecodedImage, Fit, UnreadableError
from leaf.ingest.decode_cache import DecodeCache
from leaf.ingest.sandbox import cores, read_file, read_image

REFERENCES = Path("data/references")


class FractionalError(Exception):
    """Raised if a value cannot be stored as uint8, so the images must be read again as float32."""


@dataclass(frozen=True)
class Rows:
    """Per-image metadata available before decoding, in data set order."""

    source: list[str]
    name: Sequence[str | int]  # class names, or labels as integers
    group: list[str]
    split: list[str]
    more: dict[str, list[str]] = field(default_factory=dict)  # additional columns


@dataclass(frozen=True)
class Block:
    """A batch of n images."""

    places: np.ndarray  # rows of the images, int (n,)
    images: np.ndarray  # uint8 or float32 (n, S, S, 3)
    hashes: list[str]  # hash of each file, or of each array in an .npz
    sizes: np.ndarray  # original width and height, int (n, 2)
    frames: list[bool]  # whether the file has several frames; only the first is read


class Source(ABC):
    """A data set that is read as a stream."""

    def __init__(self, rows: Rows) -> None:
        self.rows = rows
        self.left_out: dict[str, str] = {}  # files excluded before decoding, and the reason
        self.unlabelled: list[str] = []  # excluded files without a label
        self.unreadable: dict[str, str] = {}  # files that could not be decoded, and the reason
        self.notes: list[str] = []  # one-line messages for the user

    @abstractmethod
    def blocks(self, places: np.ndarray, size: int, fit: Fit, as_uint8: bool) -> Iterator[Block]:
        """Yield the images in rows `places`, in order, as uint8 if `as_uint8`, otherwise as float32.

        Raises:
            FractionalError: if a value cannot be stored as uint8.
        """


Item = TypeVar("Item")
Result = TypeVar("Result")

AHEAD = 128
_CHUNK = 16  # items per task; submitting a task takes as long as decoding a small file


def in_order(
    work: Callable[[Sequence[Item]], Sequence[Result]], items: Sequence[Item], threads: int
) -> Iterator[tuple[int, Result]]:
    """Call `work` on chunks of the items in threads, and yield (position, result) for all items in order.

    At most `AHEAD` items are in progress, or finished but not yet consumed.
    """
    chunks = [items[start : start + _CHUNK] for start in range(0, len(items), _CHUNK)]
    ahead = AHEAD // _CHUNK
    with ThreadPoolExecutor(threads, "ahead") as pool:
        waiting: deque[Future[Sequence[Result]]] = deque()
        try:
            for number in range(len(chunks) + ahead):
                if number < len(chunks):
                    waiting.append(pool.submit(work, chunks[number]))
                if number >= ahead and waiting:
                    yield from enumerate(waiting.popleft().result(), (number - ahead) * _CHUNK)
        finally:
            for future in waiting:
                future.cancel()


BLOCK = 64  # images per batch


class FileSource(Source):
    """A data set with one image file per row of `rows`; `path` maps a file name to its path."""

    def __init__(self, rows: Rows, path: Callable[[str], Path], skip_unreadable: bool) -> None:
        super().__init__(rows)
        self.path = path
        self.skip_unreadable = skip_unreadable
        self.cache = DecodeCache(None, {})

    def blocks(self, places: np.ndarray, size: int, fit: Fit, as_uint8: bool) -> Iterator[Block]:
        """Decode the files on all cores; see `Source.blocks`.

        A file that cannot be read is added to `unreadable` or, without `skip_unreadable`, raises LeafError.
        """
        files = [self.rows.source[place] for place in places]
        ready: list[tuple[int, DecodedImage, str]] = []
        for number, (image, file_hash) in in_order(lambda part: self._decode(part, size, fit), files, cores()):
            if isinstance(image, DecodedImage):
                ready.append((int(places[number]), image, file_hash))
            elif self.skip_unreadable:
                self.unreadable[files[number]] = image
            else:
                path = self.path(files[number])
                raise LeafError(f"{path}: cannot be read ({image}). Replace it, or set `unreadable: skip`.")
            if len(ready) == BLOCK:
                yield _block(ready, as_uint8)
                ready = []
        if ready:
            yield _block(ready, as_uint8)

    def _decode(self, files: Sequence[str], size: int, fit: Fit) -> list[tuple[DecodedImage | str, str]]:
        """Return, for each file, its image or the reason why it cannot be read, and the hash of its bytes."""
        images: list[tuple[DecodedImage | str, str]] = []
        for file in files:
            try:
                images.append(self.cache.read(self.path(file), lambda data: read_image(data, size, fit)))
            except UnreadableError as why:
                images.append((str(why), ""))
        return images


def _block(ready: Sequence[tuple[int, DecodedImage, str]], as_uint8: bool) -> Block:
    places, decoded, hashes = zip(*ready, strict=True)
    images = np.stack([image.pixels for image in decoded]).astype(np.uint8 if as_uint8 else np.float32, copy=False)
    sizes = np.array([(image.width, image.height) for image in decoded])
    return Block(np.array(places), images, list(hashes), sizes, [image.frames for image in decoded])


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
