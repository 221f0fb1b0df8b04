"""One image file into pixels, and any image into a square of the wanted size."""

import math
import os
import struct
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import cv2
import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from leaf.errors import LeafError

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF")
SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"})
PIXELS = 89_478_485  # of one image; Pillow's own guard against decompression bombs
# what Pillow's decoders raise where a broken file leads them
_BROKEN = (
    OSError,
    ValueError,
    TypeError,
    AttributeError,
    LookupError,
    ArithmeticError,
    RuntimeError,
    SyntaxError,
    EOFError,
    struct.error,
    zlib.error,
)
# A JPEG is decoded at 1/2, 1/4 or 1/8 while that leaves this many times the wanted size: less than half the time, and
# logistic regression on MobileNetV2's features told 1,246 leaves of 256 pixels at 96 apart as well as from whole ones.
DRAFT = 4 / 3


class UnreadableError(Exception):
    """This file gives no image; the text says why."""


def decode(file: Path | BinaryIO, size: int) -> np.ndarray:
    """Read one image file as uint8 (size, size, 3) RGB: turned as its EXIF says, centre-cropped, resized.

    Alpha is laid over white; grey, palette, 16-bit and CMYK images are converted. Raises UnreadableError.
    """
    with _readable(), Image.open(file, formats=FORMATS) as image:
        if image.width * image.height > PIXELS:
            raise UnreadableError(f"{image.width}×{image.height}, at most {PIXELS:,} pixels")
        image.draft("RGB", (math.ceil(DRAFT * size), math.ceil(DRAFT * size)))  # moves JPEG alone
        return from_pil(image, size)


def from_pil(image: Image.Image, size: int) -> np.ndarray:
    """Give an opened image as `decode` gives a file. Raises UnreadableError."""
    with _readable():
        pixels = np.asarray(_rgb(ImageOps.exif_transpose(image)))
        return crop_and_resize(pixels[None], size)[0]


@contextmanager
def _readable() -> Iterator[None]:
    """Turn whatever Pillow raises into an UnreadableError."""
    try:
        yield
    except UnidentifiedImageError:
        raise UnreadableError("not a JPEG, PNG, WebP, BMP or TIFF image") from None
    except Image.DecompressionBombError:
        raise UnreadableError(f"at most {PIXELS:,} pixels") from None
    except _BROKEN as error:
        raise UnreadableError(_reason(error)) from None


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB":
        return image
    if image.mode.startswith("I") or image.mode == "F":
        return Image.fromarray(_eight_bits(image)).convert("RGB")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")


def _eight_bits(image: Image.Image) -> np.ndarray:
    """Grey of more than 8 bits as uint8: whole numbers are taken as 16-bit, floats as 0 to 1 or else 0 to 255."""
    values = np.nan_to_num(np.asarray(image).astype(np.float32))
    if image.mode != "F":
        values /= 257
    elif values.max(initial=0) <= 1:
        values *= 255
    return np.clip(values.round(), 0, 255).astype(np.uint8)


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno).lower()
    return " ".join(str(error).split())[:100] or type(error).__name__


def crop_and_resize(images: np.ndarray, size: int) -> np.ndarray:
    """Centre-crop images (N, H, W, 3), uint8 or float32, to squares and resize them to `size`; same dtype.

    Shrinking averages the area under each new pixel (OpenCV's INTER_AREA), but is bilinear where that would blur: by
    less than one and a half. Enlarging is bicubic, clipped to 0..255.
    """
    height, width = images.shape[1:3]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    images = images[:, top : top + side, left : left + side]
    if side == size:
        return np.ascontiguousarray(images)
    how = cv2.INTER_CUBIC if side < size else cv2.INTER_LINEAR if 2 * side < 3 * size else cv2.INTER_AREA
    out = np.empty((len(images), size, size, 3), images.dtype)
    for place, image in enumerate(images):
        cv2.resize(np.ascontiguousarray(image), (size, size), dst=out[place], interpolation=how)
    return np.clip(out, 0, 255, out=out) if out.dtype != np.uint8 else out


REFERENCES = Path("data/references")


def read_references(
    named: Sequence[int | str], size: int, folder: Path = REFERENCES
) -> list[int | tuple[str, np.ndarray]]:
    """Image numbers as they are; file names in `folder` with their pixels (size,size,3), as ingest converts a file."""
    return [each if isinstance(each, int) else (each, _picture(each, size, folder)) for each in named]


def _picture(name: str, size: int, folder: Path) -> np.ndarray:
    path = folder / name
    if not path.resolve().is_relative_to(folder.resolve()) or not path.is_file():
        valid = ", ".join(sorted(each.name for each in folder.glob("[!.]*"))) or "none is there yet"
        raise LeafError(f"references: {path}: no such file in {folder}; valid: {valid}")
    try:
        return decode(path, size)
    except UnreadableError as error:
        raise LeafError(f"references: {path}: {error}; valid: an image file") from None
