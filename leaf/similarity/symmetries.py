"""The eight symmetries of a square: turns by 90° and mirror images."""

import numpy as np

SYMMETRIES = (
    "none",
    "turn_90",
    "turn_180",
    "turn_270",
    "mirror",
    "mirror_turn_90",
    "mirror_turn_180",
    "mirror_turn_270",
)


def apply(name: str, images: np.ndarray) -> np.ndarray:
    """Images (…,S,S,3), mirrored left to right and then turned anticlockwise, as `name` says."""
    if "mirror" in name:
        images = images[..., ::-1, :]
    turns = int(name.rpartition("_")[2]) // 90 if "turn" in name else 0
    return np.rot90(images, turns, axes=(-3, -2))
