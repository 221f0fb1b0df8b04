"""Quality flags match cleanvision."""

import math

import numpy as np
import pytest
from PIL import Image, ImageFilter, ImageStat

from leaf.ingest.quality import quality_flags as flags
from leaf.synthesize import draw_leaf


@pytest.fixture(scope="module")
def leaves():
    return np.stack([draw_leaf(np.random.default_rng(seed), 96, True) for seed in range(40)])


def plain_flags(pixels):
    """Return the flags of one image according to cleanvision's published rules, computed with Pillow."""
    image = Image.fromarray(pixels)
    red, green, blue = (pixels[..., channel].astype(float) for channel in range(3))
    brightness = np.sqrt(0.241 * red**2 + 0.691 * green**2 + 0.068 * blue**2) / 255
    grey = image.resize((64, 64)).convert("L")
    edges = math.sqrt(ImageStat.Stat(grey.filter(ImageFilter.FIND_EDGES)).var[0])
    contrast = 1 - math.exp(-0.01 * np.std(grey.histogram()))
    blur = 1 - math.exp(-0.01 * edges) + (contrast if contrast > 0.18 else 0)
    found = {
        "dark": np.percentile(brightness, 99) < 0.32,
        "bright": 1 - np.percentile(brightness, 5) < 0.05,
        "blurred": blur < 0.29,
        "low_information": image.entropy() * 0.1 < 0.3,
    }
    return " ".join(name for name, is_set in found.items() if is_set)


def test_at_most_one_in_ten_ordinary_leaves_is_flagged(leaves):
    found = flags(leaves)
    assert "low_information" not in " ".join(found)
    assert sum(any(word in flag for word in ("dark", "bright")) for flag in found) <= len(found) / 10


def test_a_dark_image_is_flagged(leaves):
    assert all("dark" in found for found in flags(leaves // 5))


def test_a_bright_image_is_flagged(leaves):
    assert all("bright" in found for found in flags(255 - leaves // 40))


def test_flat_image_is_flagged_as_low_information():
    assert flags(np.full((1, 96, 96, 3), 120, np.uint8)) == ["low_information"]


def test_gradient_without_edges_is_flagged_as_blurred():
    slope = np.linspace(0, 110, 96)[:, None] + np.linspace(0, 60, 96)
    image = np.repeat(slope.astype(np.uint8)[..., None], 3, axis=2)
    assert flags(image[None]) == ["blurred"]


def test_float_and_uint8_images_have_equal_flags(leaves):
    assert flags(leaves.astype(np.float32)) == flags(leaves)


@pytest.mark.parametrize("size", [16, 64, 96])
def test_small_images_are_flagged_too(size):
    assert len(flags(np.zeros((3, size, size, 3), np.uint8))) == 3


@pytest.mark.parametrize(
    "change", [lambda x: x, lambda x: x // 3, lambda x: x // 4, lambda x: 255 - x // 20, lambda x: x // 8 + 100]
)
def test_flags_match_cleanvision(leaves, change):
    changed = change(leaves)
    ours, theirs = flags(changed), [plain_flags(image) for image in changed]
    assert np.mean([mine == other for mine, other in zip(ours, theirs, strict=True)]) >= 0.9


@pytest.mark.realdata
def test_flags_of_real_images_match_cleanvision(shared):
    data = np.load(shared / "leaves_1041.npz", allow_pickle=False)["data"][:300].astype(np.uint8)
    ours, theirs = flags(data), [plain_flags(image) for image in data]
    assert np.mean([mine == other for mine, other in zip(ours, theirs, strict=True)]) >= 0.98
