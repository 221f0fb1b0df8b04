"""Ingesting an invalid .npz file raises a one-line error and writes nothing."""

import contextlib
import io
import tracemalloc
import zipfile
import zlib

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from leaf.errors import LeafError
from leaf.ingest import npz as npz_module
from leaf.ingest.ingest import ingest


@pytest.fixture
def refusal(tmp_path):
    """Return a function that ingests an invalid data set and returns the error message."""

    def run(dataset):
        with pytest.raises(LeafError) as caught:
            ingest(dataset, tmp_path / "out" / "images.npy", ("healthy", "unhealthy"), 16)
        assert not list((tmp_path / "out").glob("*")), "nothing may be left behind"
        assert "\n" not in str(caught.value)
        return str(caught.value)

    return run


def saved(path, **arrays):
    np.savez(path, **arrays)
    return path


def test_a_missing_file_is_reported(refusal, tmp_path):
    assert "nowhere.npz: no such file" in refusal(tmp_path / "nowhere.npz")


def test_a_text_file_is_not_an_npz(refusal, tmp_path):
    (tmp_path / "a.npz").write_text("hello")
    assert "not an .npz file" in refusal(tmp_path / "a.npz")


def test_an_empty_file_is_not_an_npz(refusal, tmp_path):
    (tmp_path / "a.npz").write_bytes(b"")
    assert "not an .npz file" in refusal(tmp_path / "a.npz")


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.999])
def test_a_truncated_file_is_rejected(refusal, npz, share):
    raw = npz.read_bytes()
    npz.write_bytes(raw[: int(len(raw) * share)])
    assert "a damaged or truncated .npz" in refusal(npz)


def test_checksum_detects_a_flipped_byte_in_the_pixels(refusal, npz):
    raw = bytearray(npz.read_bytes())
    raw[5000] ^= 1
    npz.write_bytes(raw)
    assert "leaves.npz" in refusal(npz)


@pytest.mark.parametrize("name", ["data", "labels"])
def test_missing_array_is_reported_with_the_existing_ones(refusal, tmp_path, images, labels, name):
    arrays = {"data": images, "labels": labels, "other": labels}
    del arrays[name]
    line = refusal(saved(tmp_path / "a.npz", **arrays))
    assert f"no array `{name}`" in line
    assert "other" in line


@pytest.mark.parametrize("shape", [(12, 16, 16), (12, 16, 16, 4), (12, 768), (0, 16, 16, 3), (12, 0, 16, 3)])
def test_wrong_shape_is_reported(refusal, tmp_path, labels, shape):
    assert f"data has shape {shape}" in refusal(saved(tmp_path / "a.npz", data=np.zeros(shape), labels=labels))


@pytest.mark.parametrize("dtype", ["bool", "complex64", "U1", "M8[s]"])
def test_a_wrong_dtype_is_reported(refusal, tmp_path, labels, dtype):
    data = np.zeros((12, 16, 16, 3)).astype(dtype)
    assert f"data has dtype {data.dtype}" in refusal(saved(tmp_path / "a.npz", data=data, labels=labels))


def test_object_array_of_images_is_rejected_before_reading(refusal, tmp_path, labels):
    data = np.empty((12, 16, 16, 3), object)
    assert "data has dtype object" in refusal(saved(tmp_path / "a.npz", data=data, labels=labels))


@pytest.mark.parametrize(("value", "words"), [(-1, "from -1 to"), (256, "to 256"), (1e30, "to 1e+30")])
def test_error_for_a_value_out_of_range_names_the_image(refusal, tmp_path, images, labels, value, words):
    data = images.astype(np.float32)
    data[5, 2, 2, 2] = value
    line = refusal(saved(tmp_path / "a.npz", data=data, labels=labels))
    assert "image 5" in line
    assert words in line


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_error_for_nan_or_infinity_names_the_image(refusal, tmp_path, images, labels, value):
    data = images.astype(np.float32)
    data[9, 0, 0, 0] = value
    assert "image 9 contains NaN or infinity" in refusal(saved(tmp_path / "a.npz", data=data, labels=labels))


def test_invalid_value_after_a_fraction_is_reported(refusal, tmp_path, images, labels):
    data = images.astype(np.float32)
    data[2, 0, 0, 0], data[9, 0, 0, 0] = 0.5, 300
    assert "image 9" in refusal(saved(tmp_path / "a.npz", data=data, labels=labels))


def test_images_scaled_to_0_to_1_are_rejected_with_a_remedy(refusal, tmp_path, images, labels):
    data = images.astype(np.float32) / 255
    assert "Multiply the values by 255" in refusal(saved(tmp_path / "a.npz", data=data, labels=labels))


def test_images_scaled_to_plus_minus_1_are_rejected_with_a_remedy(refusal, tmp_path, images, labels):
    data = images.astype(np.float32) / 127.5 - 1
    assert "Undo the scaling" in refusal(saved(tmp_path / "a.npz", data=data, labels=labels))


def test_fortran_order_is_rejected_with_a_remedy(refusal, tmp_path, images, labels):
    assert "ascontiguousarray" in refusal(saved(tmp_path / "a.npz", data=np.asfortranarray(images), labels=labels))


def test_error_for_an_unknown_label_names_the_image(refusal, tmp_path, images, labels):
    labels[4] = "helthy"
    line = refusal(saved(tmp_path / "a.npz", data=images, labels=labels))
    assert "'helthy' (1 image, first: 4): not in" in line
    assert "healthy, unhealthy" in line


def test_error_for_a_label_index_out_of_range_names_the_image(refusal, tmp_path, images):
    labels = np.array([0, 1, 2] * 4)
    assert "2 (4 images, first: 2): not in" in refusal(saved(tmp_path / "a.npz", data=images, labels=labels))


def test_wrong_number_of_labels_is_reported(refusal, tmp_path, images, labels):
    assert "11 labels for 12 images" in refusal(saved(tmp_path / "a.npz", data=images, labels=labels[:11]))


def test_labels_of_another_shape_are_rejected(refusal, tmp_path, images, labels):
    assert "labels has shape (12, 1)" in refusal(saved(tmp_path / "a.npz", data=images, labels=labels[:, None]))


def test_single_class_is_rejected(refusal, tmp_path, images):
    labels = np.array(["healthy"] * 12, object)
    assert "no image of the class unhealthy" in refusal(saved(tmp_path / "a.npz", data=images, labels=labels))


def header_says(shape, payload=b"\0" * 64, dtype="<f4"):
    out = io.BytesIO()
    np.lib.format.write_array_header_1_0(out, {"descr": dtype, "fortran_order": False, "shape": shape})
    return out.getvalue() + payload


def test_header_larger_than_the_data_is_rejected(refusal, tmp_path):
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as file:
        file.writestr("data.npy", header_says((10**9, 96, 96, 3)))
    assert "has 64" in refusal(tmp_path / "a.npz")


def test_a_negative_shape_is_rejected(refusal, tmp_path):
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as file:
        file.writestr("data.npy", header_says((-1, 96, 96, -3)))
    assert "shape" in refusal(tmp_path / "a.npz")


def test_array_above_the_size_limit_is_rejected(refusal, npz, monkeypatch):
    monkeypatch.setattr(npz_module, "MEMBER_BYTES", 1000)
    assert "1,000" in refusal(npz)


def test_zip_bomb_is_rejected(refusal, tmp_path, labels, monkeypatch):
    np.savez_compressed(tmp_path / "a.npz", data=np.zeros((12, 96, 96, 3), np.float32), labels=labels)
    monkeypatch.setattr(npz_module, "SMALL_BYTES", 1000)
    assert "250" in refusal(tmp_path / "a.npz")


def test_images_with_too_many_pixels_are_rejected(refusal, npz, monkeypatch):
    monkeypatch.setattr(npz_module, "PIXELS", 100)
    assert "100 pixels" in refusal(npz)


def test_too_long_labels_are_rejected(refusal, tmp_path, images):
    labels = np.array(["healthy" + " " * 100_000] * 12)
    line = refusal(saved(tmp_path / "a.npz", data=images, labels=labels))
    assert "77,824" in line


def test_unsupported_compression_is_rejected(refusal, tmp_path):
    with zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_BZIP2) as file:
        file.writestr("data.npy", header_says((1, 2, 2, 3), b"\0" * 48))
    assert "numpy.savez" in refusal(tmp_path / "a.npz")


FUZZED = {"deadline": None, "suppress_health_check": [HealthCheck.function_scoped_fixture]}


def _change_and_read(tmp_path, npz, data):
    raw = bytearray(npz.read_bytes())
    head = list(range(300)) + list(range(len(raw) - 1200, len(raw)))  # headers, labels, the zip directory
    for place in data.draw(st.lists(st.sampled_from(head), min_size=1, max_size=4)):
        raw[place] = data.draw(st.integers(0, 255))
    mutant = tmp_path / "mutant.npz"
    mutant.write_bytes(raw)
    with contextlib.suppress(LeafError):
        ingest(mutant, tmp_path / "images.npy", ("healthy", "unhealthy"), 16)


@settings(max_examples=80, **FUZZED)
@given(data=st.data())
def test_file_with_changed_bytes_is_read_or_gives_a_one_line_error(tmp_path, npz, data):
    _change_and_read(tmp_path, npz, data)


@pytest.mark.slow
@settings(max_examples=2000, **FUZZED)
@given(data=st.data())
def test_thousands_of_files_with_changed_bytes_are_read_or_give_a_one_line_error(tmp_path, npz, data):
    _change_and_read(tmp_path, npz, data)


def test_zlib_damage_gives_a_one_line_error(refusal, tmp_path, images, labels):
    path = tmp_path / "a.npz"
    np.savez_compressed(path, data=images, labels=labels)
    raw = bytearray(path.read_bytes())
    raw[200:260] = zlib.compress(b"x" * 60)[:4] * 15
    path.write_bytes(raw)
    assert "a.npz" in refusal(path)


def test_small_file_with_huge_output_is_rejected(read, tmp_path):
    np.savez_compressed(tmp_path / "a.npz", data=np.full((60, 8, 8, 3), 9, np.uint8), labels=np.arange(60) % 2)
    with pytest.raises(LeafError, match=r"60 images.*image_size 1024"):
        read(tmp_path / "a.npz", 1024)


def test_more_images_than_bytes_are_rejected(refusal, tmp_path):
    np.savez_compressed(
        tmp_path / "a.npz", data=np.full((90_000, 1, 1, 3), 9, np.uint8), labels=np.zeros(90_000, np.int8)
    )
    assert "90,000 images, too many for a file of" in refusal(tmp_path / "a.npz")


def test_long_header_is_rejected_before_reading(refusal, tmp_path):
    with zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("data.npy", b"\x93NUMPY\2\0" + (2**25).to_bytes(4, "little") + b" " * 2**25)
    tracemalloc.start()
    assert "not a valid .npy array" in refusal(tmp_path / "a.npz")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**22
