"""A folder of image files as a data set: class folders, train/validation/test folders, or a metadata.csv."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from leaf.errors import LeafError
from leaf.reading.decode import SUFFIXES, UnreadableError, decode
from leaf.reading.metadata import FILE, Entry, read_metadata, split_name
from leaf.reading.source import Block, Rows, cores, in_order

BLOCK = 64  # images handed on at a time


class FolderSource:
    """The images of one folder, sorted by path. Raises LeafError where it is not laid out as a data set."""

    def __init__(self, root: Path, classes: tuple[str, str], skip_unreadable: bool) -> None:
        """List the files and their labels; they are decoded by `blocks`."""
        self.root = root
        self.skip_unreadable = skip_unreadable
        self.unreadable: dict[str, str] = {}
        self.notes: list[str] = []
        if os.path.lexists(root / FILE):
            _check_inside(root, FILE)
            entries = read_metadata(root, classes)
            for entry in entries:
                _check_inside(root, entry.file)
            others = sum(1 for _ in _image_files(root, "")) - len(entries)
            if others > 0:
                self.notes.append(f"{others} image files are not in {FILE} and stay out")
        else:
            entries = _by_folder(root, classes)
        if not entries:
            raise LeafError(f"{root}: no image files; valid: {', '.join(sorted(SUFFIXES))} in a folder per class")
        entries.sort(key=lambda entry: entry.file)
        self.rows = Rows(
            [entry.file for entry in entries],
            np.array([entry.label for entry in entries], np.uint8),
            [entry.group for entry in entries],
            [entry.split for entry in entries],
        )

    def blocks(self, size: int, whole: bool) -> Iterator[Block]:
        """Decode the files on all cores and give the readable ones in order, uint8 (float32 unless `whole`).

        Files that cannot be read are noted in `unreadable`, or raise LeafError if they are to be refused.
        """
        dtype = np.uint8 if whole else np.float32
        places: list[int] = []
        images: list[np.ndarray] = []
        for place, image in in_order(lambda files: self._decode(files, size), self.rows.source, cores()):
            if isinstance(image, str):
                self._refuse_or_note(self.rows.source[place], image)
                continue
            places.append(place)
            images.append(image)
            if len(images) == BLOCK:
                yield Block(np.array(places), np.stack(images).astype(dtype, copy=False))
                places, images = [], []
        if images:
            yield Block(np.array(places), np.stack(images).astype(dtype, copy=False))

    def _decode(self, files: Sequence[str], size: int) -> list[np.ndarray | str]:
        images: list[np.ndarray | str] = []
        for file in files:
            try:
                images.append(decode(self.root / file, size))
            except UnreadableError as why:
                images.append(str(why))
        return images

    def _refuse_or_note(self, file: str, why: str) -> None:
        if not self.skip_unreadable:
            raise LeafError(f"{self.root / file}: cannot be read ({why}); mend it, or set `unreadable` to skip")
        self.unreadable[file] = why


def _by_folder(root: Path, classes: tuple[str, str]) -> list[Entry]:
    """Entries from class folders, or from class folders inside train/validation/test folders."""
    folders = _folders(root, "")
    splits = {folder: split_name(folder) for folder in folders}
    if folders and all(splits.values()):
        parts = [
            (f"{folder}/{name}", name, split) for folder, split in splits.items() for name in _folders(root, folder)
        ]
    else:
        parts = [(folder, folder, "") for folder in folders]
    for folder, name, _ in parts:
        if name not in classes:
            raise LeafError(
                f"{root}: the folder {folder!r} is no class; valid: {', '.join(classes)} (key `classes`), also inside "
                f"train, validation and test"
            )
    entries = []
    for folder, name, split in parts:
        label = classes.index(name)
        entries += [Entry(file, label, "", split) for file in _image_files(root, folder)]
    return entries


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
