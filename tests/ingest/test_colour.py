"""Test that images with embedded color profiles are converted to sRGB."""

import io

import numpy as np
from PIL import Image, ImageCms

from leaf.ingest.sandbox import read_image
from tests.ingest.kinds_of_images import display_p3, saved, srgb

RNG = np.random.default_rng(0)
PIXELS = np.asarray(
    Image.fromarray(RNG.integers(40, 216, (6, 6, 3), np.uint8)).resize((64, 64), Image.Resampling.BICUBIC)
)


def mse(one, other):
    return float(((one.astype(float) - other.astype(float)) ** 2).mean())


def in_p3(image):
    """Convert an sRGB image to Display P3, keeping its colors."""
    to = ImageCms.ImageCmsProfile(io.BytesIO(display_p3()))
    srgb = ImageCms.createProfile("sRGB")
    return np.asarray(ImageCms.profileToProfile(Image.fromarray(image), srgb, to, outputMode="RGB"))


def test_display_p3_image_equals_its_srgb_version():
    twin = read_image(saved(PIXELS, "PNG"), 32).pixels
    assert mse(read_image(saved(in_p3(PIXELS), "PNG"), 32).pixels, twin) > 30  # wrong colors without the profile
    assert mse(read_image(saved(in_p3(PIXELS), "PNG", icc_profile=display_p3()), 32).pixels, twin) < 1
    assert mse(read_image(saved(in_p3(PIXELS), "JPEG", icc_profile=display_p3(), quality=98), 32).pixels, twin) < 4


def test_srgb_profile_changes_no_pixel():
    pixels = read_image(saved(PIXELS, "PNG", icc_profile=srgb()), 64).pixels
    np.testing.assert_array_equal(pixels, PIXELS)


def test_damaged_or_mismatched_profile_is_ignored():
    grey = Image.fromarray(PIXELS).convert("L")
    for image, profile in ((PIXELS, b"no profile"), (grey, display_p3()), (PIXELS, display_p3()[:200])):
        plain = read_image(saved(image, "PNG"), 64).pixels
        np.testing.assert_array_equal(read_image(saved(image, "PNG", icc_profile=profile), 64).pixels, plain)
