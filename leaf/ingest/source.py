"""The common interface of data sets, which are read as streams, and folders of image files, decoded on all cores."""

from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, TypeVar, Unpack

import numpy as np

from leaf.errors import LeafError
from leaf.ingest.decode import DecodedImage, Fit, UnreadableError
from leaf.ingest.decode_cache import DecodeCache
from leaf.ingest.files import list_folder
from leaf.ingest.label_tables import KEPT
from leaf.ingest.layout import Reading, lay_out
from leaf.ingest.sandbox import cores, read_file, read_image


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


class Source(Protocol):
    """A data set that is read as a stream.

    `left_out` maps each file excluded before decoding to the reason, and `unlabelled` lists the excluded files without
    a label. `unreadable` is filled while decoding.
    """

    rows: Rows
    left_out: dict[str, str]
    unlabelled: list[str]
    unreadable: dict[str, str]
    notes: list[str]

    def blocks(self, places: np.ndarray, size: int, fit: Fit, as_uint8: bool) -> Iterator[Block]:
        """Yield the images in rows `places`, in order, as uint8 if `as_uint8`, otherwise as float32.

        Raises:
            FractionalError: if uint8 would lose a fraction.
        """
        ...


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


class FileSource:
    """Image files below the folder `root`, one per row of `rows`."""

    def __init__(self, root: Path, rows: Rows, skip_unreadable: bool) -> None:
        """Store the arguments. `blocks` reads the files."""
        self.root = root
        self.rows = rows
        self.skip_unreadable = skip_unreadable
        self.left_out: dict[str, str] = {}
        self.unlabelled: list[str] = []
        self.unreadable: dict[str, str] = {}
        self.notes: list[str] = []
        self.earlier = DecodeCache(None, {})  # images decoded by an earlier run

    def path(self, file: str) -> Path:
        """Return the path of a file of `rows`."""
        return self.root / file

    def blocks(self, places: np.ndarray, size: int, fit: Fit, as_uint8: bool) -> Iterator[Block]:
        """Decode the files `places` on all cores and yield them in order: uint8 if `as_uint8`, otherwise float32.

        Files that cannot be read are added to `unreadable`; they raise LeafError unless `skip_unreadable`.
        """
        dtype = np.uint8 if as_uint8 else np.float32
        files = [self.rows.source[place] for place in places]
        ready: list[tuple[int, DecodedImage, str]] = []
        for number, (picture, digest) in in_order(lambda part: self._decode(part, size, fit), files, cores()):
            if isinstance(picture, str):
                self._refuse_or_note(files[number], picture)
                continue
            ready.append((int(places[number]), picture, digest))
            if len(ready) == BLOCK:
                yield _block(ready, dtype)
                ready = []
        if ready:
            yield _block(ready, dtype)

    def _decode(self, files: Sequence[str], size: int, fit: Fit) -> list[tuple[DecodedImage | str, str]]:
        """Return, for each file, its image or the reason why it cannot be read, and the hash of its bytes."""
        pictures: list[tuple[DecodedImage | str, str]] = []
        for file in files:
            try:
                pictures.append(self.earlier.read(self.path(file), lambda data: read_image(data, size, fit)))
            except UnreadableError as why:
                pictures.append((str(why), ""))
        return pictures

    def _refuse_or_note(self, file: str, why: str) -> None:
        if not self.skip_unreadable:
            raise LeafError(f"{self.path(file)}: cannot be read ({why}). Repair it, or set `unreadable: skip`.")
        self.unreadable[file] = why


class FolderSource(FileSource):
    """The images of one folder, sorted by path. Raises LeafError if the folder is not a data set."""

    def __init__(
        self, root: Path, skip_unreadable: bool, known: Collection[str] = (), **reading: Unpack[Reading]
    ) -> None:
        """List the files and join them with folders and tables; see `leaf.ingest.layout.lay_out`."""
        listing = list_folder(root, reading.get("links", "refuse"))
        layout = lay_out(root, listing, known, **reading)
        entries = layout.entries
        rows = Rows(
            [entry.file for entry in entries],
            [entry.name for entry in entries],
            [entry.group for entry in entries],
            [entry.split for entry in entries],
            {
                key: [entry.more.get(key, "") for entry in entries]
                for key in KEPT
                if any(key in entry.more for entry in entries)
            },
        )
        super().__init__(root, rows, skip_unreadable)
        self.left_out, self.unlabelled = layout.left_out, layout.unlabelled
        if self.left_out and not skip_unreadable:
            file, why = next(iter(self.left_out.items()))
            raise LeafError(f"{root}: {file!r}: {why}. Repair it, or set `unreadable: skip`.")
        self.notes = [*layout.notes, *listing.notes()]


def _block(ready: Sequence[tuple[int, DecodedImage, str]], dtype: type) -> Block:
    places, pictures, hashes = zip(*ready, strict=True)
    images = np.stack([picture.pixels for picture in pictures])
    sizes = np.array([(picture.width, picture.height) for picture in pictures])
    frames = [picture.frames for picture in pictures]
    return Block(np.array(places), images.astype(dtype, copy=False), list(hashes), sizes, frames)


REFERENCES = Path("data/references")


def read_references(
    named: Sequence[int | str], size: int, fit: Fit = "crop", folder: Path = REFERENCES
) -> list[int | tuple[str, np.ndarray]]:
    """Return image numbers unchanged, and file names as (name, pixels (size, size, 3)) read from `folder`."""
    return [each if isinstance(each, int) else (each, _picture(each, size, fit, folder)) for each in named]


def _picture(name: str, size: int, fit: Fit, folder: Path) -> np.ndarray:
    path = folder / name
    if not path.resolve().is_relative_to(folder.resolve()) or not path.is_file():
        valid = ", ".join(sorted(each.name for each in folder.glob("[!.]*"))) or "none"
        raise LeafError(f"references: {path}: no such file in {folder}; valid: {valid}")
    try:
        return read_image(read_file(path), size, fit).pixels
    except UnreadableError as error:
        raise LeafError(f"references: {path}: {error}. Use an image file.") from None
