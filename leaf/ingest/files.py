"""Detect file types by their first bytes, and list folders. Every skipped file is counted."""

import os
import re
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeAlias

from leaf.errors import LeafError, plural

Links: TypeAlias = Literal["refuse", "follow"]

# Files written by macOS, Windows, network drives, notebooks and version control, and all hidden files except iCloud
# image placeholders (`.*.icloud`).
_SYSTEM_FILES = re.compile(
    r"(?i)(\.(?!.*\.icloud$).*|thumbs\.db|ehthumbs.*\.db|desktop\.ini|icon\r|__macosx|lost\+found|__pycache__|@eadir|#recycle"
    r"|\$recycle\.bin|system volume information)",
    re.DOTALL,
)


@dataclass
class Listing:
    """The files of a folder, as sorted relative paths."""

    images: list[str] = field(default_factory=list)
    others: list[str] = field(default_factory=list)
    system_files: Counter[str] = field(default_factory=Counter)  # number of skipped files by name
    unentered: list[str] = field(default_factory=list)  # links to folders that were already listed or are not followed

    def notes(self) -> list[str]:
        """Return a one-line message for each kind of skipped entry."""
        lines = []
        if self.system_files:
            names = ", ".join(f"{name!r} ({count})" for name, count in self.system_files.most_common(6))
            lines.append(f"skipped {plural(self.system_files.total(), 'system file')}: {names}")
        if self.others:
            kinds = Counter(Path(name).suffix or "no suffix" for name in self.others)
            counts = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common(6))
            lines.append(f"skipped {plural(len(self.others), 'non-image file')} ({counts}; first: {self.others[0]!r})")
        if self.unentered:
            lines.append(f"skipped {plural(len(self.unentered), 'link')} to folders (first: {self.unentered[0]!r})")
        return lines


def list_folder(root: Path, links: Links | Literal["files"] = "refuse") -> Listing:
    """List the folder `root` recursively.

    Pipes and dead links with an image suffix are listed as images and reported when they are read.

    Args:
        root: the folder.
        links: whether to reject or follow links to folders and links to targets outside `root`. `files` follows all
            links to files, skips links to folders, and accepts any name.

    Raises:
        LeafError: for rejected links, and for names that cannot be stored in a table.
    """
    found = Listing()
    waiting = [""]
    entered = {_identity(root)}
    while waiting:
        folder = waiting.pop()
        with os.scandir(root / folder) as items:
            for item in items:
                if _SYSTEM_FILES.fullmatch(item.name):
                    found.system_files["._*" if item.name.startswith("._") else item.name] += 1
                    continue
                path = f"{folder}/{item.name}" if folder else item.name
                if links != "files":
                    _check_name(root, path)
                if links == "refuse" and item.is_symlink():
                    _check_link(root, path)
                if not os.path.isdir(item.path):  # noqa: PTH112 - DirEntry.is_dir raises for circular links
                    (found.images if is_image(item.path) else found.others).append(path)
                elif _identity(item.path) in entered or (links == "files" and item.is_symlink()):
                    found.unentered.append(path)
                else:
                    entered.add(_identity(item.path))
                    waiting.append(path)
    found.images.sort()
    found.others.sort()
    return found


def _identity(path: str | Path) -> tuple[int, int]:
    status = os.stat(path)  # noqa: PTH116 - accepts str, for speed
    return status.st_dev, status.st_ino


def _check_name(root: Path, path: str) -> None:
    try:
        path.encode("utf-8")
    except UnicodeEncodeError:
        raise LeafError(f"{root}: the name {path!a} is not UTF-8. Rename the file.") from None
    if "\r" in path:
        raise LeafError(f"{root}: the name {path!r} contains a carriage return. Rename the file.")


def _check_link(root: Path, path: str) -> None:
    target = Path(os.path.realpath(root / path))  # resolve() raises on loops
    if not target.is_relative_to(os.path.realpath(root)):
        raise LeafError(
            f"{root}: {path!r} is a link to a target outside the data set. Copy the target into the folder, or add "
            "-S links=follow. If DVC created the link, set cache.type to copy instead."
        )
    if target.is_dir():
        raise LeafError(f"{root}: {path!r} is a link to a folder. Copy the folder, or add -S links=follow.")


HEAD = 512  # bytes read to detect the type of a file
# Suffixes of image files. Files with other suffixes are recognized by their content.
SUFFIXES = frozenset(
    {
        *(".jpg", ".jpeg", ".jpe", ".jfif", ".jfi", ".jif", ".mpo", ".png", ".apng", ".webp", ".bmp", ".dib"),
        *(".tif", ".tiff", ".gif", ".jp2", ".j2k", ".j2c", ".jpc", ".jpf", ".jpx", ".avif", ".avifs"),
        *(".heic", ".heics", ".heif", ".heifs", ".hif", ".jxl", ".ico", ".icns", ".psd", ".svg", ".eps", ".xcf"),
        *(".ppm", ".pgm", ".pbm", ".pnm", ".pcx", ".tga", ".dds", ".sgi", ".exr", ".hdr", ".xbm", ".xpm", ".jxr"),
        *(".cr2", ".cr3", ".nef", ".arw", ".dng", ".raf", ".orf", ".rw2"),
    }
)
NAMES = {  # Pillow's format name: common name
    "JPEG": "JPEG",
    "PNG": "PNG",
    "WEBP": "WebP",
    "BMP": "BMP",
    "TIFF": "TIFF",
    "GIF": "GIF",
    "JPEG2000": "JPEG 2000",
    "AVIF": "AVIF",
    "HEIF": "HEIC",
}
_STARTS = (
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (rb"RIFF....WEBP", "WEBP"),
    (rb"BM....\0\0\0\0", "BMP"),
    (rb"(II\*\0|MM\0\*|II\+\0|MM\0\+)", "TIFF"),
    (rb"GIF8[79]a", "GIF"),
    (rb"(\0\0\0\x0cjP  \r\n\x87\n|\xff\x4f\xff\x51)", "JPEG2000"),
)
_HEIF = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"mif2", b"msf1"}
# other file types that sometimes have an image suffix
_OTHERS = (
    (rb"(\xff\x0a|\0\0\0\x0cJXL )", "a JPEG XL image"),
    (rb"....ftypcrx |.{8}CR\x02", "a camera raw file"),
    (rb"(FUJIFILMCCD|IIU\0|IIRO|IIRS|MMOR)", "a camera raw file"),
    (rb"....(ftyp|moov|mdat|wide|free|skip)", "a video"),
    (rb"(RIFF....AVI |\x1aE\xdf\xa3|\0\0\x01[\xb3\xba]|FLV\x01|OggS)", "a video"),
    (rb"(ID3|RIFF....WAVE|fLaC)", "an audio file"),
    (rb"8BPS", "a Photoshop file"),
    (rb"%PDF", "a PDF"),
    (rb"PK\x03\x04", "a zip archive"),
    (rb"(\x1f\x8b|Rar!|7z\xbc\xaf)", "an archive"),
    (rb"\0\0[\1\2]\0[^\0]", "an icon"),
    (rb"version https://git-lfs", "a Git LFS pointer, not the image (run `git lfs pull`)"),
    (rb"(/annex/objects/|\.\./.*\.git/annex)", "a git-annex pointer, not the image (run `git annex get`)"),
    (rb"bplist00", "an iCloud placeholder, not the image (download it in the Finder)"),
    (rb"(?i)\s*(<!doctype html|<html)", "a web page"),
    (rb"(?i)\s*(<\?xml[^>]*>\s*)?(<!--.*?-->\s*)?(<!doctype svg|<svg)", "an SVG drawing"),
)


def kind(head: bytes) -> str:
    """Return Pillow's name for the format of an image that starts with `head`, or "" if it is not supported."""
    for start, name in _STARTS:
        if re.match(start, head, re.DOTALL):
            return "" if name == "TIFF" and head[8:10] == b"CR" else name
    if head[4:8] == b"ftyp":
        brands = {head[8:12], *(head[place : place + 4] for place in range(16, min(head[3], HEAD), 4))}
        return "AVIF" if brands & {b"avif", b"avis"} else "HEIF" if brands & _HEIF else ""
    return ""


def is_image(path: str | Path) -> bool:
    """Return whether a file is an image, based on its suffix or, for regular files, its content."""
    if os.path.splitext(str(path).removesuffix(".icloud"))[1].lower() in SUFFIXES:  # noqa: PTH122 - for speed
        return True
    return starts_like_image(path)


def starts_like_image(path: str | Path) -> bool:
    """Return whether a regular file starts like an image of a supported format."""
    with suppress(OSError):
        return Path(path).is_file() and kind(read_head(path)) != ""
    return False


def read_head(path: str | Path) -> bytes:
    """Return the first bytes of a file, enough to detect its type."""
    with Path(path).open("rb") as file:
        return file.read(HEAD)


def what_it_is(head: bytes) -> str:
    """Describe a file that cannot be read as an image, based on its first bytes."""
    if not head.strip(b"\0"):
        return "a file that contains only zeros" if head else "an empty file"
    if name := kind(head):
        return f"a damaged {NAMES[name]} image"
    for start, words in _OTHERS:
        if re.match(start, head, re.DOTALL):
            return words
    valid = f"not a {', '.join(list(NAMES.values())[:-1])} or {list(NAMES.values())[-1]} image"
    return f"text, {valid}" if _is_text(head) else valid


def _is_text(head: bytes) -> bool:
    try:
        return head[:-3].decode().isprintable() if len(head) == HEAD else "\0" not in head.decode()
    except UnicodeDecodeError:
        return False
