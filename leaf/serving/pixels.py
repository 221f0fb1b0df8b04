"""Whatever a caller has, a path, an upload, a PIL image or an array, into the pixels that ingest would have made."""

from collections.abc import Iterable, Sequence
from io import BytesIO
from pathlib import Path
from typing import TypeAlias

import numpy as np
from PIL import Image

from leaf.errors import LeafError
from leaf.reading.decode import UnreadableError, crop_and_resize, decode, from_pil

ImageLike: TypeAlias = str | Path | Image.Image | np.ndarray
ImagesLike: TypeAlias = ImageLike | Iterable[ImageLike]


def as_list(images: ImagesLike) -> Sequence[ImageLike]:
    """Give single images as a list of one; an array (N, H, W, 3) stays as it is, a memory map unread."""
    if isinstance(images, (str, Path, Image.Image)):
        return [images]
    if isinstance(images, np.ndarray):
        return images[None] if images.ndim == 3 else images  # type: ignore[return-value]
    return list(images)


def name_of(image: ImageLike, number: int) -> str:
    """Give what an image is called in its prediction: its path as given, else its place among the images."""
    return str(image) if isinstance(image, (str, Path)) else str(number)


def prepare(image: ImageLike | bytes, size: int, name: str) -> np.ndarray:
    """Give one image as ingest would store it: turned as its EXIF says, centre-cropped, resized to `size`.

    Args:
        image: a path, a file's bytes, a PIL image, or an array (H, W, 3) of uint8, or of float in 0..255.
        size: side in pixels.
        name: for the error.

    Returns:
        (size, size, 3), uint8, or float32 where the array was of floats.

    Raises:
        LeafError: `NAME: why it cannot be read`.
    """
    try:
        if isinstance(image, bytes):
            return decode(BytesIO(image), size)
        if isinstance(image, (str, Path)):
            return decode(Path(image), size)
        if isinstance(image, Image.Image):
            return from_pil(image, size)
    except UnreadableError as error:
        raise LeafError(f"{name}: {error}") from None
    return crop_and_resize(_checked(np.asarray(image), name)[None], size)[0]


def _checked(array: np.ndarray, name: str) -> np.ndarray:
    if array.ndim != 3 or array.shape[2] != 3 or 0 in array.shape:
        raise LeafError(f"image {name}: an array of shape {array.shape}; valid: (height, width, 3)")
    if array.dtype == np.uint8:
        return array
    if array.dtype.kind not in "fiu":
        raise LeafError(f"image {name}: an array of {array.dtype}; valid: uint8, or numbers from 0 to 255")
    array = array.astype(np.float32)
    low, high = array.min(), array.max()
    if not (low >= 0 and high <= 255):  # also catches nan
        raise LeafError(f"image {name}: values from {low:g} to {high:g}; valid: 0 to 255")
    if 0 < high <= 1:
        raise LeafError(f"image {name}: values reach {high:g} only; valid: 0 to 255, so multiply by 255 first")
    return array
