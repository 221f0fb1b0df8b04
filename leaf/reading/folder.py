"""A folder of image files as a data set: what its folders and tables say, and its files decoded on all cores."""

import io
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from leaf.errors import LeafError
from leaf.reading.decode import UnreadableError, decode
from leaf.reading.earlier import Earlier
from leaf.reading.layout import lay_out
from leaf.reading.listing import list_folder
from leaf.reading.source import Block, Rows, cores, hashed, in_order
from leaf.reading.tables import KEPT

BLOCK = 64  # images handed on at a time


class FolderSource:
    """The images of one folder, sorted by path. Raises LeafError where it is not laid out as a data set."""

    def __init__(
        self,
        root: Path,
        skip_unreadable: bool,
        labels: Path | None = None,
        group_by: Literal["none", "folder"] = "none",
        known: Collection[str] = (),
    ) -> None:
        """List the files and what is known of them, see `leaf.reading.layout.lay_out`; `blocks` decodes them."""
        self.root = root
        self.skip_unreadable = skip_unreadable
        self.unreadable: dict[str, str] = {}
        self.earlier = Earlier(None, {})  # what need not be decoded anew
        listing = list_folder(root)
        layout = lay_out(root, listing, labels, group_by, known)
        self.left_out = layout.left_out
        if self.left_out and not skip_unreadable:
            file, why = next(iter(self.left_out.items()))
            raise LeafError(f"{root}: {file!r}: {why}; mend it, or set `unreadable` to skip")
        self.notes = [*layout.notes, *listing.notes()]
        entries = layout.entries
        self.rows = Rows(
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

    def blocks(self, places: np.ndarray, size: int, as_uint8: bool) -> Iterator[Block]:
        """Decode the files `places` on all cores; give the readable ones in order, uint8 if `as_uint8`, else float32.

        Files that cannot be read are noted in `unreadable`, or raise LeafError if they are to be refused.
        """
        dtype = np.uint8 if as_uint8 else np.float32
        files = [self.rows.source[place] for place in places]
        ready: list[tuple[int, np.ndarray, str]] = []
        for number, (image, digest) in in_order(lambda part: self._decode(part, size), files, cores()):
            if isinstance(image, str):
                self._refuse_or_note(files[number], image)
                continue
            ready.append((int(places[number]), image, digest))
            if len(ready) == BLOCK:
                yield _block(ready, dtype)
                ready = []
        if ready:
            yield _block(ready, dtype)

    def _decode(self, files: Sequence[str], size: int) -> list[tuple[np.ndarray | str, str]]:
        """Each file's image, or why there is none, and the hash of its bytes."""
        images: list[tuple[np.ndarray | str, str]] = []
        for file in files:
            try:
                data = (self.root / file).read_bytes()
                digest = hashed(data)
                image = self.earlier.pixels(digest)
                images.append((decode(io.BytesIO(data), size) if image is None else image, digest))
            except (UnreadableError, OSError) as why:
                images.append((str(why), ""))
        return images

    def _refuse_or_note(self, file: str, why: str) -> None:
        if not self.skip_unreadable:
            raise LeafError(f"{self.root / file}: cannot be read ({why}); mend it, or set `unreadable` to skip")
        self.unreadable[file] = why


def _block(ready: Sequence[tuple[int, np.ndarray, str]], dtype: type) -> Block:
    places, images, hashes = zip(*ready, strict=True)
    return Block(np.array(places), np.stack(images).astype(dtype, copy=False), list(hashes))
