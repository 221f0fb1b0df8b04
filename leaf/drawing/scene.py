"""What lies behind a leaf, and what light and camera do to the whole picture."""

import cv2
import numpy as np

from leaf.drawing.shapes import KINDS, Field, Picture, cloud, colour, draw_blade, mix, noise, plane, step


def background(rng: np.random.Generator, size: int) -> Picture:
    """A cloth, a table, soil, paper, or other leaves out of focus."""
    return _BACKGROUNDS[rng.integers(len(_BACKGROUNDS))](rng, size)


def _cloth(rng: np.random.Generator, size: int) -> Picture:
    base = colour(rng.uniform(210, 290), rng.uniform(0.02, 0.14), rng.uniform(0.45, 0.75))
    light = 1 + np.float32(0.12) * noise(rng, size, 3) + np.float32(0.05) * noise(rng, size, size)
    return base * light


def _table(rng: np.random.Generator, size: int) -> Picture:
    base = colour(rng.uniform(18, 38), rng.uniform(0.25, 0.6), rng.uniform(0.3, 0.7))
    x, y = plane(size)
    turn = rng.uniform(0, np.pi)
    across = np.float32(np.cos(turn)) * x + np.float32(np.sin(turn)) * y
    grain = np.sin(across * np.float32(rng.uniform(10, 40)) + 2 * noise(rng, size, 4))
    return base * (1 + np.float32(0.08) * grain + np.float32(0.08) * noise(rng, size, 3))


def _soil(rng: np.random.Generator, size: int) -> Picture:
    base = colour(rng.uniform(12, 36), rng.uniform(0.3, 0.6), rng.uniform(0.28, 0.55))
    crumbs = cloud(rng, size, 10, 4)
    litter = step(noise(rng, size, 22), rng.uniform(0.6, 0.9), 0.15)
    earth = base * (1 + np.float32(0.38) * crumbs)
    return mix(earth, colour(rng.uniform(30, 110), 0.5, rng.uniform(0.3, 0.7)), litter * np.float32(0.7))


def _paper(rng: np.random.Generator, size: int) -> Picture:
    base = colour(rng.uniform(30, 220), rng.uniform(0.0, 0.06), rng.uniform(0.78, 0.93))
    return base * (1 + np.float32(0.06) * noise(rng, size, 2) + np.float32(0.02) * noise(rng, size, size))


def _foliage(rng: np.random.Generator, size: int) -> Picture:
    half = max(size // 2, 16)
    base = colour(rng.uniform(40, 120), rng.uniform(0.3, 0.6), rng.uniform(0.12, 0.4))
    picture = base * (1 + np.float32(0.4) * cloud(rng, half, 6))
    for _ in range(int(rng.integers(2, 5))):
        blade = draw_blade(rng, half, KINDS[rng.integers(len(KINDS))], rng.uniform(0.5, 1.1))
        shift = rng.uniform(-0.8, 0.8, 2) * half
        mask = _moved(blade.mask, shift)
        tone = colour(rng.uniform(45, 125), rng.uniform(0.35, 0.7), rng.uniform(0.25, 0.65))
        light = 0.8 + np.float32(0.25) * blade.vein + np.float32(0.15) * noise(rng, half, 4)
        picture = mix(picture, tone * light, mask)
    blur = rng.uniform(0.4, 2.0)
    planes = [cv2.GaussianBlur(channel, (0, 0), blur) for channel in picture]
    return np.stack([cv2.resize(channel, (size, size), interpolation=cv2.INTER_LINEAR) for channel in planes])


_BACKGROUNDS = (*(_cloth,) * 11, *(_paper,) * 3, _table, _soil, _foliage)


def shadow(rng: np.random.Generator, mask: Field, under: Picture) -> Picture:
    """The shadow that a leaf casts on what it lies on, away from the light."""
    size = len(mask)
    shift = rng.normal(0, 0.035, 2) * size
    dark = cv2.GaussianBlur(_moved(mask, shift), (0, 0), rng.uniform(0.008, 0.05) * size)
    return under * (1 - np.float32(rng.uniform(0.15, 0.65)) * dark)


def _moved(field: Field, shift: np.ndarray) -> Field:
    """A field moved by (x, y) pixels; what comes in at the border is 0."""
    return cv2.warpAffine(field, np.array([[1, 0, shift[0]], [0, 1, shift[1]]], np.float32), field.shape[::-1])


def sunlight(rng: np.random.Generator, size: int) -> Field:
    """Light that falls unevenly, sometimes dappled by other leaves, as a factor for each pixel."""
    x, y = plane(size)
    turn = rng.uniform(0, 2 * np.pi)
    ramp = np.float32(np.cos(turn)) * x + np.float32(np.sin(turn)) * y
    light = 1 + np.float32(rng.uniform(0, 0.22)) * ramp
    if rng.random() < 0.06:
        light = light - np.float32(rng.uniform(0.2, 0.45)) * step(noise(rng, size, 4), rng.uniform(0.0, 0.4), 0.25)
    return light


def camera(rng: np.random.Generator, picture: Picture) -> np.ndarray:
    """Exposure, white balance, focus and sensor noise. Gives the photograph, uint8 (S, S, 3)."""
    gain = np.float32(rng.uniform(0.85, 1.15)) * (1 + rng.normal(0, 0.025, (3, 1, 1)).astype(np.float32))
    photograph = np.clip(picture * gain, 0, 1).transpose(1, 2, 0)
    photograph = cv2.pow(np.ascontiguousarray(photograph), rng.uniform(0.88, 1.13))
    if rng.random() < 0.6:
        photograph = cv2.GaussianBlur(photograph, (0, 0), rng.uniform(0.3, 0.9) * len(photograph) / 96)
    grain = rng.standard_normal(photograph.shape, dtype=np.float32) * np.float32(rng.uniform(1, 6))
    return np.clip(photograph * 255 + grain, 0, 255).round().astype(np.uint8)
