"""Read a folder of image files as a data set, and decode its files on all cores."""

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Unpack

import numpy as np

from leaf.errors import LeafError
from leaf.ingest.decode import DecodedImage, Fit, UnreadableError
from leaf.ingest.decode_cache import DecodeCache
from leaf.ingest.files import list_folder
from leaf.ingest.label_tables import KEPT
from leaf.ingest.layout import Reading, lay_out
from leaf.ingest.sandbox import read_file, read_image
from leaf.ingest.source import Block, Rows, cores, in_order

BLOCK = 64  # images per batch


class FileSource:
    """Image files below the folder `root`, one for each of `rows`."""

    def __init__(self, root: Path, rows: Rows, skip_unreadable: bool) -> None:
        """Store the arguments; `blocks` reads the files."""
        self.root = root
        self.rows = rows
        self.skip_unreadable = skip_unreadable
        self.left_out: dict[str, str] = {}
        self.unlabelled: list[str] = []
        self.unreadable: dict[str, str] = {}
        self.notes: list[str] = []
        self.earlier = DecodeCache(None, {})  # images that an earlier run decoded

    def path(self, file: str) -> Path:
        """Return the path of a file of `rows`."""
        return self.root / file

    def blocks(self, places: np.ndarray, size: int, fit: Fit, as_uint8: bool) -> Iterator[Block]:
        """Decode the files `places` on all cores and yield them in order, as uint8 if `as_uint8`, else float32.

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
        """Return the image of each file, or why it cannot be read, and the hash of its bytes."""
        pictures: list[tuple[DecodedImage | str, str]] = []
        for file in files:
            try:
                pictures.append(self.earlier.read(self.path(file), lambda data: read_image(data, size, fit)))
            except UnreadableError as why:
                pictures.append((str(why), ""))
        return pictures

    def _refuse_or_note(self, file: str, why: str) -> None:
        if not self.skip_unreadable:
            raise LeafError(f"{self.path(file)}: cannot be read ({why}); repair it, or set `unreadable` to skip")
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
            raise LeafError(f"{root}: {file!r}: {why}; repair it, or set `unreadable` to skip")
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
    """Return image numbers unchanged, and names of files in `folder` with their pixels, (size, size, 3)."""
    return [each if isinstance(each, int) else (each, _picture(each, size, fit, folder)) for each in named]


def _picture(name: str, size: int, fit: Fit, folder: Path) -> np.ndarray:
    path = folder / name
    if not path.resolve().is_relative_to(folder.resolve()) or not path.is_file():
        valid = ", ".join(sorted(each.name for each in folder.glob("[!.]*"))) or "none is there yet"
        raise LeafError(f"references: {path}: no such file in {folder}; valid: {valid}")
    try:
        return read_image(read_file(path), size, fit).pixels
    except UnreadableError as error:
        raise LeafError(f"references: {path}: {error}; valid: an image file") from None
