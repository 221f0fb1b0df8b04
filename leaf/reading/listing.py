"""What lies in a folder: image files, litter of systems and tools, and other files. Nothing passes uncounted."""

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path

from leaf.errors import LeafError
from leaf.reading.decode import SUFFIXES

# what macOS, Windows, network disks, notebooks and version control leave behind; whatever is hidden counts, too
_LITTER = (
    *("thumbs.db", "ehthumbs*.db", "desktop.ini", "icon\r", "__macosx", "lost+found", "__pycache__"),
    *("@eadir", "#recycle", "$recycle.bin", "system volume information", ".*", "*~"),
)


@dataclass
class Listing:
    """Paths relative to the folder: `images` and `others`, sorted; `litter` counts entries by their names."""

    images: list[str] = field(default_factory=list)
    others: list[str] = field(default_factory=list)
    litter: Counter[str] = field(default_factory=Counter)

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
        return lines


def list_folder(root: Path) -> Listing:
    """Walk the folder `root`. Raises LeafError for names that no table can hold and for links that lead out."""
    found = Listing()
    waiting = [""]
    while waiting:
        folder = waiting.pop()
        for item in _scan(root, folder, found.litter):
            path = f"{folder}/{item.name}" if folder else item.name
            if item.is_dir():
                waiting.append(path)
            elif item.is_file():
                (found.images if _is_image(root / path) else found.others).append(path)
            else:  # a pipe, a socket, a device
                found.others.append(path)
    found.images.sort()
    found.others.sort()
    return found


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES


def _scan(root: Path, folder: str, litter: Counter[str]) -> Iterator[os.DirEntry[str]]:
    """The entries of a folder but litter; names and links are checked. A linked folder is never entered."""
    with os.scandir(root / folder) as items:
        for item in items:
            if any(fnmatchcase(item.name.lower(), pattern) for pattern in _LITTER):
                litter["._*" if item.name.startswith("._") else item.name] += 1
                continue
            path = f"{folder}/{item.name}" if folder else item.name
            _check_name(root, path)
            if item.is_symlink():
                check_inside(root, path)
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


def check_inside(root: Path, path: str) -> None:
    """Refuse a path that is, or passes through, a link out of the data set's folder."""
    if not (root / path).resolve().is_relative_to(root.resolve()):
        raise LeafError(
            f"{root}: {path!r} leads out of the data set's folder; put the file itself there (DVC: cache.type copy)"
        )
