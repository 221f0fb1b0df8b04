"""What can be told of photographs before one is decoded: their sizes, and whether a plant was taken several times."""

import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from PIL import Image

SAMPLE = 100  # files whose headers are read
WIDE = 4 / 3  # beyond it a square crop loses more than a quarter of the picture


@dataclass(frozen=True)
class Sizes:
    """Of a sample of the files: how many were opened, the most frequent size, the smallest and the largest side."""

    opened: int
    usual: tuple[int, int]
    smallest: int
    largest: int
    wide: int  # share in percent that is wider, or taller, than 4:3
    lost: int  # percent of the picture that the crop of these loses, on average


def sizes(root: Path, files: Sequence[str]) -> Sizes | None:
    """Read the headers of some files, spread evenly; None where none can be opened."""
    found = []
    for file in files[:: 1 + len(files) // SAMPLE]:
        try:
            with Image.open(root / file) as image:
                found.append(image.size)
        except Exception:  # noqa: BLE001, S112 (a damaged file is for `ingest` to name)
            continue
    if not found:
        return None
    shapes = [max(size) / max(min(size), 1) for size in found]
    wide = [shape for shape in shapes if shape > WIDE + 0.01]
    lost = sum(1 - 1 / shape for shape in wide) / max(len(wide), 1)
    sides = [side for size in found for side in size]
    usual = Counter(found).most_common(1)[0][0]
    return Sizes(len(found), usual, min(sides), max(sides), round(100 * len(wide) / len(found)), round(100 * lost))


def look_like_series(names: Sequence[str | int], sources: Sequence[str]) -> list[str]:
    """Two names of files, of a class, that differ in a last number alone, where half the files stand in such series.

    A series has 2 to 30 files (`plant07_1.jpg`, `plant07_2.jpg`); a camera's own counting, one long series, is none.
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
