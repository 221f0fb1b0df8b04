"""Draw one image: a leaf, healthy or diseased, its background, the light and the camera."""

from dataclasses import dataclass
from functools import cache

import cv2
import numpy as np

Field = np.ndarray  # float64 (S,S)
Image = np.ndarray  # float64 (3,S,S)


def draw_leaf(rng: np.random.Generator, size: int, healthy: bool, disease: str = "") -> np.ndarray:
    """Draw one image, uint8 (size,size,3) RGB, which depends only on `rng` and the other arguments.

    An unhealthy leaf has `disease`, a name in `DISEASES`, or one or two random diseases if it is empty.
    """
    background = _BACKGROUNDS[rng.integers(len(_BACKGROUNDS))](rng, size)
    blade = draw_blade(rng, size, KINDS[rng.integers(len(KINDS))], rng.uniform(0.92, 1.05))
    body, mask = _body(rng, blade), blade.mask
    if not healthy:
        body, left = _sicken(rng, blade, body, disease)
        mask = mask * left
    body = _gloss(rng, blade, body * _relief(rng, blade))
    image = _shadow(rng, np.maximum(mask, blade.stalk), background)
    image = mix(image, hsv(rng.uniform(20, 100), 0.5, rng.uniform(0.3, 0.65)), blade.stalk)
    image = mix(image, body, mask)
    return _camera(rng, image * _sunlight(rng, size))


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
    turn = rng.uniform(0, 2 * np.pi)
    cosine, sine = np.cos(turn), np.sin(turn)
    x, y = (line - rng.normal(0, 0.10) for line in plane(size))
    u = (cosine * x + sine * y) / reach
    v = (cosine * y - sine * x) / reach
    v = v + rng.normal(0, 0.13) * (u * u - 0.4)  # most leaves are bent
    along = (u + 1) / 2
    half = _half_width(rng, kind, np.clip(along, 0.002, 0.998), size)
    half *= np.where(v > 0, rng.uniform(0.88, 1.08), rng.uniform(0.88, 1.08))
    distance = np.abs(v)
    pixel = 2 / size / reach
    inside = step(half - distance, 0, 1.6 * pixel) * step(np.minimum(along, 1 - along), 0, pixel)
    side = np.clip(v / half, -1, 1)
    depth = np.clip(np.minimum(1 - np.abs(side), np.minimum(along, 1 - along) * 6), 0, 1)
    vein = _veins(rng, kind, along, side, distance, pixel)
    return Blade(inside, along, side, depth, vein, _stalk(rng, u, v, pixel))


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
        phase = np.arctan2(outward * 0.8, along + 0.06) * rng.uniform(3.0, 4.2) + 0.5
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


def _tone(rng: np.random.Generator) -> np.ndarray:
    """Return the color of a healthy blade: usually green, sometimes yellow or purple as in autumn or in cultivars.

    Diseases can also make leaves yellow, and backgrounds can be brown, so color does not separate the classes.
    """
    pick = rng.random()
    if pick < 0.92:
        return hsv(rng.uniform(84, 130), rng.uniform(0.45, 0.72), rng.uniform(0.26, 0.62))
    if pick < 0.985:
        return hsv(rng.uniform(56, 80), rng.uniform(0.45, 0.8), rng.uniform(0.42, 0.75))
    return hsv(rng.uniform(330, 372) % 360, rng.uniform(0.35, 0.6), rng.uniform(0.25, 0.5))


def _body(rng: np.random.Generator, blade: Blade) -> Image:
    size = len(blade.mask)
    tone = _tone(rng)
    shade = 1 + 0.10 * noise(rng, size, 5) + 0.05 * noise(rng, size, 30)
    body = tone * (shade + rng.uniform(-0.2, 0.2) * (blade.along - 0.5))
    if rng.random() < 0.04:  # variegated: a pale margin or center with a sharp border
        inward = rng.random() < 0.5
        border = step(blade.depth + 0.10 * noise(rng, size, 9), rng.uniform(0.25, 0.5), 0.1)
        pale = hsv(rng.uniform(50, 75), rng.uniform(0.12, 0.45), rng.uniform(0.7, 0.88))
        body = mix(body, pale, border if inward else 1 - border)
    rib = tone * 0.6 + rgb(0.32, 0.34, 0.2) if rng.random() < 0.8 else tone * 0.65
    return mix(body, rib, blade.vein * rng.uniform(0.25, 0.7))


def _sicken(rng: np.random.Generator, blade: Blade, body: Image, disease: str) -> tuple[Image, Field]:
    """Draw a clearly visible `disease`, or one or two random diseases; return the body and a mask with holes."""
    left = np.ones_like(blade.mask)
    strength = float(0.7 + 0.3 * rng.random())  # from 0 (barely visible) to 1
    chosen = rng.choice(DISEASES, 1 + int(rng.random() < 0.35), replace=False)
    for name in [disease] if disease else chosen:
        if name in _DRAWN:
            body = _DRAWN[name](rng, blade, body, strength)
        else:
            left, rim = _holes(rng, blade, strength)
            body = mix(body, hsv(rng.uniform(20, 40), 0.5, 0.35), rim * 0.75)
    return body, left


def _relief(rng: np.random.Generator, blade: Blade) -> Field:
    """Return light and shade on the blade: sunken veins, a fold at the midrib, a curl at the margin."""
    height = noise(rng, len(blade.mask), 8) * 0.4 - blade.vein * rng.uniform(0.3, 0.9)
    turn = rng.uniform(0, 2 * np.pi)
    slope = np.zeros_like(height)
    slope[:, 1:] += np.cos(turn) * (height[:, 1:] - height[:, :-1])
    slope[1:] += np.sin(turn) * (height[1:] - height[:-1])
    fold = np.tanh(blade.side * 6) * rng.normal(0, 0.09)
    curl = (1 - blade.depth) ** 2 * rng.uniform(-0.05, 0.28)
    return 1 + 0.30 * slope + fold - curl


def _gloss(rng: np.random.Generator, blade: Blade, body: Image) -> Image:
    """Add glare and sometimes drops of water or dust: bright marks that are not symptoms."""
    size = len(blade.mask)
    if rng.random() < 0.4:
        glare = step(noise(rng, size, 5) - blade.vein * 0.4, rng.uniform(0.3, 0.7), 0.5)
        body = mix(body, rgb(0.9, 0.95, 0.95), glare * rng.uniform(0.05, 0.25))
    if rng.random() < 0.04:
        body = mix(body, body * 1.3 + 0.15, step(noise(rng, size, 24), 0.8, 0.08) * 0.8)
    return body


def _spots(rng: np.random.Generator, blade: Blade, body: Image, strength: float) -> Image:
    """Draw leaf spot: round, uneven, brown patches with a dark rim and a yellow halo."""
    count = int(rng.integers(6, 10) + strength * rng.integers(6, 18))
    near = _nearest(rng, blade, count, rng.uniform(0.08, 0.11) + 0.06 * strength * rng.random())
    near = near + 0.25 * noise(rng, len(near), 24)
    halo = hsv(rng.uniform(48, 62), rng.uniform(0.5, 0.8), rng.uniform(0.55, 0.8))
    heart = hsv(rng.uniform(18, 38), rng.uniform(0.35, 0.7), rng.uniform(0.25, 0.6))
    body = mix(body, halo, (1 - step(near, 1.5, 0.8)) * (0.25 + 0.45 * strength))
    body = mix(body, heart * 0.45, (1 - step(near, 1.0, 0.5)) * 0.9)
    return mix(body, heart, (1 - step(near, 0.65, 0.4)) * 0.85)


def _rust(rng: np.random.Generator, blade: Blade, body: Image, strength: float) -> Image:
    """Draw rust: many small orange or dark pustules, dense in some places."""
    near = _nearest(rng, blade, int(40 + 90 * strength), rng.uniform(0.034, 0.05))
    shade = hsv(rng.uniform(14, 32), rng.uniform(0.7, 0.9), rng.uniform(0.5, 0.8))
    return mix(body, shade, (1 - step(near, 1.0, 0.9)) * 0.9)


def _blight(rng: np.random.Generator, blade: Blade, body: Image, strength: float) -> Image:
    """Draw blight: a dead brown area that spreads from the tip, the stalk or one margin."""
    start = rng.integers(3)
    reach = blade.along if start == 0 else 1 - blade.along
    if start == 2:
        reach = (1 + np.sign(rng.random() - 0.5) * blade.side) / 2
    front = reach + 0.16 * cloud(rng, len(reach), 5) - (0.72 - 0.38 * strength)
    dead = hsv(rng.uniform(18, 34), rng.uniform(0.35, 0.65), rng.uniform(0.22, 0.5))
    texture = 1 + 0.25 * cloud(rng, len(reach), 16, 2)
    body = mix(body, hsv(rng.uniform(46, 60), 0.7, 0.65), step(front, -0.07, 0.14) * 0.55)
    return mix(body, dead * texture, step(front, 0.02, 0.07) * 0.92)


def _scorch(rng: np.random.Generator, blade: Blade, body: Image, strength: float) -> Image:
    """Draw scorch: a dry margin."""
    margin = blade.depth + 0.14 * cloud(rng, len(blade.depth), 8)
    rim = 1 - step(margin, 0.25 + 0.25 * strength, 0.10)
    dead = hsv(rng.uniform(18, 36), rng.uniform(0.4, 0.7), rng.uniform(0.25, 0.55))
    return mix(body, dead, rim * 0.88)


def _chlorosis(rng: np.random.Generator, blade: Blade, body: Image, strength: float) -> Image:
    """Draw chlorosis: pale patches between green veins."""
    patch = step(noise(rng, len(blade.vein), 4), rng.uniform(-0.5, 0.2) - 0.3 * strength, 0.5)
    pale = hsv(rng.uniform(50, 66), rng.uniform(0.45, 0.75), rng.uniform(0.65, 0.85))
    return mix(body, pale, patch * np.clip(1 - blade.vein * 1.4, 0, 1) * (0.75 + 0.25 * strength))


def _mosaic(rng: np.random.Generator, blade: Blade, body: Image, strength: float) -> Image:
    """Draw mosaic virus: angular light and dark patches with sharp borders."""
    field = noise(rng, len(blade.mask), int(rng.integers(9, 15)))
    opacity = 0.6 + 0.4 * strength
    body = mix(body, body * 1.4 + rgb(0.20, 0.22, 0.02), step(field, 0.12, 0.16) * opacity)
    return mix(body, body * 0.4, step(-field, 0.25, 0.16) * opacity)


def _mildew(rng: np.random.Generator, blade: Blade, body: Image, strength: float) -> Image:
    """Draw powdery mildew: whitish, dusty patches."""
    size = len(blade.mask)
    near = _nearest(rng, blade, int(4 + 7 * strength), rng.uniform(0.12, 0.18))
    dust = np.clip(1.25 - near + 0.35 * cloud(rng, size, 12), 0, 1)
    grain = 0.75 + 0.25 * noise(rng, size, size)
    return mix(body, hsv(rng.uniform(60, 120), 0.06, 0.88), dust * grain * (0.65 + 0.3 * strength))


def _holes(rng: np.random.Generator, blade: Blade, strength: float) -> tuple[Field, Field]:
    """Draw insect damage: return a mask, 0 in holes and bites, and the opacity of their brown rims."""
    near = _nearest(rng, blade, int(3 + 5 * strength + rng.integers(3)), rng.uniform(0.08, 0.11) + 0.05 * strength)
    near = near + 0.3 * noise(rng, len(near), 20)
    return step(near, 1.0, 0.25), 1 - step(near, 1.35, 0.4)


_FUNCTIONS = (_spots, _rust, _blight, _scorch, _chlorosis, _mosaic, _mildew)
_DRAWN = {function.__name__.strip("_"): function for function in _FUNCTIONS}
DISEASES = (*_DRAWN, "holes")


def _nearest(rng: np.random.Generator, blade: Blade, count: int, radius: float) -> Field:
    """Return each pixel's distance to the nearest of `count` random leaf points, in units of that point's radius."""
    size = len(blade.mask)
    nearest = np.full((size, size), 9.0)
    rows, columns = np.nonzero(blade.mask > 0.5)
    if not len(rows):
        return nearest
    picked = rng.integers(0, len(rows), count)
    x, y = plane(size)
    for row, column in zip(rows[picked], columns[picked], strict=True):
        own = max(radius * rng.uniform(0.6, 1.5), 1.4 / size)
        span = int(own * 2.2 * size / 2) + 2
        window = (slice(max(row - span, 0), row + span + 1), slice(max(column - span, 0), column + span + 1))
        stretch = rng.uniform(0.75, 1.33)
        far = np.hypot((x[window] - x[row, column]) * stretch, (y[window] - y[row, column]) / stretch)
        np.minimum(nearest[window], far / own, out=nearest[window])
    return nearest


def _cloth(rng: np.random.Generator, size: int) -> Image:
    base = hsv(rng.uniform(210, 290), rng.uniform(0.02, 0.14), rng.uniform(0.45, 0.75))
    return base * (1 + 0.12 * noise(rng, size, 3) + 0.05 * noise(rng, size, size))


def _table(rng: np.random.Generator, size: int) -> Image:
    base = hsv(rng.uniform(18, 38), rng.uniform(0.25, 0.6), rng.uniform(0.3, 0.7))
    x, y = plane(size)
    turn = rng.uniform(0, np.pi)
    across = np.cos(turn) * x + np.sin(turn) * y
    grain = np.sin(across * rng.uniform(10, 40) + 2 * noise(rng, size, 4))
    return base * (1 + 0.08 * grain + 0.08 * noise(rng, size, 3))


def _soil(rng: np.random.Generator, size: int) -> Image:
    base = hsv(rng.uniform(12, 36), rng.uniform(0.3, 0.6), rng.uniform(0.28, 0.55))
    earth = base * (1 + 0.38 * cloud(rng, size, 10, 4))
    litter = step(noise(rng, size, 22), rng.uniform(0.6, 0.9), 0.15)
    return mix(earth, hsv(rng.uniform(30, 110), 0.5, rng.uniform(0.3, 0.7)), litter * 0.7)


def _paper(rng: np.random.Generator, size: int) -> Image:
    base = hsv(rng.uniform(30, 220), rng.uniform(0.0, 0.06), rng.uniform(0.78, 0.93))
    return base * (1 + 0.06 * noise(rng, size, 2) + 0.02 * noise(rng, size, size))


def _foliage(rng: np.random.Generator, size: int) -> Image:
    half = max(size // 2, 16)
    base = hsv(rng.uniform(40, 120), rng.uniform(0.3, 0.6), rng.uniform(0.12, 0.4))
    image = base * (1 + 0.4 * cloud(rng, half, 6))
    for _ in range(int(rng.integers(2, 5))):
        blade = draw_blade(rng, half, KINDS[rng.integers(len(KINDS))], rng.uniform(0.5, 1.1))
        mask = _moved(blade.mask, rng.uniform(-0.8, 0.8, 2) * half)
        tone = hsv(rng.uniform(45, 125), rng.uniform(0.35, 0.7), rng.uniform(0.25, 0.65))
        image = mix(image, tone * (0.8 + 0.25 * blade.vein + 0.15 * noise(rng, half, 4)), mask)
    blur = rng.uniform(0.4, 2.0)
    planes = [cv2.GaussianBlur(channel, (0, 0), blur) for channel in image]
    return np.stack([cv2.resize(channel, (size, size), interpolation=cv2.INTER_LINEAR) for channel in planes])


_BACKGROUNDS = (*(_cloth,) * 11, *(_paper,) * 3, _table, _soil, _foliage)


def _shadow(rng: np.random.Generator, mask: Field, background: Image) -> Image:
    moved = _moved(mask, rng.normal(0, 0.035, 2) * len(mask))
    dark = cv2.GaussianBlur(moved, (0, 0), rng.uniform(0.008, 0.05) * len(mask))
    return background * (1 - rng.uniform(0.15, 0.65) * dark)


def _moved(field: Field, shift: np.ndarray) -> Field:
    """Return a field shifted by (x, y) pixels and filled with 0."""
    return cv2.warpAffine(field, np.array([[1, 0, shift[0]], [0, 1, shift[1]]]), field.shape[::-1])


def _sunlight(rng: np.random.Generator, size: int) -> Field:
    """Return uneven light, sometimes dappled by other leaves, as a factor per pixel."""
    x, y = plane(size)
    turn = rng.uniform(0, 2 * np.pi)
    ramp = np.cos(turn) * x + np.sin(turn) * y
    light = 1 + rng.uniform(0, 0.22) * ramp
    if rng.random() < 0.06:
        light = light - rng.uniform(0.2, 0.45) * step(noise(rng, size, 4), rng.uniform(0.0, 0.4), 0.25)
    return light


def _camera(rng: np.random.Generator, image: Image) -> np.ndarray:
    """Apply exposure, white balance, focus and sensor noise; return uint8 (S,S,3)."""
    gain = rng.uniform(0.85, 1.15) * (1 + rng.normal(0, 0.025, (3, 1, 1)))
    photo = np.clip(image * gain, 0, 1).transpose(1, 2, 0)
    photo = cv2.pow(np.ascontiguousarray(photo), rng.uniform(0.88, 1.13))
    if rng.random() < 0.6:
        photo = cv2.GaussianBlur(photo, (0, 0), rng.uniform(0.3, 0.9) * len(photo) / 96)
    photo = photo * 255 + rng.standard_normal(photo.shape) * rng.uniform(1, 6)
    return photo.clip(0, 255).round().astype(np.uint8)
