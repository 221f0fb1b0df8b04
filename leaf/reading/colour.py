"""Any kind of image into 8-bit sRGB, by what its values and its profile mean."""

import io
from collections.abc import Callable
from functools import lru_cache

import numpy as np
from PIL import Image, ImageCms

_BITS = (8, 10, 12, 16)  # of cameras, microscopes and scanners that store them in 16 bits or more
_SPACES = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK"}  # of a profile, and the mode of an image that it describes


def eight_bits(values: np.ndarray) -> np.ndarray:
    """Values of any shape as uint8, by their real range: 0 to 1 for floats, else 8, 10, 12 or 16 bits.

    Raises ValueError for values that are in none of these ranges.
    """
    low, high = values.min(initial=0), values.max(initial=0)
    bits = next((bits for bits in _BITS if high < 2**bits), None)
    if bits is None or not low >= 0:
        raise ValueError(f"values from {low:g} to {high:g}; valid: 0 to 1 for floats, or 8, 10, 12 or 16 bits")
    if values.dtype.kind == "f":
        return np.rint(values * (255 / (1 if high <= 1 else 2**bits - 1))).astype(np.uint8)
    table = np.rint(np.arange(2**bits) * (255 / (2**bits - 1))).astype(np.uint8)
    return table[values]


def to_srgb(image: Image.Image) -> Callable[[Image.Image], Image.Image]:
    """Give what turns `image` of 8 bits, or a part of it, into sRGB.

    Transparency is laid over white. An embedded ICC profile is converted; one that does not fit the image, or cannot be
    read, is as if it were not there.
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
    return None if mode == "RGB" and _changes_nothing(transform) else transform


def _changes_nothing(transform: ImageCms.ImageCmsTransform) -> bool:
    """Whether colours all over RGB stay within rounding: the profile is one of the many that are sRGB themselves."""
    steps = np.arange(0, 256, 15).astype(np.uint8)
    colours = np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(1, -1, 3)
    changed = np.asarray(transform.apply(Image.fromarray(colours)))
    return int(np.abs(changed.astype(int) - colours).max()) <= 2
