"""Test cropping, padding and stretching images to a square."""

import numpy as np
import pytest
from PIL import Image

from leaf.ingest import decode as decode_module
from leaf.ingest.decode import to_square
from leaf.ingest.ingest import ingest
from leaf.ingest.sandbox import read_image
from tests.ingest.kinds_of_images import quarters, saved


def test_crop_takes_the_center():
    wide = np.zeros((1, 16, 48, 3), np.uint8)
    wide[:, :, 16:32] = 200
    assert (to_square(wide, 16, "crop") == 200).all()


def test_only_the_square_of_a_wide_image_is_converted_to_srgb(monkeypatch):
    sizes = []
    to_srgb = decode_module._to_srgb

    def recorded(image):
        convert = to_srgb(image)
        return lambda part: sizes.append(part.size) or convert(part)

    monkeypatch.setattr(decode_module, "_to_srgb", recorded)
    decode_module.decode(saved(quarters(96, 32), "PNG"), 16)
    assert sizes == [(32, 32)]


@pytest.mark.parametrize(("shape", "rows", "columns"), [((16, 48), (5, 10), (0, 16)), ((48, 16), (0, 16), (5, 10))])
def test_pad_keeps_the_whole_image_on_black(shape, rows, columns):
    square = to_square(np.full((1, *shape, 3), 200, np.uint8), 16, "pad")[0]
    assert (square[slice(*rows), slice(*columns)] == 200).all()
    assert square.sum() == 200 * 3 * 5 * 16


def test_stretch_keeps_the_corners_of_a_wide_image():
    square = to_square(quarters(64, 16)[None], 16, "stretch")[0]
    np.testing.assert_array_equal(square, quarters(16, 16))


def test_stretch_averages_the_longer_side_and_upsamples_the_shorter():
    stripes = np.zeros((1, 8, 640, 3), np.uint8)
    stripes[:, :, ::2] = 200
    assert (to_square(stripes, 16, "stretch") == 100).all()


def test_fit_is_the_same_for_files_and_arrays(tmp_path):
    wide = np.random.default_rng(0).integers(0, 256, (20, 60, 3), np.uint8)
    for fit in ("crop", "pad", "stretch"):
        np.testing.assert_array_equal(read_image(saved(wide, "PNG"), 16, fit).pixels, to_square(wide[None], 16, fit)[0])
    np.savez(tmp_path / "d.npz", data=np.stack([wide, wide]), labels=np.array(["a", "b"]))
    ingest(tmp_path / "d.npz", tmp_path / "images.npy", "auto", 16, fit="pad")
    np.testing.assert_array_equal(np.load(tmp_path / "images.npy")[0], to_square(wide[None], 16, "pad")[0])


def test_ingest_reports_what_the_crop_removes_from_wide_images(tmp_path):
    for number, width in enumerate((16, 16, 16, 32)):
        for name in ("a", "b"):
            (tmp_path / "d" / name).mkdir(parents=True, exist_ok=True)
            Image.fromarray(quarters(width, 16)).save(tmp_path / "d" / name / f"{number}.png")
    result = ingest(tmp_path / "d", tmp_path / "images.npy", "auto", 16)
    assert any(
        note.startswith("images with an aspect ratio above 4:3: 2 of 8; the crop to a square removes 50%")
        for note in result.notes
    )
    assert result.index["width"].tolist()[:4] == [16, 16, 16, 32]
    assert not any("4:3" in note for note in ingest(tmp_path / "d", tmp_path / "i.npy", "auto", 16, fit="pad").notes)
