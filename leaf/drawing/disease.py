"""What makes a leaf unhealthy: each function draws one disease on it, weak to strong.

All take the random generator, the leaf's geometry, its picture and a strength from 0 (hardly seen) to 1, and return
the changed picture; `holes` returns the share of the leaf that is left at each pixel instead.
"""

from collections.abc import Callable

import numpy as np

from leaf.drawing.shapes import Blade, Field, Picture, cloud, colour, mix, noise, plane, rgb, step

Disease = Callable[[np.random.Generator, Blade, Picture, float], Picture]


def spots(rng: np.random.Generator, blade: Blade, body: Picture, strength: float) -> Picture:
    """Leaf spot: round, uneven, brown patches with a dark rim and a yellow halo."""
    count = int(rng.integers(6, 10) + strength * rng.integers(6, 18))
    near = _nearest(rng, blade, count, rng.uniform(0.08, 0.11) + 0.06 * strength * rng.random())
    near = near + np.float32(0.25) * noise(rng, len(near), 24)
    halo = colour(rng.uniform(48, 62), rng.uniform(0.5, 0.8), rng.uniform(0.55, 0.8))
    heart = colour(rng.uniform(18, 38), rng.uniform(0.35, 0.7), rng.uniform(0.25, 0.6))
    body = mix(body, halo, (1 - step(near, 1.5, 0.8)) * np.float32(0.25 + 0.45 * strength))
    body = mix(body, heart * np.float32(0.45), (1 - step(near, 1.0, 0.5)) * np.float32(0.9))
    return mix(body, heart, (1 - step(near, 0.65, 0.4)) * np.float32(0.85))


def rust(rng: np.random.Generator, blade: Blade, body: Picture, strength: float) -> Picture:
    """Rust: many small orange or dark pustules, thick in some places."""
    count = int(40 + 90 * strength)
    near = _nearest(rng, blade, count, rng.uniform(0.034, 0.05))
    shade = colour(rng.uniform(14, 32), rng.uniform(0.7, 0.9), rng.uniform(0.5, 0.8))
    return mix(body, shade, (1 - step(near, 1.0, 0.9)) * np.float32(0.9))


def blight(rng: np.random.Generator, blade: Blade, body: Picture, strength: float) -> Picture:
    """Blight: a dead brown area that has eaten its way in from the tip, the stalk or one margin."""
    start = rng.integers(3)
    if start == 0:
        reach = blade.along
    elif start == 1:
        reach = 1 - blade.along
    else:
        reach = (1 + np.sign(rng.random() - 0.5) * blade.side) / 2
    front = reach + np.float32(0.16) * cloud(rng, len(reach), 5) - np.float32(0.72 - 0.38 * strength)
    dead = colour(rng.uniform(18, 34), rng.uniform(0.35, 0.65), rng.uniform(0.22, 0.5))
    texture = 1 + np.float32(0.25) * cloud(rng, len(reach), 16, 2)
    body = mix(body, colour(rng.uniform(46, 60), 0.7, 0.65), step(front, -0.07, 0.14) * np.float32(0.55))
    return mix(body, dead * texture, step(front, 0.02, 0.07) * np.float32(0.92))


def scorch(rng: np.random.Generator, blade: Blade, body: Picture, strength: float) -> Picture:
    """Scorch: the margin all round dries out."""
    margin = blade.depth + np.float32(0.14) * cloud(rng, len(blade.depth), 8)
    rim = 1 - step(margin, 0.25 + 0.25 * strength, 0.10)
    dead = colour(rng.uniform(18, 36), rng.uniform(0.4, 0.7), rng.uniform(0.25, 0.55))
    return mix(body, dead, rim * np.float32(0.88))


def chlorosis(rng: np.random.Generator, blade: Blade, body: Picture, strength: float) -> Picture:
    """Chlorosis: the green fades between the veins, in patches, while the veins stay green."""
    patch = step(noise(rng, len(blade.vein), 4), rng.uniform(-0.5, 0.2) - 0.3 * strength, 0.5)
    pale = colour(rng.uniform(50, 66), rng.uniform(0.45, 0.75), rng.uniform(0.65, 0.85))
    between = np.clip(1 - blade.vein * np.float32(1.4), 0, 1)
    return mix(body, pale, patch * between * np.float32(0.75 + 0.25 * strength))


def mosaic(rng: np.random.Generator, blade: Blade, body: Picture, strength: float) -> Picture:
    """Mosaic virus: angular light and dark patches with sharp borders."""
    size = len(blade.mask)
    field = noise(rng, size, int(rng.integers(9, 15)))
    light = step(field, 0.12, 0.16)
    dark = step(-field, 0.25, 0.16)
    body = mix(
        body,
        body * np.float32(1.4) + rgb(0.20, 0.22, 0.02),
        light * np.float32(0.6 + 0.4 * strength),
    )
    return mix(body, body * np.float32(0.4), dark * np.float32(0.6 + 0.4 * strength))


def mildew(rng: np.random.Generator, blade: Blade, body: Picture, strength: float) -> Picture:
    """Powdery mildew: whitish, dusty patches."""
    size = len(blade.mask)
    near = _nearest(rng, blade, int(4 + 7 * strength), rng.uniform(0.12, 0.18))
    dust = np.clip(1.25 - near + np.float32(0.35) * cloud(rng, size, 12), 0, 1)
    grain = np.float32(0.75) + np.float32(0.25) * noise(rng, size, size)
    return mix(body, colour(rng.uniform(60, 120), 0.06, 0.88), dust * grain * np.float32(0.65 + 0.3 * strength))


def holes(rng: np.random.Generator, blade: Blade, strength: float) -> tuple[Field, Field]:
    """Chewed holes and bites. Gives what is left of the leaf (0 in a hole) and the brown rim around it."""
    near = _nearest(rng, blade, int(3 + 5 * strength + rng.integers(3)), rng.uniform(0.08, 0.11) + 0.05 * strength)
    near = near + np.float32(0.3) * noise(rng, len(near), 20)
    return step(near, 1.0, 0.25), 1 - step(near, 1.35, 0.4)


DISEASES: tuple[Disease, ...] = (spots, rust, blight, scorch, chlorosis, mosaic, mildew)


def _nearest(rng: np.random.Generator, blade: Blade, count: int, radius: float) -> Field:
    """Distance from each pixel to the nearest of `count` random points on the leaf, in radii of that point."""
    size = len(blade.mask)
    rows, columns = np.nonzero(blade.mask > 0.5)
    if not len(rows):
        return np.full((size, size), 9, np.float32)
    picked = rng.integers(0, len(rows), count)
    x, y = plane(size)
    nearest = np.full((size, size), 9, np.float32)
    for row, column in zip(rows[picked], columns[picked], strict=True):
        own = max(radius * rng.uniform(0.6, 1.5), 1.4 / size)
        span = int(own * 2.2 * size / 2) + 2
        window = (slice(max(row - span, 0), row + span + 1), slice(max(column - span, 0), column + span + 1))
        stretch = rng.uniform(0.75, 1.33)
        far = np.hypot((x[window] - x[row, column]) * stretch, (y[window] - y[row, column]) / stretch)
        np.minimum(nearest[window], far / np.float32(own), out=nearest[window])
    return nearest
