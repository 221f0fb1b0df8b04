"""Small building blocks of a drawn photograph: smooth noise, soft steps, mixing of colours.

A field is float32 (S, S), a picture float32 (3, S, S) in RGB, 0 to 1, a colour (3, 1, 1): with the channels in front
numpy's inner loops run over whole rows instead of three values.
"""

import cv2
import numpy as np

Field = np.ndarray
Picture = np.ndarray


def noise(rng: np.random.Generator, size: int, cells: int) -> Field:
    """Smooth noise about -1 to 1 whose bumps are `size / cells` pixels wide."""
    grid = rng.random((cells, cells), dtype=np.float32) * 2 - 1
    return cv2.resize(grid, (size, size), interpolation=cv2.INTER_CUBIC)


def cloud(rng: np.random.Generator, size: int, cells: int, octaves: int = 3) -> Field:
    """Noise at several scales, each octave twice as fine and half as strong, as soil and stone have it."""
    total = noise(rng, size, cells)
    for octave in range(1, octaves):
        total += noise(rng, size, min(cells * 2**octave, size)) * np.float32(0.5**octave)
    return total


def step(values: Field, edge: float, width: float) -> Field:
    """0 below `edge`, 1 above, with a ramp of `width` between: a threshold without jagged borders."""
    return np.clip((values - np.float32(edge)) / np.float32(width) + np.float32(0.5), 0, 1)


def mix(below: Picture, above: Picture, amount: Field) -> Picture:
    """Lay `above` (a picture or one colour) over `below`, as far as `amount` (0 to 1) says at each pixel."""
    return below + (above - below) * amount


def colour(hue: float, saturation: float, value: float) -> np.ndarray:
    """An RGB colour, float32 (3, 1, 1), from hue in degrees, saturation and value 0 to 1."""
    sector = (np.array([5, 3, 1], np.float32) + np.float32(hue / 60)) % 6
    ramp = np.clip(np.minimum(sector, 4 - sector), 0, 1)
    return (np.float32(value) * (1 - np.float32(saturation) * ramp)).reshape(3, 1, 1)


def rgb(red: float, green: float, blue: float) -> np.ndarray:
    """An RGB colour, float32 (3, 1, 1), from its parts, 0 to 1."""
    return np.array([red, green, blue], np.float32).reshape(3, 1, 1)
