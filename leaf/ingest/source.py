"""The common interface of data sets, which are read as streams, and image files, decoded on all cores."""

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
    """A value cannot be stored as uint8; the images must be read again as float32."""


@dataclass(frozen=True)
class Rows:
    """Per-image metadata available before decoding, in data set order."""

    source: list[str]
    name: Sequence[str | int]  # class name; an int is a label
    group: list[str]
    split: list[str]
    more: dict[str, list[str]] = field(default_factory=dict)  # additional columns


@dataclass(frozen=True)
class Block:
    """A batch of n images.

    Attributes:
        places: rows of the images, int (n,).
        images: uint8 or float32 (n, S, S, 3).
        hashes: hash of each image as the data set stores it.
        sizes: width and height as stored, int (n, 2).
        frames: whether the file has several frames; this is the first.
    """

    places: np.ndarray
    images: np.ndarray
    hashes: list[str]
    sizes: np.ndarray
    frames: list[bool]


class Source:
    """A data set that is read as a stream.

    Attributes:
        rows: its images.
        left_out: files excluded before decoding, with the reason.
        unlabelled: the excluded files without a label.
        unreadable: files that could not be decoded, with the reason.
        notes: one-line messages for the user.
    """

    def __init__(self, rows: Rows) -> None:
        self.rows = rows
        self.left_out: dict[str, str] = {}
        self.unlabelled: list[str] = []
        self.unreadable: dict[str, str] = {}
        self.notes: list[str] = []

    def blocks(self, places: np.ndarray, size: int, fit: Fit, as_uint8: bool) -> Iterator[Block]:
        """Yield the images in rows `places`, in order, as uint8 if `as_uint8`, otherwise as float32.

        Raises:
            FractionalError: if uint8 would lose a fraction.
        """
        raise NotImplementedError


Item = TypeVar("Item")
Result = TypeVar("Result")

AHEAD = 128  # maximum items in progress, or finished but not yet consumed
_CHUNK = 16  # items per task: submitting a task costs as much as decoding a small file


def in_order(
    work: Callable[[Sequence[Item]], Sequence[Result]], items: Sequence[Item], threads: int
) -> Iterator[tuple[int, Result]]:
    """Yield (position, result) for all items in order; threads call `work` on chunks of items.

    At most `AHEAD` results are in progress or waiting.
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
    """Image files, one per row of `rows`. `path` returns the path of a file of `rows`."""

    def __init__(self, rows: Rows, path: Callable[[str], Path], skip_unreadable: bool) -> None:
        super().__init__(rows)
        self.path = path
        self.skip_unreadable = skip_unreadable
        self.cache = DecodeCache(None, {})

    def blocks(self, places: np.ndarray, size: int, fit: Fit, as_uint8: bool) -> Iterator[Block]:
        """Decode the files `places` on all cores; see `Source.blocks`.

        Files that cannot be read are added to `unreadable`; they raise LeafError unless `skip_unreadable`.
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
                raise LeafError(f"{path}: cannot be read ({image}). Repair it, or set `unreadable: skip`.")
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
    """Return image numbers unchanged, and names of files in data/references as (name, pixels (size, size, 3))."""
    references: list[int | tuple[str, np.ndarray]] = []
    for each in named:
        if isinstance(each, int):
            references.append(each)
            continue
        path = REFERENCES / each
        if not path.resolve().is_relative_to(REFERENCES.resolve()) or not path.is_file():
            valid = ", ".join(sorted(file.name for file in REFERENCES.glob("[!.]*"))) or "none"
            raise LeafError(f"references: {path}: no such file in {REFERENCES}. Its files: {valid}.")
        try:
            references.append((each, read_image(read_file(path), size, fit).pixels))
        except UnreadableError as error:
            raise LeafError(f"references: {path}: {error}. Use an image file.") from None
    return references
