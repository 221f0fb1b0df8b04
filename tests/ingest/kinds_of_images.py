"""Create small image files in every supported format, as cameras and other programs write them."""

import io
import struct
import zlib

import cv2
import numpy as np
from PIL import Image, ImageCms


def quarters(width: int = 32, height: int = 32) -> np.ndarray:
    """Return red, green, blue and white quarters, uint8 (height, width, 3), which reveal any rotation or flip."""
    pixels = np.zeros((height, width, 3), np.uint8)
    top, left = height // 2, width // 2
    pixels[:top, :left, 0] = pixels[:top, left:, 1] = pixels[top:, :left, 2] = 255
    pixels[top:, left:] = 255
    return pixels


def saved(image: Image.Image | np.ndarray, kind: str, **options) -> bytes:
    """Encode an image in Pillow's format `kind`."""
    if kind == "HEIF":
        import pillow_heif

        pillow_heif.register_heif_opener()
    image = image if isinstance(image, Image.Image) else Image.fromarray(image)
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def animated(kind: str, **options) -> bytes:
    """Return an image with two frames, gray 40 and gray 200."""
    first, second = (Image.fromarray(np.full((16, 16, 3), value, np.uint8)) for value in (40, 200))
    return saved(first, kind, save_all=True, append_images=[second], duration=100, **options)


def many_scans(pixels: np.ndarray, scans: int) -> bytes:
    """Return a progressive JPEG with `scans` scans; the last one is repeated."""
    data = saved(pixels, "JPEG", progressive=True)
    starts = [place for place in range(len(data)) if data[place : place + 2] == b"\xff\xda"]
    end = data.rindex(b"\xff\xd9")
    return data[:end] + data[starts[-1] : end] * (scans - len(starts)) + data[end:]


def deep_png(values: np.ndarray) -> bytes:
    """Return a 16-bit PNG of `values`, uint16 (H, W, 3) RGB."""
    return cv2.imencode(".png", values[..., ::-1])[1].tobytes()


def display_p3() -> bytes:
    """Return the ICC profile of Display P3, which phones use: the transfer curve of sRGB with different primaries."""
    primaries = ((0.515121, 0.241196, -0.001053), (0.291977, 0.692245, 0.041885), (0.157104, 0.066574, 0.784073))
    curve = b"para\0\0\0\0\0\3\0\0" + b"".join(_fixed(x) for x in (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045))
    tags = {
        b"desc": b"desc\0\0\0\0\0\0\0\x0bDisplay P3\0" + bytes(79),
        b"wtpt": _xyz(0.96420, 1, 0.82491),
        **{name: _xyz(*primary) for name, primary in zip((b"rXYZ", b"gXYZ", b"bXYZ"), primaries, strict=True)},
        **dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), curve),
    }
    table, body, place = struct.pack(">I", len(tags)), b"", 128 + 4 + 12 * len(tags)
    for name, value in tags.items():
        value += bytes(-len(value) % 4)
        table += name + struct.pack(">II", place + len(body), len(value))
        body += value
    white = _fixed(0.9642) + _fixed(1) + _fixed(0.82491)
    head = struct.pack(">I4sI4s4s4s", place + len(body), b"lcms", 0x02400000, b"mntr", b"RGB ", b"XYZ ")
    return head + bytes(12) + b"acsp" + bytes(28) + white + bytes(128 - 80) + table + body


def _fixed(value: float) -> bytes:
    return struct.pack(">i", round(value * 65536))


def _xyz(*values: float) -> bytes:
    return b"XYZ \0\0\0\0" + b"".join(map(_fixed, values))


def srgb() -> bytes:
    """Return the ICC profile of sRGB."""
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def with_exif(jpeg: bytes, exif: bytes) -> bytes:
    """Return the JPEG with `exif` as its EXIF segment."""
    return jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 8) + b"Exif\0\0" + exif + jpeg[2:]


def png_chunk(kind: bytes, data: bytes) -> bytes:
    """Return one chunk of a PNG file."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
