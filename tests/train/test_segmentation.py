"""Test masks estimated with GrabCut."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from leaf.ingest.decode import decode
from leaf.train.segmentation import estimate_mask


def leaf(seed: int, size: int = 64) -> tuple[np.ndarray, np.ndarray]:
    """Return a green disc on gray cloth, and its mask."""
    random = np.random.default_rng(seed)
    down, right = np.mgrid[:size, :size]
    there = np.hypot(down - size / 2, right - size / 2) < size * random.uniform(0.2, 0.4)
    colors = np.where(there[..., None], (60, 140, 50), (150, 145, 160))
    return np.clip(colors + random.normal(0, 8, (size, size, 3)), 0, 255).astype(np.uint8), there


def test_grabcut_is_deterministic_in_any_thread():
    images, truth = map(np.stack, zip(*map(leaf, range(12)), strict=True))
    found = np.stack([estimate_mask(image) for image in images])
    assert ((found & truth).sum(axis=(1, 2)) / (found | truth).sum(axis=(1, 2))).min() > 0.9
    with ThreadPoolExecutor(4) as pool:
        assert (np.stack(list(pool.map(estimate_mask, images[::-1])))[::-1] == found).all()


@pytest.mark.realdata
def test_grabcut_agrees_with_the_given_masks(shared):
    masks = sorted((shared / "leaf_masks").rglob("*.png"))[::40]
    assert len(masks) > 8
    for path in masks:
        path_of_image = (shared / "leaves_by_disease" / path.relative_to(shared / "leaf_masks")).with_suffix(".jpg")
        found = estimate_mask(decode(path_of_image.read_bytes(), 96).pixels)
        truth = decode(path.read_bytes(), 96).pixels[..., 0] > 127
        assert (found & truth).sum() / (found | truth).sum() > 0.85, path.name


def test_grabcut_returns_no_mask_without_a_distinct_object():
    assert not estimate_mask(np.full((32, 32, 3), 80.0, np.float32)).any()
