"""The geometry of one leaf: its position, outline and veins."""

from dataclasses import dataclass
from functools import cache

import cv2
import numpy as np

Field = np.ndarray
Image = np.ndarray


def noise(rng: np.random.Generator, size: int, cells: int) -> Field:
    """Return smooth noise between about -1 and 1, with bumps of `size / cells` pixels."""
    grid = rng.random((cells, cells)) * 2 - 1
    return cv2.resize(grid, (size, size), interpolation=cv2.INTER_CUBIC)


def cloud(rng: np.random.Generator, size: int, cells: int, octaves: int = 3) -> Field:
    """Return noise at several scales, each octave twice as fine and half as strong, like soil or stone."""
    total = noise(rng, size, cells)
    for octave in range(1, octaves):
        total += noise(rng, size, min(cells * 2**octave, size)) * (0.5**octave)
    return total


def step(values: Field, edge: float, width: float) -> Field:
    """Return 0 below `edge` and 1 above, with a ramp of `width` that avoids jagged borders."""
    return np.clip((values - edge) / width + 0.5, 0, 1)


def mix(below: Image, above: Image, amount: Field) -> Image:
    """Blend `above` (an image or one color) over `below` with the opacity `amount`, 0 to 1 per pixel."""
    return below + (above - below) * amount


def hsv(hue: float, saturation: float, value: float) -> np.ndarray:
    """Return the RGB color, float64 (3,1,1), of a hue in degrees and a saturation and value in [0, 1]."""
    sector = (np.array([5, 3, 1]) + (hue / 60)) % 6
    ramp = np.clip(np.minimum(sector, 4 - sector), 0, 1)
    return (value * (1 - saturation * ramp)).reshape(3, 1, 1)


def rgb(red: float, green: float, blue: float) -> np.ndarray:
    """Return an RGB color, float64 (3,1,1), from channel values in [0, 1]."""
    return np.array([red, green, blue]).reshape(3, 1, 1)


@dataclass(frozen=True)
class Blade:
    """The surface of a leaf per pixel, each field float64 (S,S)."""

    mask: Field  # 1 on the leaf
    along: Field  # 0 at the stalk, 1 at the tip
    side: Field  # -1 to 1 across the midrib
    depth: Field  # 0 at the margin, 1 in the middle
    vein: Field  # 1 on a vein
    stalk: Field  # 1 on the stalk


@dataclass(frozen=True)
class Kind:
    """The leaf shape of a kind of plant. Pairs are ranges of random values."""

    width: tuple[float, float]  # half width over half length
    base: tuple[float, float]  # exponents of the width profile t^base (1-t)^tip; smaller values are blunter
    tip: tuple[float, float]
    teeth: tuple[int, int] = (0, 1)  # number of teeth along one margin
    tooth: float = 0.0  # height of the teeth, as a share of the width
    lobes: float = 0.0  # amplitude of the lobes of the margin, as in oak
    palmate: bool = False  # whether the veins fan out from the base


KINDS = (
    Kind((0.42, 0.62), (0.45, 0.7), (0.7, 1.1), (14, 26), 0.05),  # apple
    Kind((0.30, 0.40), (0.6, 0.9), (0.8, 1.2)),  # willow
    Kind((0.75, 0.95), (0.30, 0.45), (0.35, 0.5), (9, 14), 0.12, palmate=True),  # strawberry
    Kind((0.62, 0.80), (0.25, 0.40), (0.8, 1.2)),  # bean
    Kind((0.48, 0.65), (0.7, 0.9), (0.5, 0.8), lobes=0.22),  # oak
    Kind((0.55, 0.75), (0.35, 0.5), (0.5, 0.8), (6, 9), 0.14, palmate=True),  # vine
    Kind((0.40, 0.52), (0.8, 1.2), (0.4, 0.55)),  # obovate, such as magnolia
)


@cache
def plane(size: int) -> tuple[Field, Field]:
    """Return the coordinates x and y of each pixel's center, from -1 to 1 across the image."""
    line = (np.arange(size) + 0.5) * 2 / size - 1
    return np.broadcast_to(line, (size, size)), np.broadcast_to(line[:, None], (size, size))


def draw_blade(rng: np.random.Generator, size: int, kind: Kind, reach: float) -> Blade:
    """Place a leaf at a random position and angle; `reach` is its length relative to the image side."""
    x, y = plane(size)
    turn = rng.uniform(0, 2 * np.pi)
    cosine, sine = np.cos(turn), np.sin(turn)
    x, y = x - rng.normal(0, 0.10), y - rng.normal(0, 0.10)
    u = (cosine * x + sine * y) / reach
    v = (cosine * y - sine * x) / reach
    v = v + rng.normal(0, 0.13) * (u * u - 0.4)  # most leaves are bent
    along = (u + 1) / 2
    half = _half_width(rng, kind, np.clip(along, 0.002, 0.998), size)
    half = half * np.where(v > 0, rng.uniform(0.88, 1.08), rng.uniform(0.88, 1.08))
    distance = np.abs(v)
    pixel = 2 / size / reach
    inside = step(half - distance, 0, 1.6 * pixel) * step(np.minimum(along, 1 - along), 0, pixel)
    side = np.clip(v / half, -1, 1)
    vein = _veins(rng, kind, along, side, distance, pixel)
    stalk = _stalk(rng, u, v, pixel)
    ends = np.minimum(along, 1 - along) * 6
    depth = np.clip(np.minimum(1 - np.abs(side), ends), 0, 1)
    return Blade(inside, along, side, depth, vein, stalk)


def _half_width(rng: np.random.Generator, kind: Kind, along: Field, size: int) -> Field:
    base, tip = rng.uniform(*kind.base), rng.uniform(*kind.tip)
    widest = base / (base + tip)
    level = np.log(rng.uniform(*kind.width)) - base * np.log(widest) - tip * np.log(1 - widest)
    half = np.exp(base * np.log(along) + tip * np.log(1 - along) + level)
    if kind.tooth:
        phase = along * rng.integers(*kind.teeth)
        half *= 1 - (kind.tooth * rng.uniform(0.5, 1.4)) * (phase % 1)
    if kind.lobes:
        waves = np.cos(along * (2 * np.pi * rng.integers(4, 7)) + rng.uniform(0, 6))
        half *= 1 + (kind.lobes * rng.uniform(0.6, 1.2)) * waves
    return half * (1 + 0.05 * noise(rng, size, 6))


def _veins(rng: np.random.Generator, kind: Kind, along: Field, side: Field, distance: Field, pixel: float) -> Field:
    midrib = 1 - step(distance, 1.1 * pixel, 1.8 * pixel) * (1 - 0.2 * np.clip(1 - along, 0, 1))
    outward = np.abs(side)
    if kind.palmate:
        angle = np.arctan2(outward * 0.8, along + 0.06)
        phase = angle * rng.uniform(3.0, 4.2) + 0.5
        fine = phase * 3
    else:
        pairs = rng.uniform(5, 9)
        phase = (along - outward * rng.uniform(0.12, 0.30)) * pairs
        phase = phase + np.where(side > 0, rng.uniform(0, 0.5), 0)
        fine = phase * 2 + outward * 4
    ribs = np.clip((np.cos(phase * (2 * np.pi)) - 0.9) / (1 - 0.9), 0, 1) * (1 - 0.45 * outward)
    net = np.clip((np.cos(fine * (2 * np.pi)) - 0.8) / 0.2, 0, 1) * 0.25
    return np.maximum(np.maximum(midrib, ribs * 0.8), net)


def _stalk(rng: np.random.Generator, u: Field, v: Field, pixel: float) -> Field:
    behind = -1 - u  # 0 at the base of the blade
    swing = v - rng.normal(0, 0.35) * behind * behind
    thick = rng.uniform(1.0, 2.0) * pixel
    inside, after = step(thick - np.abs(swing), 0, pixel), step(behind, -0.03, pixel)
    return inside * after * step(rng.uniform(0.3, 0.8) - behind, 0, pixel)
