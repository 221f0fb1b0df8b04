"""One drawn photograph of a healthy or an unhealthy leaf."""

import numpy as np

from leaf.drawing import scene
from leaf.drawing.disease import DISEASES, holes
from leaf.drawing.shapes import KINDS, Blade, Field, Picture, colour, draw_blade, mix, noise, rgb, step


def draw_leaf(rng: np.random.Generator, size: int, healthy: bool) -> np.ndarray:
    """Draw one photograph, uint8 (size, size, 3) RGB; all that varies comes from `rng`."""
    under = scene.background(rng, size)
    blade = draw_blade(rng, size, KINDS[rng.integers(len(KINDS))], rng.uniform(0.92, 1.05))
    body = _body(rng, blade)
    left = np.ones_like(blade.mask)
    if not healthy:
        body, left = _sicken(rng, blade, body)
    body = body * _relief(rng, blade)
    body = _gloss(rng, blade, body)
    mask = blade.mask * left
    picture = scene.shadow(rng, np.maximum(mask, blade.stalk), under)
    picture = mix(picture, colour(rng.uniform(20, 100), 0.5, rng.uniform(0.3, 0.65)), blade.stalk)
    picture = mix(picture, body, mask)
    return scene.camera(rng, picture * scene.sunlight(rng, size))


def _tone(rng: np.random.Generator) -> np.ndarray:
    """The colour of a healthy blade: mostly some green, at times the yellow or purple of autumn and cultivars.

    Diseases yellow a leaf, and what it lies on is often brown: colour alone shall not tell.
    """
    pick = rng.random()
    if pick < 0.92:
        return colour(rng.uniform(84, 130), rng.uniform(0.45, 0.72), rng.uniform(0.26, 0.62))
    if pick < 0.985:
        return colour(rng.uniform(56, 80), rng.uniform(0.45, 0.8), rng.uniform(0.42, 0.75))
    return colour(rng.uniform(330, 372) % 360, rng.uniform(0.35, 0.6), rng.uniform(0.25, 0.5))


def _body(rng: np.random.Generator, blade: Blade) -> Picture:
    size = len(blade.mask)
    tone = _tone(rng)
    shade = 1 + np.float32(0.10) * noise(rng, size, 5) + np.float32(0.05) * noise(rng, size, 30)
    shade = shade + np.float32(rng.uniform(-0.2, 0.2)) * (blade.along - np.float32(0.5))
    body = tone * shade
    if rng.random() < 0.04:  # variegated: a pale margin or heart that follows the leaf's form, its border clean
        inward = rng.random() < 0.5
        border = step(blade.depth + np.float32(0.10) * noise(rng, size, 9), rng.uniform(0.25, 0.5), 0.1)
        pale = colour(rng.uniform(50, 75), rng.uniform(0.12, 0.45), rng.uniform(0.7, 0.88))
        body = mix(body, pale, border if inward else 1 - border)
    rib = tone * np.float32(0.6) + rgb(0.32, 0.34, 0.2) if rng.random() < 0.8 else tone * np.float32(0.65)
    return mix(body, rib, blade.vein * np.float32(rng.uniform(0.25, 0.7)))


def _sicken(rng: np.random.Generator, blade: Blade, body: Picture) -> tuple[Picture, Field]:
    """One or two diseases, and sometimes holes, never so weak that a person would miss them."""
    left = np.ones_like(blade.mask)
    strength = float(0.7 + 0.3 * rng.random())
    count = 1 + int(rng.random() < 0.35)
    chosen = rng.choice(len(DISEASES) + 1, count, replace=False)
    for index in chosen:
        if index < len(DISEASES):
            body = DISEASES[index](rng, blade, body, strength)
        else:
            left, rim = holes(rng, blade, strength)
            body = mix(body, colour(rng.uniform(20, 40), 0.5, 0.35), rim * np.float32(0.75))
    return body, left


def _relief(rng: np.random.Generator, blade: Blade) -> Field:
    """Light and shade on the blade: sunken veins, a fold at the midrib, a curl towards the margin."""
    height = noise(rng, len(blade.mask), 8) * np.float32(0.4) - blade.vein * np.float32(rng.uniform(0.3, 0.9))
    turn = rng.uniform(0, 2 * np.pi)
    slope = np.zeros_like(height)
    slope[:, 1:] += np.float32(np.cos(turn)) * (height[:, 1:] - height[:, :-1])
    slope[1:] += np.float32(np.sin(turn)) * (height[1:] - height[:-1])
    fold = np.tanh(blade.side * 6) * np.float32(rng.normal(0, 0.09))
    curl = (1 - blade.depth) ** 2 * np.float32(rng.uniform(-0.05, 0.28))
    return 1 + np.float32(0.30) * slope + fold - curl


def _gloss(rng: np.random.Generator, blade: Blade, body: Picture) -> Picture:
    """Glare, and at times drops of water or dust: bright marks that are no disease."""
    size = len(blade.mask)
    if rng.random() < 0.4:
        glare = step(noise(rng, size, 5) - blade.vein * np.float32(0.4), rng.uniform(0.3, 0.7), 0.5)
        body = mix(body, rgb(0.9, 0.95, 0.95), glare * np.float32(rng.uniform(0.05, 0.25)))
    if rng.random() < 0.04:
        drops = step(noise(rng, size, 24), 0.8, 0.08)
        body = mix(body, body * np.float32(1.3) + np.float32(0.15), drops * np.float32(0.8))
    return body
