"""Examine a sample of image files before ingest: sizes, files that are not images, and names that look like series."""

import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image

from leaf.ingest.classes import check_present
from leaf.ingest.files import kind, read_head, what_it_is

ENOUGH = 20  # a class is rejected if this many of its files were opened and none is an image
SAMPLE = 100  # approximate number of files whose headers are read
WIDE = 4 / 3  # a square crop removes more than a quarter of a wider image


@dataclass(frozen=True)
class Sizes:
    """Sizes in pixels of a sample of images."""

    opened: int  # number of images
    usual: tuple[int, int]  # most frequent width and height
    smallest: int  # shortest side
    largest: int  # longest side
    wide: int  # percentage of images with an aspect ratio above 4:3
    lost: int  # mean percentage of a wide image that a square crop removes
    others: list[str]  # files that are not images, each with a description


def sizes(root: Path, files: Sequence[str], labels: np.ndarray, names: Sequence[str]) -> Sizes | None:
    """Read the headers of about SAMPLE files, spread evenly over each class. Return None if none can be opened.

    Raises:
        LeafError: if none of the opened files is an image, or none of the opened files of a class, provided that all
            its files or at least ENOUGH of them were opened.
    """
    found: list[tuple[int, int]] = []
    others: dict[str, str] = {}
    left = labels.copy()  # set to -1 for files that are not images
    for label in range(len(names)):
        places = np.flatnonzero(labels == label)
        opened = places[:: 1 + len(places) * len(names) // SAMPLE]
        for place in opened.tolist():
            size = _size(root / files[place])
            if isinstance(size, tuple):
                found.append(size)
            elif size:
                others[files[place]] = size
                left[place] = -1
        if (left[opened] < 0).all() and len(opened) >= min(ENOUGH, len(places)):
            left[places] = -1
    if others:
        check_present(left if found else np.full_like(left, -1), names, root, others)
    if not found:
        return None
    shapes = [max(size) / max(min(size), 1) for size in found]
    wide = [shape for shape in shapes if shape > WIDE + 0.01]
    lost = sum(1 - 1 / shape for shape in wide) / max(len(wide), 1)
    return Sizes(
        opened=len(found),
        usual=Counter(found).most_common(1)[0][0],
        smallest=min(map(min, found)),
        largest=max(map(max, found)),
        wide=round(100 * len(wide) / len(found)),
        lost=round(100 * lost),
        others=[f"{file!r}: {what}" for file, what in others.items()],
    )


def _size(path: Path) -> tuple[int, int] | str:
    """Return the width and height of an image, a description of another file, or "" if the file cannot be opened."""
    with suppress(Exception):  # `ingest` reports damaged files
        if path.is_file():
            head = read_head(path)
            if not kind(head):
                return what_it_is(head)
            with Image.open(path) as image:
                return image.size
    return ""


def look_like_series(names: Sequence[str | int], sources: Sequence[str]) -> list[str]:
    """Return two file names from the same series if at least half of the files are in series, otherwise [].

    The files of a series have the same class, and their names differ only in the last number (`plant07_1.jpg`,
    `plant07_2.jpg`). A series has 2 to 30 files; more consecutive numbers usually come from a camera's counter.
    """
    series: dict[tuple[object, str], list[str]] = defaultdict(list)
    for name, source in zip(names, sources, strict=True):
        path = PurePosixPath(source)
        found = re.fullmatch(r"(.*[^\W\d_].*?|.*\d.*?[^\w]|.*\d_)[\s_.(-]*\d{1,3}\)?", path.stem)
        if found:
            series[name, str(path.parent / found[1])].append(source)
    several = [files for files in series.values() if 2 <= len(files) <= 30]
    if 2 * sum(map(len, several)) < len(sources) or len(several) < 3:
        return []
    return sorted(several[0])[:2]
