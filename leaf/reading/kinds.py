"""What a file is, said by its first bytes: endings lie, and photographs bear many."""

import re
from pathlib import Path

HEAD = 512  # bytes of a file that tell what it is
# Endings that say image. Whatever has another one is an image if its content is.
SUFFIXES = frozenset(
    {
        *(".jpg", ".jpeg", ".jpe", ".jfif", ".jfi", ".jif", ".mpo", ".png", ".apng", ".webp", ".bmp", ".dib"),
        *(".tif", ".tiff", ".gif", ".jp2", ".j2k", ".j2c", ".jpc", ".jpf", ".jpx", ".avif", ".avifs"),
        *(".heic", ".heics", ".heif", ".heifs", ".hif", ".jxl", ".ico", ".icns", ".psd", ".svg", ".eps", ".xcf"),
        *(".ppm", ".pgm", ".pbm", ".pnm", ".pcx", ".tga", ".dds", ".sgi", ".exr", ".hdr", ".xbm", ".xpm", ".jxr"),
        *(".cr2", ".cr3", ".nef", ".arw", ".dng", ".raf", ".orf", ".rw2"),
    }
)
NAMES = {  # Pillow's, and what people call it
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
# what else bears an image's ending, or comes in its place
_OTHERS = (
    (rb"(\xff\x0a|\0\0\0\x0cJXL )", "a JPEG XL image"),
    (rb"....ftypcrx |.{8}CR\x02", "a camera's raw file"),
    (rb"(FUJIFILMCCD|IIU\0|IIRO|IIRS|MMOR)", "a camera's raw file"),
    (rb"....(ftyp|moov|mdat|wide|free|skip)", "a video"),
    (rb"(RIFF....AVI |\x1aE\xdf\xa3|\0\0\x01[\xb3\xba]|FLV\x01|OggS)", "a video"),
    (rb"(ID3|RIFF....WAVE|fLaC)", "a sound"),
    (rb"8BPS", "a Photoshop file"),
    (rb"%PDF", "a PDF"),
    (rb"PK\x03\x04", "a zip archive"),
    (rb"(\x1f\x8b|Rar!|7z\xbc\xaf)", "an archive"),
    (rb"\0\0[\1\2]\0[^\0]", "an icon"),
    (rb"version https://git-lfs", "a pointer of Git LFS, not the image itself (git lfs pull)"),
    (rb"(?i)\s*(<!doctype html|<html)", "a web page"),
    (rb"(?i)\s*(<\?xml[^>]*>\s*)?(<!--.*?-->\s*)?(<!doctype svg|<svg)", "an SVG drawing"),
)


def kind(head: bytes) -> str:
    """Give Pillow's name of the kind of image that begins with `head`, "" where it is none that is read here."""
    for start, name in _STARTS:
        if re.match(start, head, re.DOTALL):
            return "" if name == "TIFF" and head[8:10] == b"CR" else name
    if head[4:8] == b"ftyp":
        brands = {head[8:12], *(head[place : place + 4] for place in range(16, min(head[3], HEAD), 4))}
        return "AVIF" if brands & {b"avif", b"avis"} else "HEIF" if brands & _HEIF else ""
    return ""


def is_image(path: Path) -> bool:
    """Say whether a file counts as an image: by its ending, else, where it is an ordinary file, by its content."""
    if path.suffix.lower() in SUFFIXES:
        return True
    try:
        if not path.is_file():
            return False
        with path.open("rb") as file:
            return kind(file.read(HEAD)) != ""
    except OSError:
        return False


def what_it_is(head: bytes) -> str:
    """Say what a file is that gives no image, in a few words."""
    if not head.strip(b"\0"):
        return "a file of zeros" if head else "an empty file"
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
