"""What lies in a folder: image files, litter of systems and tools, and other files. Nothing passes uncounted."""

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Literal, TypeAlias

from leaf.errors import LeafError
from leaf.reading.kinds import is_image

Links: TypeAlias = Literal["refuse", "follow"]

# what macOS, Windows, network disks, notebooks and version control leave behind; whatever is hidden counts, too
_LITTER = (
    *("thumbs.db", "ehthumbs*.db", "desktop.ini", "icon\r", "__macosx", "lost+found", "__pycache__"),
    *("@eadir", "#recycle", "$recycle.bin", "system volume information", ".*"),
)


@dataclass
class Listing:
    """Paths relative to the folder: `images` and `others`, sorted; `litter` counts entries by their names;
    `unentered` are links to folders that are read already, or not at all."""

    images: list[str] = field(default_factory=list)
    others: list[str] = field(default_factory=list)
    litter: Counter[str] = field(default_factory=Counter)
    unentered: list[str] = field(default_factory=list)

    def notes(self) -> list[str]:
        """What was passed over, a line each."""
        lines = []
        if self.litter:
            names = ", ".join(f"{name!r} ({count})" for name, count in self.litter.most_common(6))
            lines.append(f"passed over litter of systems and tools, {self.litter.total()} entries: {names}")
        if self.others:
            kinds = Counter(Path(name).suffix or "no ending" for name in self.others)
            said = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common(6))
            lines.append(f"{len(self.others)} other files are no images ({said}), such as {self.others[0]!r}")
        if self.unentered:
            lines.append(f"{len(self.unentered)} links to folders are not entered, such as {self.unentered[0]!r}")
        return lines


def list_folder(root: Path, links: Links | Literal["files"] = "refuse") -> Listing:
    """Walk the folder `root`; links that lead out of it, and links to folders, are refused or followed.

    `files` follows all links to files and none to folders, and takes any name.

    What bears an image's ending and can be none, a pipe or a link that leads nowhere, is among the images: it is named
    when it is read. Raises LeafError for refused links and for names that no table can hold.
    """
    found = Listing()
    waiting = [""]
    entered = {_identity(root)}
    while waiting:
        folder = waiting.pop()
        for item in _scan(root, folder, found.litter):
            path = f"{folder}/{item.name}" if folder else item.name
            if links != "files":
                _check_name(root, path)
            if item.is_symlink() and links == "refuse":
                check_inside(root, path)
            if os.path.isdir(item.path):  # noqa: PTH112 - DirEntry.is_dir raises where links lead in a circle
                if item.is_symlink() and links == "refuse":
                    raise LeafError(f"{root}: {path!r} is a link to a folder; valid: real folders, or -S links=follow")
                identity = _identity(item.path)
                if identity in entered or (item.is_symlink() and links == "files"):
                    found.unentered.append(path)
                    continue
                entered.add(identity)
                waiting.append(path)
            else:
                (found.images if is_image(Path(item.path)) else found.others).append(path)
    found.images.sort()
    found.others.sort()
    return found


def _identity(path: str | Path) -> tuple[int, int]:
    status = os.stat(path)  # noqa: PTH116 - a text, for speed
    return status.st_dev, status.st_ino


def _scan(root: Path, folder: str, litter: Counter[str]) -> Iterator[os.DirEntry[str]]:
    """The entries of a folder but litter."""
    with os.scandir(root / folder) as items:
        for item in items:
            if any(fnmatchcase(item.name.lower(), pattern) for pattern in _LITTER):
                litter["._*" if item.name.startswith("._") else item.name] += 1
                continue
            yield item


def _check_name(root: Path, path: str) -> None:
    try:
        path.encode("utf-8")
    except UnicodeEncodeError:
        raise LeafError(f"{root}: the name {path!a} is not UTF-8; rename the file") from None
    if "\r" in path:
        raise LeafError(f"{root}: the name {path!r} holds a carriage return; rename the file")


def check_inside(root: Path, path: str) -> None:
    """Refuse a path that is, or passes through, a link out of the data set's folder."""
    if not Path(os.path.realpath(root / path)).is_relative_to(os.path.realpath(root)):  # resolve() raises on circles
        raise LeafError(
            f"{root}: {path!r} leads out of the data set's folder; put the file itself there (DVC: cache.type copy), "
            "or -S links=follow"
        )
