"""Generate images of different subjects that share most pixels: paper, cloth, padding, slides, the same background."""

import cv2
import numpy as np

SIDE = 96


def texture(rng: np.random.Generator, height: int, width: int, cells: int, contrast: float) -> np.ndarray:
    """Return smooth noise at three scales: float64 (height, width, 1)."""
    total = np.zeros((height, width))
    for octave in range(3):
        size = [min(side, max(2, round(cells * 2**octave * side / max(height, width)))) for side in (height, width)]
        total += cv2.resize(rng.normal(0, contrast * 0.6**octave, size), (width, height), interpolation=cv2.INTER_CUBIC)
    return total[..., None]


def with_leaf(background: np.ndarray, rng: np.random.Generator, share: float) -> np.ndarray:
    """Return `background` (S,S,3) with a leaf near the center that covers `share` of its side: uint8 (S,S,3)."""
    side = int(share * len(background))
    angles = np.linspace(0, 2 * np.pi, 120, endpoint=False)
    outline = np.stack([np.cos(angles), rng.uniform(0.35, 0.8) * np.sin(angles)], axis=1)
    outline *= (1 + rng.uniform(0, 0.08) * np.sin(angles * rng.integers(5, 15)))[:, None]
    tilt = rng.uniform(0, np.pi)
    outline = outline @ [[np.cos(tilt), np.sin(tilt)], [-np.sin(tilt), np.cos(tilt)]]
    mask = cv2.fillPoly(np.zeros((4 * side, 4 * side), np.uint8), [np.int32((outline * 1.88 + 2) * side)], 255)
    mask = cv2.resize(mask, (side, side), interpolation=cv2.INTER_AREA)[..., None] / 255
    leaf = rng.uniform((50, 100, 30), (100, 150, 70)) + texture(rng, side, side, 5, 18)
    image, place = background.astype(float), (len(background) - side) // 2 + int(rng.integers(-2, 3))
    inside = image[place : place + side, place : place + side]
    inside += (leaf - inside) * mask
    return as_image(image)


def as_image(pixels: np.ndarray) -> np.ndarray:
    return np.clip(pixels, 0, 255).astype(np.uint8)


def jpeg(image: np.ndarray, quality: int) -> np.ndarray:
    return cv2.imdecode(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1], cv2.IMREAD_COLOR)


def paper(rng: np.random.Generator, share: float = 0.25) -> np.ndarray:
    """Return a scan of a leaf on white paper."""
    return jpeg(with_leaf(np.clip(248 + rng.normal(0, 1.5, (SIDE, SIDE, 3)), 0, 255), rng, share), 90)


def cloth(rng: np.random.Generator, share: float = 0.25) -> np.ndarray:
    """Return a leaf on a random part of a cloth that is the same in all images."""
    whole = 120 + texture(np.random.default_rng(0), 3 * SIDE, 3 * SIDE, 60, 14) + [0, 5, -8]
    top, left = rng.integers(0, 2 * SIDE, 2)
    return jpeg(with_leaf(whole[top : top + SIDE, left : left + SIDE], rng, share), 90)


def one_background(rng: np.random.Generator, share: float = 0.25) -> np.ndarray:
    """Return a leaf on a background with identical pixels in all images."""
    return jpeg(with_leaf(110 + texture(np.random.default_rng(0), SIDE, SIDE, 8, 30) + [0, 8, -20], rng, share), 90)


def leaf_strip(rng: np.random.Generator, ratio: float = 6) -> np.ndarray:
    """Return a narrow leaf before padding: uint8 (SIDE / ratio, SIDE, 3)."""
    height = round(SIDE / ratio)
    return as_image(np.array([80, 125, 55]) + rng.normal(0, 6, 3) + texture(rng, height, SIDE, 14, 15))


def strip(rng: np.random.Generator, ratio: float = 6) -> np.ndarray:
    """Return a narrow leaf, padded with black like `fit: pad`."""
    narrow = leaf_strip(rng, ratio)
    top = (SIDE - len(narrow)) // 2
    return np.pad(narrow, ((top, SIDE - len(narrow) - top), (0, 0), (0, 0)))


def slide(rng: np.random.Generator, cells: int = 8) -> np.ndarray:
    """Return a microscope slide: a few cells in a pale disk with a black border."""
    rows, columns = np.mgrid[:SIDE, :SIDE]
    image = np.array([225, 190, 215]) + texture(rng, SIDE, SIDE, 6, 3)
    for y, x, radius in zip(*rng.uniform((14, 14, 2), (82, 82, 5), (cells, 3)).T, strict=True):
        image[(rows - y) ** 2 + (columns - x) ** 2 < radius**2] -= [40, 50, 25]
    image[(rows - 47.5) ** 2 + (columns - 47.5) ** 2 > 44**2] = 0
    return jpeg(as_image(image), 92)


SETS = {
    "paper": paper,
    "paper, half": lambda rng: paper(rng, 0.5),
    "cloth": cloth,
    "cloth, half": lambda rng: cloth(rng, 0.5),
    "one background": one_background,
    "one background, half": lambda rng: one_background(rng, 0.5),
    "strip 3:1": lambda rng: strip(rng, 3),
    "strip 6:1": strip,
    "strip 13:1": lambda rng: strip(rng, 13),
    "slide": slide,
    "slide, one cell": lambda rng: slide(rng, 1),
}
