"""File types are detected by content: images are read with any suffix, and other files are described in the error."""

import numpy as np
import pytest
from PIL import Image

from leaf.ingest.decode import UnreadableError, decode
from leaf.ingest.files import is_image
from leaf.ingest.ingest import ingest
from leaf.ingest.sandbox import read_image
from tests.ingest.kinds_of_images import animated, deep_png, quarters, saved, with_exif

LOSSLESS = {
    "PNG": {},
    "WEBP": {"lossless": True},
    "BMP": {},
    "TIFF": {},
    "GIF": {},
    "JPEG2000": {},
}


@pytest.mark.parametrize("kind", LOSSLESS)
def test_a_lossless_image_is_read_exactly(kind):
    np.testing.assert_array_equal(read_image(saved(quarters(), kind, **LOSSLESS[kind]), 32).pixels, quarters())


@pytest.mark.parametrize("form", [{"tile_size": (64, 64)}, {"no_jp2": True}], ids=["tiles", "codestream"])
@pytest.mark.parametrize("levels", [1, 2, 6])
def test_large_jpeg2000_is_read_with_any_number_of_levels(levels, form):
    large = quarters(640, 640)
    found = read_image(saved(large, "JPEG2000", num_resolutions=levels, **form), 32)
    assert (found.width, found.height) == (640, 640)
    assert np.abs(found.pixels.astype(int) - quarters()).mean() < 4


@pytest.mark.parametrize("kind", ["JPEG", "AVIF", "HEIF"])
def test_lossy_image_is_read_within_rounding(kind):
    if kind == "HEIF":
        pytest.importorskip("pillow_heif", reason="pip install -r requirements.txt")
    pixels = np.full((32, 32, 3), (40, 120, 60), np.uint8)
    assert np.abs(read_image(saved(pixels, kind), 32).pixels.astype(int) - pixels).max() <= 4


@pytest.mark.parametrize("name", ["a.jfif", "a.JPE", "a.jpg", "a.dat", "a"])
def test_jpeg_is_recognized_with_any_suffix(tmp_path, name):
    (tmp_path / name).write_bytes(saved(quarters(), "JPEG"))
    assert is_image(tmp_path / name)


@pytest.mark.parametrize("name", ["a.tga", "a.ppm", "a.pcx", "a.icns", "a.dds", "a.exr"])
def test_unsupported_image_format_is_reported_as_unreadable_image(tmp_path, name):
    (tmp_path / name).write_bytes(b"\0\0\2\0\0\0\0\0")
    assert is_image(tmp_path / name)
    with pytest.raises(UnreadableError, match="not a JPEG, PNG"):
        read_image((tmp_path / name).read_bytes(), 8)


@pytest.mark.parametrize("name", ["notes.txt", "labels.csv", "clip.mp4"])
def test_other_files_are_not_images(tmp_path, name):
    (tmp_path / name).write_bytes(b"\0\0\0\x18ftypisom" if name.endswith("mp4") else b"file,label\n")
    assert not is_image(tmp_path / name)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "an empty file"),
        (bytes(600), "a file that contains only zeros"),
        (b"\0\0\0\x18ftypisom\0\0\2\0isomiso2", "a video"),
        (b"\x1aE\xdf\xa3" + bytes(60), "a video"),
        (b"RIFF\0\1\0\0AVI LIST", "a video"),
        (b"<!DOCTYPE html><html>404</html>", "a web page"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "an SVG drawing"),
        (b"%PDF-1.7", "a PDF"),
        (b"PK\3\4leaf.jpg", "a zip archive"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a", "a Git LFS pointer"),
        (b"\xff\x0a\0\0", "a JPEG XL image"),
        (b"II*\0\x10\0\0\0CR\2\0", "a camera raw file"),
        (b"\0\0\0\x18ftypcrx \0\0\0\1", "a camera raw file"),
        (b"8BPS\0\1", "a Photoshop file"),
        (b"no image", "text, not a JPEG, PNG, WebP, BMP, TIFF, GIF, JPEG 2000, AVIF or HEIC image"),
        (b"\x89PNG\r\n\x1a\n", "a damaged PNG image"),
    ],
)
def test_unreadable_file_is_described(data, why):
    with pytest.raises(UnreadableError, match=why):
        read_image(data, 16)


def test_every_suffix_is_read_or_reported(tmp_path):
    contents = {
        "a/one.jpeg": saved(quarters(), "JPEG"),
        "a/two.jfif": saved(255 - quarters(), "JPEG"),
        "a/three.gif": animated("GIF"),
        "b/four.jpg": saved(quarters(48), "WEBP"),
        "b/five.jpg": b"\0\0\0\x18ftypisom\0\0\2\0",
        "b/six.png": b"",
        "b/seven.txt": b"not the leaf",
    }
    for name, data in contents.items():
        (tmp_path / "d" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "d" / name).write_bytes(data)
    result = ingest(tmp_path / "d", tmp_path / "images.npy", "auto", 16)
    assert result.index["source"].tolist() == ["a/one.jpeg", "a/three.gif", "a/two.jfif", "b/four.jpg"]
    assert dict(result.unreadable.to_numpy().tolist()) == {"b/five.jpg": "a video", "b/six.png": "an empty file"}
    assert any("1 .txt" in note for note in result.notes)
    assert "first_frame" in result.index["flags"][1]


@pytest.mark.parametrize(("kind", "options"), [("GIF", {}), ("PNG", {}), ("WEBP", {"lossless": True}), ("TIFF", {})])
def test_first_of_several_frames_is_read_and_flagged(kind, options):
    picture = read_image(animated(kind, **options), 16)
    assert picture.frames
    assert (picture.pixels == 40).all()


@pytest.mark.parametrize("bits", [10, 12, 16])
def test_10_and_12_bit_values_in_16_bits_are_scaled_by_their_actual_range(bits):
    values = np.zeros((16, 16, 3), np.uint16)
    values[8:] = 2**bits - 1
    values[8:, 8:] = (2**bits - 1) // 2
    pixels = read_image(deep_png(values), 16).pixels
    assert pixels[15, 0].tolist() == [255] * 3
    assert pixels[15, 15].tolist() == pytest.approx([127] * 3, abs=1)
    assert read_image(saved(Image.fromarray(values[..., 0]), "PNG"), 16).pixels[15, 0, 0] == 255


@pytest.mark.parametrize(("highest", "expected"), [(0.4, 102), (102.0, 102), (26214.0, 102)])
def test_floats_are_scaled_by_their_actual_range(highest, expected):
    assert read_image(saved(Image.fromarray(np.full((16, 16), highest, np.float32)), "TIFF"), 16).pixels[0, 0, 0] == (
        expected
    )


@pytest.mark.parametrize("value", [-3.0, 1e9, np.nan, np.inf])
def test_floats_outside_color_ranges_are_rejected_with_their_range(value):
    values = np.zeros((16, 16), np.float32)
    values[3, 3] = value
    with pytest.raises(UnreadableError, match="0 to 1 for floats, or 8, 10, 12 or 16 bits"):
        read_image(saved(Image.fromarray(values), "TIFF"), 16)


def test_image_with_damaged_exif_is_read():
    exif = Image.Exif()
    exif[0x0112], exif[0x010F], exif[0x011A] = 6, "a camera", 72.0
    right = bytearray(exif.tobytes()[6:])
    pixels = saved(quarters(16), "JPEG")
    expected = {decode(with_exif(pixels, bytes(right)), 16).pixels.tobytes(), decode(pixels, 16).pixels.tobytes()}
    rng = np.random.default_rng(0)
    for _ in range(3000):
        odd = bytearray(right[: rng.integers(0, len(right) + 1)])
        for place in rng.integers(0, max(1, len(odd)), 3):
            odd[place : place + 1] = bytes([rng.integers(0, 256)])
        turns = decode(with_exif(pixels, bytes(odd)), 16).pixels
        assert turns.shape == (16, 16, 3)
    assert len(expected) == 2


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "JPEG2000", "AVIF", "HEIF"])
@pytest.mark.parametrize("times", [4, 20])
@pytest.mark.parametrize("fit", ["crop", "pad", "stretch"])
def test_large_file_of_any_format_equals_its_png(kind, times, fit):
    if kind == "HEIF":
        pytest.importorskip("pillow_heif")
    image = quarters(24 * times, 16 * times)
    found = read_image(saved(image, kind), 16, fit)
    expected = read_image(saved(image, "PNG"), 16, fit).pixels.astype(int)
    assert (found.width, found.height) == (24 * times, 16 * times)
    inside = np.ix_([4, 11], [3, 12])  # away from the edges, where lossy formats ring
    assert np.abs(found.pixels.astype(int) - expected)[inside].max() < 40
