"""Test reading valid .npz files."""

import tracemalloc
import zipfile

import numpy as np
import pytest
import xxhash

from leaf.ingest.ingest import ingest
from leaf.ingest.npz import BLOCK_BYTES


def test_integers_in_float32_are_stored_as_uint8_without_loss(read, npz, images):
    _, stored = read(npz)
    assert stored.dtype == np.uint8
    np.testing.assert_array_equal(stored, images)


def test_fractions_are_kept_as_float32(read, tmp_path, images, labels):
    data = images.astype(np.float32)
    data[7, 3, 3, 1] = 100.5
    np.savez(tmp_path / "f.npz", data=data, labels=labels)
    _, stored = read(tmp_path / "f.npz")
    assert stored.dtype == np.float32
    np.testing.assert_array_equal(stored, data)


@pytest.mark.parametrize("dtype", ["uint8", "int16", "int64", "float16", "float32", "float64", ">f4"])
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_every_numeric_dtype_is_read_with_or_without_compression(read, tmp_path, images, labels, dtype, save):
    save(tmp_path / "d.npz", data=images.astype(dtype), labels=labels)
    _, stored = read(tmp_path / "d.npz")
    np.testing.assert_array_equal(stored, images)


def test_index_numbers_images_by_position_in_the_file(read, npz):
    index = read(npz)[0].index
    assert index["image"].tolist() == list(range(12))
    assert index["source"].tolist() == [str(number) for number in range(12)]


def test_the_first_class_is_label_0(read, npz, labels):
    index = read(npz)[0].index
    assert index["label"].tolist() == [int(label == "unhealthy") for label in labels]


def test_hash_is_xxh3_of_the_stored_pixels(read, npz):
    result, stored = read(npz)
    expected = [xxhash.xxh3_128_hexdigest(image.tobytes()) for image in stored]
    assert result.index["hash"].tolist() == expected


def test_group_and_split_are_empty(read, npz):
    index = read(npz)[0].index
    assert set(index["group"]) | set(index["split"]) == {""}


@pytest.mark.parametrize(
    "form", [lambda names: names.astype("U9"), lambda names: names.astype("S9"), lambda names: names == "unhealthy"]
)
def test_labels_can_be_strings_bytes_or_numbers(read, tmp_path, images, labels, form):
    form = form(labels)
    np.savez(tmp_path / "l.npz", data=images, labels=form.astype(np.int64) if form.dtype == bool else form)
    index = read(tmp_path / "l.npz")[0].index
    assert index["label"].tolist() == [int(label == "unhealthy") for label in labels]


def test_images_are_cropped_to_the_center_and_resized(read, tmp_path, labels):
    data = np.zeros((12, 32, 64, 3), np.float32)
    data[:, :, 16:48] = 200  # the central square; the rest is cropped
    np.savez(tmp_path / "w.npz", data=data, labels=labels)
    _, stored = read(tmp_path / "w.npz", size=16)
    assert stored.shape == (12, 16, 16, 3)
    assert (stored == 200).all()


def test_images_across_many_blocks_keep_their_order(read, tmp_path):
    count = 3 * BLOCK_BYTES // (64 * 64 * 3 * 4) + 5
    data = np.zeros((count, 64, 64, 3), np.float32)
    data[:, 0, 0, 0] = np.arange(count) % 251
    np.savez(tmp_path / "b.npz", data=data, labels=np.array(["healthy", "unhealthy"] * count, object)[:count])
    _, stored = read(tmp_path / "b.npz", size=64)
    np.testing.assert_array_equal(stored[:, 0, 0, 0], np.arange(count) % 251)


@pytest.mark.slow
def test_npz_is_read_in_blocks(tmp_path):
    count = 1500
    path = tmp_path / "big.npz"
    np.savez(path, data=np.full((count, 96, 96, 3), 7, np.float32), labels=np.array(["healthy", "unhealthy"] * 750))
    tracemalloc.start()
    ingest(path, tmp_path / "images.npy", ("healthy", "unhealthy"), 96)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert path.stat().st_size > 150e6
    assert peak < 60e6


def test_equal_input_writes_identical_files(read, npz, tmp_path):
    read(npz)
    first = (tmp_path / "out" / "images.npy").read_bytes()
    read(npz)
    assert (tmp_path / "out" / "images.npy").read_bytes() == first


def test_members_with_unusual_names_are_never_unpacked(read, npz, tmp_path):
    with zipfile.ZipFile(npz, "a") as file:
        file.writestr("../outside.npy", b"x")
        file.writestr("/absolute.npy", b"x")
    read(npz)
    assert not (tmp_path.parent / "outside.npy").exists()


@pytest.mark.realdata
def test_leaves_1041_is_read(shared, tmp_path):
    index = ingest(shared / "leaves_1041.npz", tmp_path / "images.npy", ("healthy", "unhealthy"), 96).index
    assert index["label"].value_counts().to_dict() == {0: 640, 1: 401}
    assert np.load(tmp_path / "images.npy", mmap_mode="r").dtype == np.uint8
