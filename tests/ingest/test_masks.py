"""Test leaf masks of any bit depth."""

import numpy as np
import pytest
from PIL import Image

from leaf.ingest.masks import read_masks, without_leaf


def save(path, values, form):
    """Save a mask of zeros and ones in the given form, as other programs write masks."""
    if form == "16 bit, 0 and 1":
        image = Image.fromarray(values.astype(np.uint16))
    elif form == "16 bit, 0 and 65535":
        image = Image.fromarray(values.astype(np.uint16) * 65535)
    elif form == "palette":
        image = Image.fromarray(values, "P")
        image.putpalette([0, 0, 0, 0, 0, 128] + [0] * 762)
    elif form == "palette without black":
        image = Image.fromarray(values, "P")
        image.putpalette([31, 119, 180, 255, 127, 14] + [0] * 762)
    elif form == "palette, white first":
        image = Image.fromarray(1 - values, "P")
        image.putpalette([255, 255, 255, 0, 0, 0] + [0] * 762)
    elif form == "transparent palette":
        path.parent.mkdir(parents=True, exist_ok=True)
        image = Image.fromarray(values, "P")
        image.putpalette([0, 0, 0, 255, 255, 255] + [0] * 762)
        image.info["transparency"] = 0
    elif form == "transparent background":
        image = Image.fromarray(np.dstack([np.full((*values.shape, 3), 255, np.uint8), values * 255]))
    elif form == "1 bit":
        image = Image.fromarray(values > 0)
    else:
        image = Image.fromarray(values * (255 if "255" in form else 1))
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)


FORMS = ["8 bit, 0 and 1", "8 bit, 0 and 255", "16 bit, 0 and 1", "16 bit, 0 and 65535", "palette", "1 bit"]
FORMS += ["palette without black", "palette, white first", "transparent palette", "transparent background"]


@pytest.mark.parametrize("form", FORMS)
def test_mask_of_any_depth_marks_the_leaf(tmp_path, form):
    leaf = np.zeros((64, 64), np.uint8)
    leaf[16:48, 16:48] = 1
    save(tmp_path / "a.png", leaf, form)
    expected = np.zeros((16, 16), bool)
    expected[4:12, 4:12] = True
    np.testing.assert_array_equal(read_masks(tmp_path, ["a.jpg"], 16)[0], expected)


def test_masks_without_a_leaf_are_listed(tmp_path):
    save(tmp_path / "a.png", np.ones((16, 16), np.uint8), "1 bit")
    save(tmp_path / "b.png", np.zeros((16, 16), np.uint8), "1 bit")
    sources = ["a.jpg", "b.jpg", "c.jpg"]
    assert without_leaf(tmp_path, sources, read_masks(tmp_path, sources, 16)) == [str(tmp_path / "b.png")]
