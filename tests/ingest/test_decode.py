"""Test decoding one image file to square RGB pixels."""

import contextlib
import io
import struct
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image

from leaf.ingest import decode as decode_module
from leaf.ingest.decode import UnreadableError, to_square
from tests.ingest.kinds_of_images import png_chunk, quarters


def decode(path, size, fit="crop"):
    return decode_module.decode(path.read_bytes(), size, fit).pixels


@pytest.fixture
def save(tmp_path):
    def run(image, name="a.png", **options):
        image.save(tmp_path / name, **options)
        return tmp_path / name

    return run


@pytest.mark.parametrize("name", ["a.png", "a.bmp", "a.tif", "a.webp"])
def test_lossless_formats_are_read_exactly(save, name):
    pixels = quarters()
    options = {"lossless": True} if name.endswith("webp") else {}
    np.testing.assert_array_equal(decode(save(Image.fromarray(pixels), name, **options), 32), pixels)


def test_jpeg_is_read_within_rounding(save):
    pixels = np.full((32, 32, 3), (40, 120, 60), np.uint8)
    assert np.abs(decode(save(Image.fromarray(pixels), "a.jpg"), 32).astype(int) - pixels).max() <= 3


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_exif_orientation_is_applied(save, orientation):
    back = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # the inverse of each orientation
    upright = Image.fromarray(quarters())
    stored = upright.transpose(Image.Transpose(back[orientation])) if orientation > 1 else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    np.testing.assert_array_equal(decode(save(stored, "a.png", exif=exif), 32), quarters())


def test_transparent_pixels_become_white(save):
    pixels = np.zeros((16, 16, 4), np.uint8)
    pixels[:8] = (200, 0, 0, 255)
    image = decode(save(Image.fromarray(pixels)), 16)
    assert image[0, 0].tolist() == [200, 0, 0]
    assert image[15, 0].tolist() == [255, 255, 255]


def test_a_transparent_palette_becomes_white(save):
    image = Image.new("P", (16, 16), 0)
    image.putpalette([10, 20, 30])
    assert (decode(save(image, transparency=0), 16) == 255).all()


def test_palette_colors_are_applied(save):
    image = Image.new("P", (16, 16), 0)
    image.putpalette([10, 20, 30])
    assert decode(save(image), 16)[0, 0].tolist() == [10, 20, 30]


@pytest.mark.parametrize(("mode", "value"), [("L", 77), ("1", 1), ("LA", (77, 255))])
def test_gray_is_repeated_to_three_channels(save, mode, value):
    expected = 255 if mode == "1" else 77
    assert (decode(save(Image.new(mode, (16, 16), value)), 16) == expected).all()


def test_16_bit_gray_is_scaled_to_8(save):
    values = np.full((16, 16), 257 * 100, np.uint16)
    assert (decode(save(Image.fromarray(values)), 16) == 100).all()


def test_a_float_tiff_of_0_to_1_is_scaled_to_8_bits(save):
    values = np.full((16, 16), 0.4, np.float32)
    assert (decode(save(Image.fromarray(values), "a.tif"), 16) == 102).all()


def test_cmyk_is_converted(save):
    red = decode(save(Image.new("CMYK", (16, 16), (0, 255, 255, 0)), "a.jpg"), 16)[0, 0].astype(int)
    assert red[0] > 200
    assert red[1] < 60


def test_wide_image_is_cropped_to_its_center(save):
    pixels = np.zeros((16, 48, 3), np.uint8)
    pixels[:, 16:32] = 200
    assert (decode(save(Image.fromarray(pixels)), 16) == 200).all()


def test_downsampling_averages_areas():
    image = np.zeros((1, 4, 4, 3), np.uint8)
    image[0, :2, :2] = [[[100] * 3, [200] * 3], [[0] * 3, [100] * 3]]
    assert to_square(image, 2)[0, 0, 0].tolist() == [100, 100, 100]


def test_downsampling_by_a_quarter_keeps_more_detail_than_area_averaging():
    coarse = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    image = cv2.resize(coarse, (128, 128), interpolation=cv2.INTER_CUBIC)
    area = cv2.resize(image, (96, 96), interpolation=cv2.INTER_AREA)
    assert area.std() < 0.99 * to_square(image[None], 96).std()


def test_upsampling_stays_within_0_to_255():
    edge = np.zeros((1, 8, 8, 3), np.float32)
    edge[:, :, 4:] = 255
    large = to_square(edge, 64)
    assert large.min() == 0
    assert large.max() == 255


def test_jpeg_decoded_at_reduced_size_is_close_to_full_decoding(save):
    noise = np.random.default_rng(0).integers(0, 256, (12, 12, 3), np.uint8)
    image = Image.fromarray(noise).resize((800, 800), Image.Resampling.BICUBIC)
    path = save(image, "a.jpg", quality=95)
    full = to_square(np.asarray(Image.open(path))[None], 96)[0].astype(float)
    assert ((decode(path, 96) - full) ** 2).mean() < 4


def test_image_with_too_many_pixels_is_rejected(save, monkeypatch):
    monkeypatch.setattr(decode_module, "PIXELS", 100)
    with pytest.raises(UnreadableError, match="16×16 exceeds the limit of 100 pixels"):
        decode(save(Image.new("RGB", (16, 16))), 16)


def test_png_bomb_is_rejected_before_decoding(tmp_path):
    header = struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0)
    body = png_chunk(b"IHDR", header) + png_chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + png_chunk(b"IEND", b"")
    (tmp_path / "bomb.png").write_bytes(b"\x89PNG\r\n\x1a\n" + body)
    with pytest.raises(UnreadableError, match="more than 89,478,485 pixels"):
        decode(tmp_path / "bomb.png", 16)


def test_tiff_bomb_is_rejected_before_decoding(save):
    path = save(Image.new("L", (16, 16)), "bomb.tif")
    raw = path.read_bytes()
    width = struct.pack("<HHI", 256, 4, 1)  # ImageWidth, one LONG
    entry = raw.index(width) + len(width)
    raw = raw[:entry] + struct.pack("<I", 2_000_000_000) + raw[entry + 4 :]
    path.write_bytes(raw)
    with pytest.raises(UnreadableError, match="pixels"):
        decode(path, 16)


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.tif", "a.webp", "a.bmp"])
def test_damaged_file_is_decoded_or_rejected_with_a_reason(save, name):
    raw = save(Image.fromarray(quarters()), name).read_bytes()
    rng = np.random.default_rng(0)
    for _ in range(60):
        mutant = bytearray(raw[: rng.integers(1, len(raw) + 1)])
        for place in rng.integers(0, len(mutant), 3):
            mutant[place] = rng.integers(0, 256)
        path = save(Image.new("RGB", (1, 1)), "m.png")
        path.write_bytes(mutant)
        with contextlib.suppress(UnreadableError):
            assert decode(path, 16).shape == (16, 16, 3)


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("subsampling", [0, 1, 2])
@pytest.mark.parametrize("size", [(40, 30), (257, 191), (700, 500)])
def test_turbojpeg_decodes_the_same_pixels_as_pillow(monkeypatch, size, subsampling, progressive):
    noise = np.random.default_rng(1).integers(0, 256, (12, 16, 3), np.uint8)
    out = io.BytesIO()
    image = Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC)
    image.save(out, "JPEG", subsampling=subsampling, progressive=progressive)
    fast = decode_module.decode(out.getvalue(), 64).pixels
    monkeypatch.setattr(decode_module, "_with_turbojpeg", lambda *_: None)
    np.testing.assert_array_equal(fast, decode_module.decode(out.getvalue(), 64).pixels)
