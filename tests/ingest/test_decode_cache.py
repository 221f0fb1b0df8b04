"""When images are added to a folder, only the new ones are decoded; cached images are matched by content."""

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from leaf.ingest import decode_cache
from leaf.ingest import source as folder_module
from leaf.ingest.ingest import ingest


@pytest.fixture
def decoded(monkeypatch):
    """Return a list with an item for each decoded image."""
    count = []
    read = folder_module.read_image
    monkeypatch.setattr(folder_module, "read_image", lambda *asked: count.append(1) or read(*asked))
    return count


@pytest.fixture
def again(folder, tmp_path, decoded):
    """Return a function that ingests the folder and returns the number of decoded files, the index and the images."""

    def run(size=16, aside=tmp_path / "aside"):
        decoded.clear()
        result = ingest(folder, tmp_path / "images.npy", ("healthy", "unhealthy"), size, aside=aside)
        return len(decoded), result.index, np.load(tmp_path / "images.npy")

    return run


def test_only_new_images_are_decoded_and_the_result_is_equal(again, folder):
    assert again()[0] == 12
    Image.new("RGB", (20, 20), "green").save(folder / "healthy" / "02b.png")
    count, index, images = again()
    fresh, fresh_index, fresh_images = again(aside=None)
    assert (count, fresh) == (1, 13)
    assert index.equals(fresh_index)
    np.testing.assert_array_equal(images, fresh_images)


def test_a_renamed_file_is_not_decoded(again, folder):
    again()
    (folder / "healthy" / "01.png").rename(folder / "unhealthy" / "other.png")
    count, index, _ = again()
    assert count == 0
    assert "unhealthy/other.png" in index["source"].tolist()


def test_changed_file_with_the_same_name_and_time_is_decoded(again, folder):
    import os

    again()
    path = folder / "healthy" / "01.png"
    before = path.stat()
    Image.new("RGB", (16, 16), "red").save(path)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    count, _, images = again()
    assert count == 1
    assert images[0, 0, 0].tolist() == [255, 0, 0]


def test_unchanged_files_are_not_read_again(again, folder, monkeypatch):
    opened = []
    read = decode_cache.read_file
    monkeypatch.setattr(decode_cache, "read_file", lambda path: opened.append(path.name) or read(path))
    monkeypatch.setattr(decode_cache, "_RECENT", -(10**9))
    again()
    opened.clear()
    Image.new("RGB", (20, 20), "green").save(folder / "healthy" / "02b.png")
    again()
    assert opened == ["02b.png"]


def test_a_file_changed_seconds_ago_is_read_again(again, monkeypatch):
    opened = []
    read = decode_cache.read_file
    monkeypatch.setattr(decode_cache, "read_file", lambda path: opened.append(path.name) or read(path))
    again()
    again()
    assert len(opened) == 24


def test_images_are_decoded_again_for_another_size(again):
    again()
    assert again(size=8)[0] == 12


def test_changed_cached_pixels_are_decoded_again(again, tmp_path):
    _, _, images = again()
    (kept,) = (tmp_path / "aside").glob("ingested-*/images.npy")
    raw = bytearray(kept.read_bytes())
    raw[-1] ^= 255
    kept.write_bytes(raw)
    count, _, after = again()
    assert count == 1
    np.testing.assert_array_equal(after, images)


@pytest.mark.parametrize("name", ["ingested.json", "ingested-*/index.csv", "ingested-*/images.npy"])
def test_damaged_cache_is_ignored(again, tmp_path, name):
    again()
    (path,) = (tmp_path / "aside").glob(name)
    path.unlink()
    path.write_bytes(b"broken")
    assert again()[0] == 12


def test_cache_without_a_column_is_ignored(again, tmp_path):
    again()
    (path,) = (tmp_path / "aside").glob("ingested-*/index.csv")
    pd.read_csv(path).drop(columns="width").to_csv(path, index=False)
    assert again()[0] == 12


def test_the_cache_keeps_one_array(again, tmp_path):
    for size in (16, 8, 12):
        again(size=size)
    assert len(list((tmp_path / "aside").glob("ingested-*"))) == 1


def test_unwritable_cache_folder_is_ignored(again, tmp_path):
    (tmp_path / "file").touch()
    assert again(aside=tmp_path / "file")[0] == 12
