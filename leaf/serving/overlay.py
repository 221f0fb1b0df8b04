"""A photograph under its heat map, as a picture."""

import io
from pathlib import Path

import numpy as np
from PIL import Image

from leaf.store import replacing

SIDE = 288  # pixels at least; the network's own images are too small to look at
_STOPS = np.array([[0, 0, 4], [87, 16, 110], [188, 55, 84], [249, 142, 9], [252, 255, 164]], np.float64)  # inferno


def draw(image: np.ndarray, strength: np.ndarray) -> Image.Image:
    """Lay a heat map over an image: where nothing was seen the image is grey, where much was seen it glows.

    Args:
        image: (S, S, 3), 0..255.
        strength: (S, S), 0 to 1.

    Returns:
        A picture of at least 288×288, a whole multiple of S.
    """
    scale = max(1, -(-SIDE // len(image)))
    size = (len(image) * scale, len(image) * scale)
    photograph = np.asarray(Image.fromarray(np.asarray(image, np.uint8)).resize(size, Image.Resampling.BICUBIC), float)
    weight = Image.fromarray(np.asarray(strength, np.float32)).resize(size, Image.Resampling.BILINEAR)
    heat = np.clip(np.asarray(weight), 0, 1)
    grey = photograph.mean(axis=2, keepdims=True)
    places = heat * (len(_STOPS) - 1)
    colour = np.stack([np.interp(places, range(len(_STOPS)), _STOPS[:, k]) for k in range(3)], axis=-1)
    share = 0.65 * heat[..., None]
    return Image.fromarray(np.clip((1 - share) * grey + share * colour, 0, 255).astype(np.uint8))


def png(image: np.ndarray, strength: np.ndarray) -> bytes:
    """Give `draw`'s picture as a PNG file's bytes."""
    file = io.BytesIO()
    draw(image, strength).save(file, "PNG")
    return file.getvalue()


def write(image: np.ndarray, strength: np.ndarray, path: Path) -> None:
    """Write `draw`'s picture to `path`, a PNG file."""
    with replacing(path) as partial:
        partial.write_bytes(png(image, strength))
