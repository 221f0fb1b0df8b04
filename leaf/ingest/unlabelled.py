"""Find unlabeled images, and read the labels that `leaf review --unlabelled` assigns.

Unlabeled images are images in the data set folder without a label from a folder or table, and all images in the folder
`unlabelled`. data/labels.csv identifies images by file hash, so a renamed file keeps its label. Several people can
label the same image. It stays unlabeled until their labels agree, or a row with `chosen: conflict` decides.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from leaf.edited_tables import read_edited_table
from leaf.ingest.classes import few
from leaf.ingest.decode import DecodedImage, Fit, UnreadableError
from leaf.ingest.decode_cache import content_hash
from leaf.ingest.files import Links, list_folder
from leaf.ingest.label_tables import GIVEN_COLUMNS
from leaf.ingest.sandbox import read_file
from leaf.ingest.source import FileSource, Source

LABELS = Path("data/labels.csv")
RANDOM, CONFLICT = "random", "conflict"  # values of the column `chosen`
_EXIF, _TAKEN, _CHANGED = 0x8769, 0x9003, 0x0132  # EXIF tags


@dataclass(frozen=True)
class Given:
    """The label of an image in data/labels.csv."""

    label: str  # class name; "" excludes the image from the data set
    group: str  # images with the same group stay in one split; "" for none
    chosen: str  # how the image was selected: the first value except `random` and `conflict`, otherwise `random`


def read_given(path: Path = LABELS) -> tuple[dict[str, Given], dict[str, list[str]]]:
    """Return the agreed labels and the conflicting labels in data/labels.csv, each by file hash."""
    by_hash: dict[str, list[dict[Any, str]]] = defaultdict(list)
    if path.is_file():
        columns = ("label", "group", *GIVEN_COLUMNS)
        table = read_edited_table(path, (), ("file", *columns)).reindex(columns=columns, fill_value="")
        for row in table[table["file_hash"].ne("")].to_dict("records"):
            by_hash[row["file_hash"]].append(row)
    given, conflicts = {}, {}
    for file_hash, rows in by_hash.items():
        decided = sorted((row for row in rows if row["chosen"] == CONFLICT), key=lambda row: row["date"])
        labels = sorted({row["label"] for row in decided[-1:] or rows})
        if len(labels) > 1:
            conflicts[file_hash] = labels
            continue
        group = next((row["group"] for row in rows if row["group"]), "")
        chosen = next((row["chosen"] for row in rows if row["chosen"] not in (RANDOM, CONFLICT)), RANDOM)
        given[file_hash] = Given(labels[0], group, chosen)
    return given, conflicts


class NewImages(FileSource):
    """Image files that are not yet part of the data set, possibly in several folders."""

    def __init__(self, paths: Mapping[str, Path], skip_unreadable: bool = True) -> None:
        """Store the paths of the files by name."""
        rows = pd.DataFrame({"source": list(paths), "name": "", "group": "", "split": ""})
        super().__init__(rows, paths.__getitem__, skip_unreadable)


class Joined(Source):
    """A data set followed by images that were labeled later, so that existing image numbers do not change."""

    def __init__(self, first: Source, second: FileSource) -> None:
        super().__init__(pd.concat([first.rows, second.rows], ignore_index=True).fillna(""))
        self._first, self._second = first, second
        self.cache, self.left_out, self.notes = first.cache, first.left_out, first.notes
        self.unreadable = second.unreadable = first.unreadable

    def images(self, places: np.ndarray, size: int, fit: Fit) -> Iterator[tuple[int, DecodedImage, str]]:
        """Yield images from both parts; see `Source.images`."""
        count = len(self._first.rows)
        self._first.dtype = self.dtype
        yield from self._first.images(places[places < count], size, fit)
        for place, image, file_hash in self._second.images(places[places >= count] - count, size, fit):
            yield place + count, image, file_hash


def find_unlabelled(source: Source, dataset: Path, folder: Path | None, links: Links) -> dict[str, Path]:
    """Return unlabeled image files by name: first from the data set, then from `folder`, which may be missing.

    Names of files in `folder` include the folder, so they differ from names in the data set.
    """
    found = {file: dataset / file for file in source.unlabelled}
    if folder is not None and folder.is_dir():
        found |= {str(folder / file): folder / file for file in list_folder(folder, links).images}
    return found


def join_labelled(
    source: Source,
    names: Sequence[str],
    files: Mapping[str, Path],
    skip_unreadable: bool,
    given: Mapping[str, Given],
) -> tuple[Source, NewImages]:
    """Append the `files` that have a label in `given` (see `read_given`) to a data set with the class names `names`.

    Return the data set with the labeled files, and the files without a label.
    """
    taken: dict[str, Given] = {}
    rest = dict(files)
    foreign: set[str] = set()
    for name, path in files.items() if given else ():
        with suppress(UnreadableError):  # reported during decoding
            found = given.get(content_hash(read_file(path)))
            if found is None:
                continue
            if found.label not in ("", *names):
                foreign.add(found.label)
                continue
            del rest[name]
            source.left_out.pop(name, None)
            if found.label:
                taken[name] = found
            else:
                source.left_out[name] = f"excluded in {LABELS}"
    if foreign:
        source.notes.append(
            f"{LABELS}: skipped rows whose label is not in `classes` ({', '.join(names[:6])}): {few(sorted(foreign))}"
        )
    if not taken:
        return source, NewImages(rest)
    added = NewImages({name: files[name] for name in taken}, skip_unreadable)
    added.rows["name"] = [each.label for each in taken.values()]
    added.rows["label"] = [names.index(each.label) for each in taken.values()]
    added.rows["group"] = [each.group for each in taken.values()]
    added.rows["chosen"] = [each.chosen for each in taken.values()]
    return Joined(source, added), NewImages(rest)


def time_taken(path: Path) -> str:
    """Return the capture time from a photo's EXIF data in ISO format, or "" if unknown."""
    with suppress(Exception), Image.open(path) as image:
        exif = image.getexif()
        text = exif.get_ifd(_EXIF).get(_TAKEN) or exif.get(_CHANGED)
        return datetime.strptime(str(text).strip("\0 "), "%Y:%m:%d %H:%M:%S").isoformat()
    return ""
