"""Derive the class, split, group and crop of each image from its folders."""

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Literal

from leaf.errors import LeafError
from leaf.ingest.classes import few, matches_any, means_healthy, nfc

_SPLITS = {
    **dict.fromkeys(("train", "training", "trainset", "trn"), "train"),
    **dict.fromkeys(("validation", "valid", "validate", "val", "valset", "dev", "development"), "validation"),
    **dict.fromkeys(("test", "testing", "testset", "tst"), "test"),
}
_NEUTRAL = {"set", "data", "dataset", "image", "images", "img", "imgs", "photo", "photos", "split", "folder", "files"}


@dataclass(frozen=True)
class Folders:
    """Class, split, group and crop of an image file, derived from its folders; "" if unknown."""

    name: str  # class
    split: str
    folder: str  # the group if `group_by` is `folder`
    parts: tuple[str, ...]  # folder names without the split folder and without outer folders that contain all images
    crop: str  # name of the folder above the class, or the part of the class folder's name before ___


def by_folders(root: Path, images: Sequence[str], known: Collection[str], labelled: bool) -> dict[str, Folders]:
    """Derive the class, split, group and crop of each file from its folders.

    The class is the first folder whose name, or whose parent's name and own name (`Bean rust`), is in `known`. If there
    is none, the class is the top folder, or the top two folders if the classes of other files have such joined names.
    """
    known = set(known)
    dirs = _without_outer({file: [nfc(part) for part in file.split("/")[:-1]] for file in images}, known)
    level = _split_level(root, dirs.values(), known, labelled)
    splits = dict.fromkeys(dirs, "")
    if level is not None:
        splits = {file: split_name(parts[level]) if len(parts) > level else "" for file, parts in dirs.items()}
        rests = {  # a split folder may be repeated, as in Train/Train/healthy
            file: [part for part in parts if not splits[file] or split_name(part) != splits[file]]
            for file, parts in dirs.items()
        }
        dirs = _without_outer(rests, known)
    joins = any(" ".join(pair) in known for parts in dirs.values() for pair in pairwise(parts))
    found = {}
    for file, parts in dirs.items():
        pairs = [" ".join(pair) for pair in pairwise(parts)]
        joined = next((place for place, pair in enumerate(pairs) if pair in known), None)
        if joins and pairs and not known & {*pairs, *parts}:
            joined = 0  # CROP/CLASS folders whose class is not in `known`
        if joined is None:
            place = next((place for place, part in enumerate(parts) if part in known), 0)
            name = parts[place] if parts else ""
        else:
            place, name = joined + 1, pairs[joined]
        inner = parts[:-1] if len(parts) > 1 and place == len(parts) - 1 else parts
        folder = "/".join(inner) if len(parts) > 1 or labelled else ""
        crop = parts[place - 1] if place else name.rpartition("___")[0]
        found[file] = Folders(name, splits[file], folder, tuple(parts), crop)
    return found


def _without_outer(dirs: dict[str, list[str]], known: Collection[str]) -> dict[str, list[str]]:
    """Strip outer folders that contain all images from the paths, unless they are class or split folders."""
    while len(tops := {parts[0] if parts else "" for parts in dirs.values()}) == 1:
        top = next(iter(tops))
        if not top or top in known or split_name(top) or all(len(parts) == 1 for parts in dirs.values()):
            break
        dirs = {file: parts[1:] for file, parts in dirs.items()}
    return dirs


def _split_level(
    root: Path, dirs: Collection[Sequence[str]], known: Collection[str], labelled: bool
) -> Literal[0, 1] | None:
    """Return the level of the split folders: 0 above the classes, 1 below, None if there are none."""
    first = {parts[0] for parts in dirs if parts and parts[0] not in known}
    splits = {name for name in first if split_name(name)}
    if splits and (splits == first or labelled):
        return 0
    if splits:
        raise LeafError(
            f"{root}: next to the split folders ({few(sorted(splits))}), there are other folders: "
            f"{few(sorted(first - splits))}. Put all class folders inside split folders, or use class folders only."
        )
    deep = [parts[1] if len(parts) > 1 else "" for parts in dirs]
    return 1 if deep and all(map(split_name, deep)) else None


@lru_cache(maxsize=1024)
def split_name(text: str) -> str:
    """Return `train`, `validation` or `test` for a common folder name (`Valid`, `test_images`), otherwise ""."""
    words = [word for word in re.findall(r"[^\W\d_]+", text.casefold()) if word not in _NEUTRAL]
    return _SPLITS.get(words[0], "") if len(words) == 1 else ""


def reject_containers(
    root: Path, folders: Mapping[str, Folders], known: Collection[str], ignore: Sequence[str]
) -> list[str]:
    """Raise LeafError if the top folders, such as `color` and `grayscale`, sites or years, contain the class folders.

    If the classes are `known`, return a note instead if the top folders seem to be copies of each other.
    """
    below: dict[str, set[str]] = defaultdict(set)
    files: dict[str, set[tuple[str, ...]]] = defaultdict(set)
    used = {file: each.parts for file, each in folders.items() if each.parts and not matches_any(each.parts[0], ignore)}
    tops = {parts[0] for parts in used.values()}
    level = _class_level(used.values())
    for file, (top, *inner) in used.items():
        if len(inner) >= level:
            below[top].add(inner[level - 1])
            files[top].add((*inner, Path(file).stem))
    counts = Counter(name for inner in below.values() for name in {name.casefold() for name in inner})
    shared = {name for name, count in counts.items() if count > 1 and re.sub(r"[\W\d_]", "", name)}
    kinds = {re.sub(r"\d+", "", name) for name in shared}
    nested = sorted(top for top, inner in below.items() if len(inner & (tops - {top})) > 1)
    healthy = any(means_healthy(name) for inner in below.values() for name in inner)
    containers = sorted(top for top in below if healthy or any(name.casefold() in shared for name in below[top]))
    if not nested and (len(containers) < 2 or not (healthy or len(kinds) > 1) or any(map(means_healthy, tops))):
        return []

    def on_disk(top: str) -> str:
        parts = next(file for file, parts in used.items() if parts[0] == top).split("/")
        return str(root.joinpath(*parts[: [nfc(part) for part in parts].index(top) + 1]))

    if known:
        copied = any(2 * len(files[top] & files[containers[0]]) > len(files[top]) for top in containers[1:])
        if nested or not copied:
            return []
        return [
            f"{few(containers)} contain the same class folders and file names. If they are copies, use one: "
            f"dataset={on_disk(containers[0])}"
        ]
    if nested:
        raise LeafError(
            f"{root}: the folder {nested[0]!r} contains folders with the same names as the folders next to it, so it "
            "may be a copy of the data set",
            proposals=[{"ignore": nested}, {"dataset": on_disk(nested[0])}],
        )
    inner_names = sorted({name for top in containers for name in below[top]})
    several = len(containers) > 3
    raise LeafError(
        f"{root}: the classes seem to be the folders {few(inner_names)} inside {few(containers)}",
        proposals=[
            {"classes": inner_names, **({"group_by": "folder"} if several else {})},
            *({"dataset": on_disk(top)} for top in containers[: 0 if several else 2]),
            {"classes": sorted(tops)},
        ],
    )


def _class_level(folders: Collection[Sequence[str]]) -> int:
    """Return the first level below the top with a folder named like a healthy class, or 1 if there is none."""
    for level in range(1, max(map(len, folders), default=0)):
        if any(means_healthy(parts[level]) for parts in folders if len(parts) > level):
            return level
    return 1
