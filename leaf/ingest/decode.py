"""Decode image files to pixels, and resize images to squares.

`decode` runs in this process without limits; `leaf.ingest.sandbox` limits its time and memory.
"""

import io
import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal, TypeAlias

import cv2
import numpy as np
import simplejpeg
from PIL import Image, ImageCms, UnidentifiedImageError

from leaf.ingest import files

PIXELS = 89_478_485  # maximum pixels per image; Pillow's limit against decompression bombs
# A JPEG is decoded at 1/2, 1/4 or 1/8 of its size if the result is at least this multiple of the target size. This
# takes less than half the time. On MobileNetV2 features of 1,246 leaves (256 pixels, resized to 96), logistic
# regression was as accurate as with full decoding.
DRAFT = 4 / 3
_ROWS = 512  # rows to convert at a time, to limit memory

Fit: TypeAlias = Literal["crop", "pad", "stretch"]


class UnreadableError(Exception):
    """Raised if a file cannot be read as an image; the message is the reason."""


@dataclass(frozen=True)
class DecodedImage:
    """A decoded image file.

    Attributes:
        pixels: uint8 (size, size, 3), RGB.
        width: original width in pixels, after the EXIF rotation.
        height: original height in pixels, after the EXIF rotation.
        frames: whether the file has several frames; only the first is decoded.
    """

    pixels: np.ndarray
    width: int
    height: int
    frames: bool


def decode(
    data: bytes, size: int, fit: Fit = "crop", mask: bool = False, large: Callable[[int], Any] = bool
) -> DecodedImage:
    """Decode one image file: rotate it by its EXIF orientation, convert it to sRGB and resize it (see `to_square`).

    Alpha is composited over white; gray, palette, 16-bit, float and CMYK images are converted. If `mask` is true, alpha
    is composited over black, and palette colors are replaced by their indices. `large` is called with the number of
    decoded pixels before they are allocated.

    Raises:
        UnreadableError: if the file cannot be read as an image.
    """
    kind = files.kind(data[: files.HEAD])
    if not kind:
        raise UnreadableError(files.what_it_is(data[: files.HEAD]))
    if kind == "HEIF":
        _register_heif()
    with _readable(data), Image.open(io.BytesIO(data), formats=[kind]) as image:
        width, height = image.size
        if width * height > PIXELS:
            raise UnreadableError(f"{width}×{height} exceeds the limit of {PIXELS:,} pixels")
        frames = kind != "JPEG" and bool(getattr(image, "is_animated", False))
        _reduce(image, data, math.ceil(DRAFT * size))
        whole = "progressive" in image.info  # a progressive JPEG keeps all coefficients in memory
        large(width * height if whole else image.width * image.height >> 2 * getattr(image, "_reduce", 0))
        pixels = _with_turbojpeg(image, data)
        if pixels is not None and (turn := _turn(image)) is None and "icc_profile" not in image.info:
            pixels = to_square(pixels[None], size, fit)[0]
        else:
            deep = _with_16_bits(image, data) if pixels is None else Image.fromarray(pixels)
            deep.load()  # the reduced size of a JPEG 2000 image is known only after decoding
            deep.info.setdefault("icc_profile", image.info.get("icc_profile"))
            deep = _as_mask(deep) if mask else deep
            turn = None if kind == "TIFF" else _turn(image)  # TIFF decoders apply the orientation themselves
            pixels = _square(_turned(deep, turn), size, fit)
        return DecodedImage(pixels, *((height, width) if turn in _SIDEWAYS else (width, height)), frames)


def from_pil(image: Image.Image, size: int, fit: Fit = "crop") -> np.ndarray:
    """Convert an open Pillow image to uint8 (size, size, 3), as in `decode`. Raises UnreadableError."""
    with _readable():
        image.load()
        return _square(_turned(image, _turn(image)), size, fit)


def _register_heif() -> None:
    try:
        import pillow_heif  # imported here because it is rarely needed
    except ImportError:
        raise UnreadableError("a HEIC image, which requires `pip install pillow-heif`") from None
    pillow_heif.register_heif_opener(thumbnails=False)


@contextmanager
def _readable(data: bytes = b"") -> Iterator[None]:
    """Convert decoder errors to UnreadableError."""
    try:
        yield
    except UnidentifiedImageError:
        raise UnreadableError(files.what_it_is(data[: files.HEAD])) from None
    except Image.DecompressionBombError:
        raise UnreadableError(f"more than {PIXELS:,} pixels") from None
    except MemoryError:
        raise UnreadableError("requires more memory than the limit per image") from None
    except UnreadableError:
        raise
    except Exception as error:  # noqa: BLE001 (decoders raise many types for a damaged file)
        number = error.errno if isinstance(error, OSError) else None
        reason = os.strerror(number).lower() if number else " ".join(str(error).split())[:100]
        raise UnreadableError(reason or type(error).__name__) from None


def _reduce(image: Image.Image, data: bytes, least: int) -> None:
    """Let Pillow decode a JPEG or JPEG 2000 image at a reduced size, with both sides at least `least`."""
    image.draft("RGB", (least, least))  # affects only JPEG
    if image.format == "JPEG2000":
        halvings = max(0, int(math.log2(min(image.size) / least)))
        image.reduce = min(halvings, _jpeg2000_levels(data))  # type: ignore[method-assign, assignment]


def _jpeg2000_levels(data: bytes) -> int:
    """Return how many times a JPEG 2000 image can be halved during decoding. Decoding at a smaller size fails."""
    place = data.index(b"\xff\x4f\xff\x51") + 2  # the first marker segment of the codestream
    while data[place : place + 2] not in (b"\xff\x52", b"\xff\x90", b""):  # COD marker, first tile, end of file
        place += 2 + int.from_bytes(data[place + 2 : place + 4])
    return data[place + 9] if data[place : place + 2] == b"\xff\x52" else 0


def _with_turbojpeg(image: Image.Image, data: bytes) -> np.ndarray | None:
    """Decode a color JPEG in half the time that Pillow takes. Return None for other images, and if TurboJPEG fails."""
    if image.format != "JPEG" or image.mode != "RGB":
        return None
    with suppress(ValueError):  # the file is damaged; Pillow reports the reason
        pixels = simplejpeg.decode_jpeg(data, min_height=image.height, min_width=image.width, min_factor=1)
        return pixels if pixels.shape[:2] == (image.height, image.width) else None
    return None


def _with_16_bits(image: Image.Image, data: bytes) -> Image.Image:
    """Decode 16-bit colors with OpenCV. Pillow keeps only the upper eight bits, so 10-bit images would be black."""
    if image.mode not in ("RGB", "RGBA", "LA") or not any(";16" in str(tile[3]) for tile in getattr(image, "tile", ())):
        return image
    values = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if values is None or values.dtype != np.uint16 or values.shape[:2] != (image.height, image.width):
        return image
    pixels = _eight_bits(values)
    code = (
        cv2.COLOR_GRAY2RGB if pixels.ndim == 2 else cv2.COLOR_BGRA2RGBA if pixels.shape[2] == 4 else cv2.COLOR_BGR2RGB
    )
    return Image.fromarray(cv2.cvtColor(pixels, code))


def _as_mask(image: Image.Image) -> Image.Image:
    """Composite alpha over black. Replace the colors of a palette that is not gray with their indices."""
    if image.mode == "P":
        indices, palette = np.asarray(image), np.reshape(np.array(image.getpalette("RGB")), (-1, 3))
        used = palette[np.unique(indices)]
        if (used != used[:, :1]).any():
            return Image.fromarray(indices)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "black"), image).convert("RGB")
    return image


_TURNS = {number: Image.Transpose(turn) for number, turn in {2: 0, 3: 3, 4: 1, 5: 5, 6: 4, 7: 6, 8: 2}.items()}
_SIDEWAYS = {_TURNS[orientation] for orientation in (5, 6, 7, 8)}  # swap width and height


def _turn(image: Image.Image) -> Image.Transpose | None:
    """Return the transposition that undoes the EXIF orientation, or None."""
    with suppress(Exception):  # damaged EXIF
        return _TURNS.get(image.getexif().get(0x0112, 1))
    return None


def _turned(image: Image.Image, turn: Image.Transpose | None) -> Image.Image:
    return image if turn is None else image.transpose(turn)


def _square(image: Image.Image, size: int, fit: Fit) -> np.ndarray:
    left, top, right, bottom = (0, 0, *image.size)
    if fit == "crop":
        side = min(image.size)
        left, top = (image.width - side) // 2, (image.height - side) // 2
        right, bottom = left + side, top + side
    if image.mode.startswith("I") or image.mode == "F":
        image = Image.fromarray(_eight_bits(np.asarray(image)))
    convert = _to_srgb(image)
    pixels = np.empty((bottom - top, right - left, 3), np.uint8)
    for row in range(0, len(pixels), _ROWS):
        strip = image.crop((left, top + row, right, min(top + row + _ROWS, bottom)))
        pixels[row : row + _ROWS] = np.asarray(convert(strip))
    return to_square(pixels[None], size, fit)[0]


def to_square(images: np.ndarray, size: int, fit: Fit = "crop") -> np.ndarray:
    """Resize images (N, H, W, 3), uint8 or float32, to squares of `size` with the same dtype.

    `crop` takes the central square, `pad` adds black around the whole image (like pad_to_aspect_ratio in Keras), and
    `stretch` resizes each side independently. Downsampling averages areas (OpenCV's INTER_AREA), or is bilinear for
    factors below 1.5, where averaging would blur. Upsampling is bicubic, clipped to 0..255.
    """
    height, width = images.shape[1:3]
    if fit == "crop":
        side = min(height, width)
        top, left = (height - side) // 2, (width - side) // 2
        images = images[:, top : top + side, left : left + side]
        height = width = side
    if height == width == size:
        return np.ascontiguousarray(images)
    longer = max(height, width)
    rows, columns = (max(1, round(size * each / longer)) if fit == "pad" else size for each in (height, width))
    out = np.zeros((len(images), size, size, 3), images.dtype)
    top, left = (size - rows) // 2, (size - columns) // 2
    for place, image in enumerate(images):
        out[place, top : top + rows, left : left + columns] = _resized(np.ascontiguousarray(image), rows, columns)
    return np.clip(out, 0, 255, out=out) if out.dtype != np.uint8 else out


def _resized(image: np.ndarray, rows: int, columns: int) -> np.ndarray:
    ways = [_way(image.shape[0], rows), _way(image.shape[1], columns)]
    if ways[0] != ways[1]:  # stretched: each side needs its own interpolation
        image = cv2.resize(image, (columns, image.shape[0]), interpolation=ways[1])
    return cv2.resize(image, (columns, rows), interpolation=ways[0])


def _way(side: int, size: int) -> int:
    return cv2.INTER_CUBIC if side < size else cv2.INTER_LINEAR if 2 * side < 3 * size else cv2.INTER_AREA


_BITS = (8, 10, 12, 16)  # bit depths that cameras, microscopes and scanners store in 16 bits or more
_SPACES = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK"}  # ICC color space: Pillow mode


def _eight_bits(values: np.ndarray) -> np.ndarray:
    """Scale values to uint8. The highest value determines their range: 0 to 1 (floats), or 8, 10, 12 or 16 bits."""
    low, high = values.min(initial=0), values.max(initial=0)
    bits = next((bits for bits in _BITS if high < 2**bits), None)
    if bits is None or not low >= 0:
        raise ValueError(f"values from {low:g} to {high:g}, expected 0 to 1 for floats, or 8, 10, 12 or 16 bits")
    if values.dtype.kind == "f":
        return np.rint(values * (255 / (1 if high <= 1 else 2**bits - 1))).astype(np.uint8)
    table = np.rint(np.arange(2**bits) * (255 / (2**bits - 1))).astype(np.uint8)
    return table[values]


def _to_srgb(image: Image.Image) -> Callable[[Image.Image], Image.Image]:
    """Return a function that converts parts of the 8-bit `image` to sRGB and composites alpha over white.

    A damaged ICC profile, or one that does not match the image, is ignored.
    """
    mode = image.mode if image.mode in _SPACES.values() and not image.has_transparency_data else "RGB"
    profile = image.info.get("icc_profile")
    transform = _transform(profile, mode) if isinstance(profile, bytes) and profile else None

    def convert(part: Image.Image) -> Image.Image:
        if part.has_transparency_data:
            part = part.convert("RGBA")
            part = Image.alpha_composite(Image.new("RGBA", part.size, "white"), part)
        part = part if part.mode == mode else part.convert(mode)
        return transform.apply(part) if transform else part.convert("RGB")

    return convert


@lru_cache(maxsize=16)
def _transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    try:
        given = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if _SPACES.get(given.profile.xcolor_space.strip()) != mode:
            return None
        transform = ImageCms.buildTransform(given, ImageCms.createProfile("sRGB"), mode, "RGB")
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return None
    return None if mode == "RGB" and _is_identity(transform) else transform


def _is_identity(transform: ImageCms.ImageCmsTransform) -> bool:
    """Return whether the transform leaves all RGB colors unchanged up to rounding, as sRGB profiles do."""
    steps = np.arange(0, 256, 15).astype(np.uint8)
    colors = np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(1, -1, 3)
    changed = np.asarray(transform.apply(Image.fromarray(colors)))
    return np.abs(changed.astype(int) - colors).max() <= 2
