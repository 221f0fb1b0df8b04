"""Images passed to `predict` are prepared in the same way as ingested images."""

import numpy as np
import pytest
from PIL import Image

from leaf.errors import LeafError
from leaf.ingest.decode import decode
from leaf.serve.classifier import as_list, name_of, prepare


@pytest.fixture
def jpeg(tmp_path):
    """Return the path of a JPEG of 60×40 pixels with an EXIF rotation."""
    path = tmp_path / "leaf.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6
    pixels = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, exif=exif)
    return path


def test_path_bytes_and_opened_image_give_the_ingested_pixels(jpeg):
    stored = decode(jpeg.read_bytes(), 32).pixels
    with Image.open(jpeg) as opened:
        for given in (jpeg, str(jpeg), jpeg.read_bytes(), opened):
            assert np.array_equal(prepare(given, 32, "leaf"), stored)


def test_array_is_cropped_and_resized_like_a_file(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (50, 80, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "leaf.png")
    assert np.array_equal(prepare(pixels, 32, "0"), prepare(tmp_path / "leaf.png", 32, "leaf"))


def test_array_of_the_right_size_is_unchanged():
    pixels = np.random.default_rng(0).uniform(2, 255, (32, 32, 3)).astype(np.float32)
    assert np.array_equal(prepare(pixels, 32, "0"), pixels)


@pytest.mark.parametrize(
    ("array", "why"),
    [
        (np.full((8, 8, 3), 0.5), "multiply by 255"),
        (np.full((8, 8, 3), -1.0), "values from -1"),
        (np.full((8, 8, 3), np.nan), "values from nan"),
        (np.full((8, 8), 9.0), r"shape \(8, 8\)"),
        (np.full((8, 8, 4), 9.0), r"shape \(8, 8, 4\)"),
        (np.full((0, 8, 3), 9.0), r"shape \(0, 8, 3\)"),
        (np.full((8, 8, 3), "x"), "dtype <U1"),
    ],
)
def test_array_that_is_not_an_image_is_rejected(array, why):
    with pytest.raises(LeafError, match=f"image 3: .*{why}"):
        prepare(array, 32, "3")


def test_broken_file_is_rejected_by_name(tmp_path):
    (tmp_path / "broken.jpg").write_bytes(b"not an image")
    with pytest.raises(LeafError, match="broken: text, not a JPEG"):
        prepare(tmp_path / "broken.jpg", 32, "broken")


def test_single_image_is_a_list_of_one():
    assert [len(as_list(one)) for one in ("leaf.jpg", np.zeros((8, 8, 3)), np.zeros((5, 8, 8, 3)))] == [1, 1, 5]


def test_array_is_named_by_its_index():
    assert (name_of(np.zeros((8, 8, 3)), 7), name_of("a/b.jpg", 7)) == ("7", "a/b.jpg")
