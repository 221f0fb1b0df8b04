"""A folder of image files as a data set: class folders, train/validation/test folders, or a metadata.csv.

metadata.csv names the files; it may give each its label (else its class folder does), group and split.
"""

import csv
import io
import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from leaf.errors import LeafError
from leaf.reading.decode import SUFFIXES, UnreadableError, decode
from leaf.reading.source import Block, Rows, cores, hashed, in_order

BLOCK = 64  # images handed on at a time
METADATA = "metadata.csv"
_SPLITS = {
    "train": "train",
    "training": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "test": "test",
}


@dataclass(frozen=True)
class Entry:
    """One image file: its path relative to the data set, its class's name, group and split ("" where not given)."""

    file: str
    name: str
    group: str
    split: str


class FolderSource:
    """The images of one folder, sorted by path. Raises LeafError where it is not laid out as a data set."""

    def __init__(self, root: Path, skip_unreadable: bool) -> None:
        """List the files and what their classes are called; they are decoded by `blocks`."""
        self.root = root
        self.skip_unreadable = skip_unreadable
        self.unreadable: dict[str, str] = {}
        self.notes: list[str] = []
        if os.path.lexists(root / METADATA):
            _check_inside(root, METADATA)
            entries = _read_metadata(root)
            for entry in entries:
                _check_inside(root, entry.file)
            others = sum(1 for _ in _image_files(root, "")) - len(entries)
            if others > 0:
                self.notes.append(f"{others} image files are not in {METADATA} and stay out")
        else:
            entries = _by_folder(root)
        if not entries:
            raise LeafError(f"{root}: no image files; valid: {', '.join(sorted(SUFFIXES))} in a folder per class")
        entries.sort(key=lambda entry: entry.file)
        self.rows = Rows(
            [entry.file for entry in entries],
            [entry.name for entry in entries],
            [entry.group for entry in entries],
            [entry.split for entry in entries],
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
                images.append((decode(io.BytesIO(data), size), hashed(data)))
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


def _by_folder(root: Path) -> list[Entry]:
    """Entries from class folders, or from class folders inside train/validation/test folders."""
    folders = _folders(root, "")
    splits = {folder: _split_name(folder) for folder in folders}
    if folders and all(splits.values()):
        parts = [
            (f"{folder}/{name}", name, split) for folder, split in splits.items() for name in _folders(root, folder)
        ]
    else:
        parts = [(folder, folder, "") for folder in folders]
    return [Entry(file, name, "", split) for folder, name, split in parts for file in _image_files(root, folder)]


def _folders(root: Path, folder: str) -> list[str]:
    """Names of the folders directly in `folder`, sorted; an image file beside them is a mistake worth saying."""
    names = []
    for item in _scan(root, folder):
        if item.is_dir():
            names.append(item.name)
        elif Path(item.name).suffix.lower() in SUFFIXES:
            raise LeafError(f"{root}: the image {item.name!r} lies outside the class folders; move it into one")
    return sorted(names)


def _image_files(root: Path, folder: str) -> Iterator[str]:
    """Paths, relative to `root`, of the image files in `folder` and below."""
    waiting = [folder]
    while waiting:
        folder = waiting.pop()
        for item in _scan(root, folder):
            path = f"{folder}/{item.name}" if folder else item.name
            if item.is_dir():
                waiting.append(path)
            elif Path(item.name).suffix.lower() in SUFFIXES and item.is_file():
                yield path


def _scan(root: Path, folder: str) -> Iterator[os.DirEntry[str]]:
    """The entries of a folder but hidden ones; names and links are checked. A linked folder is never entered."""
    with os.scandir(root / folder) as items:
        for item in items:
            if item.name.startswith(".") or item.name == "__MACOSX":
                continue
            path = f"{folder}/{item.name}" if folder else item.name
            _check_name(root, path)
            if item.is_symlink():
                _check_inside(root, path)
                if item.is_dir():
                    raise LeafError(f"{root}: {path!r} is a link to a folder; valid: real folders")
            yield item


def _check_name(root: Path, path: str) -> None:
    try:
        path.encode("utf-8")
    except UnicodeEncodeError:
        raise LeafError(f"{root}: the name {path!a} is not UTF-8; rename the file") from None
    if "\r" in path:
        raise LeafError(f"{root}: the name {path!r} holds a carriage return; rename the file")


def _check_inside(root: Path, path: str) -> None:
    """Refuse a path that is, or passes through, a link out of the data set's folder."""
    if not (root / path).resolve().is_relative_to(root.resolve()):
        raise LeafError(
            f"{root}: {path!r} leads out of the data set's folder; put the file itself there (DVC: cache.type copy)"
        )


def _split_name(text: str) -> str:
    """`train`, `validation` or `test` for what people call them, "" for anything else."""
    return _SPLITS.get(text.strip().lower(), "")


def _read_metadata(root: Path) -> list[Entry]:
    """Read metadata.csv of the folder `root`. Raises LeafError naming the line of the first mistake."""
    path = root / METADATA
    entries: list[Entry] = []
    seen: set[str] = set()
    for line, row in _metadata_rows(path):
        entry = _entry(root, row, f"{path}: line {line}")
        if entry.file in seen:
            raise LeafError(f"{path}: line {line}: {entry.file!r} stands there twice")
        seen.add(entry.file)
        entries.append(entry)
    return entries


def _metadata_rows(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            names = reader.fieldnames or []
            if "file" not in names:
                found = ", ".join(names) or "none"
                raise LeafError(f"{path}: its columns are {found}; valid: file, and any of label, group, split")
            for row in reader:
                if None in row or None in row.values():
                    raise LeafError(f"{path}: line {reader.line_num}: not {len(names)} fields")
                yield reader.line_num, row
    except (csv.Error, UnicodeDecodeError) as error:
        raise LeafError(f"{path}: not a readable CSV table in UTF-8 ({error})") from None


def _entry(root: Path, row: dict[str, str], where: str) -> Entry:
    name = row["file"]
    pure = PurePosixPath(name)
    if not name or "\0" in name or "\r" in name or pure.is_absolute() or ".." in pure.parts:
        raise LeafError(f"{where}: the file {name!r}; valid: a path inside the data set's folder, without ..")
    try:
        mode = (root / pure).stat().st_mode
    except (OSError, ValueError):
        raise LeafError(f"{where}: {name!r}: no such file in {root}") from None
    if not stat.S_ISREG(mode):
        raise LeafError(f"{where}: {name!r} is no file")
    label = row["label"] if "label" in row else next((part for part in pure.parts[:-1] if not _split_name(part)), "")
    if not label:
        raise LeafError(f"{where}: {name!r} lies in no class folder; valid: a folder per class, or a column `label`")
    given = (row.get("split") or "").strip()
    split = _split_name(given)
    if given and not split:
        raise LeafError(f"{where}: the split {given!r}; valid: train, validation, test, or empty")
    return Entry(str(pure), label, row.get("group") or "", split)
