"""Test the demo data set: counts, copies and file format."""

import zipfile
from collections import Counter

import numpy as np
import pytest

from leaf.synthesize import COURSE, ImageCounts, draw_cartoon, draw_dataset, scaled, write_npz

SMALL = ImageCounts(healthy=14, unhealthy=9, copies=4, healthy_duplicates=2, unhealthy_duplicates=3)


@pytest.fixture(scope="module")
def small():
    return draw_dataset(SMALL, 32, seed=3)


def test_course_counts_are_5200_5004_and_4850():
    assert COURSE.images == 5200
    assert COURSE.images - 2 * COURSE.copies == 5004
    assert (COURSE.healthy + COURSE.healthy_duplicates, COURSE.unhealthy + COURSE.unhealthy_duplicates) == (3101, 1903)
    assert (COURSE.healthy, COURSE.unhealthy) == (3060, 1790)


def test_scaling_to_5200_images_gives_the_course_counts():
    assert scaled(5200) == COURSE


@pytest.mark.parametrize("images", [100, 101, 520, 1000, 99_999])
def test_counts_add_up_to_the_requested_number_of_images(images):
    assert scaled(images).images == images


def test_520_images_include_ten_copies_of_each_cartoon_and_15_duplicates():
    recipe = scaled(520)
    assert recipe.copies == 10
    assert recipe.healthy_duplicates + recipe.unhealthy_duplicates == 15


def test_classes_have_the_requested_sizes(small):
    _, labels = small
    assert np.bincount(labels).tolist() == [14 + 2 + 4, 9 + 3 + 4]


def test_first_cartoon_is_always_unhealthy_and_the_second_healthy(small):
    images, labels = small
    for number, label in ((0, 1), (1, 0)):
        same = (images == draw_cartoon(number, 32)).all(axis=(1, 2, 3))
        assert same.sum() == SMALL.copies
        assert set(labels[same]) == {label}


def test_cartoons_are_spread_over_the_whole_data_set():
    images, _ = draw_dataset(ImageCounts(60, 40, 10, 0, 0), 32, seed=1)
    places = np.flatnonzero((images == draw_cartoon(0, 32)).all(axis=(1, 2, 3)))
    assert np.diff(places).max() > 5
    assert places[-1] - places[0] > 50


def test_number_of_copies_is_exact(small):
    images, _ = small
    times = Counter(image.tobytes() for image in images)
    drawn = [count for pixels, count in times.items() if count < SMALL.copies]
    assert sum(drawn) - len(drawn) == 5
    assert len(drawn) == 14 + 9


def test_copies_have_the_same_label(small):
    images, labels = small
    seen = {}
    for image, label in zip(images, labels, strict=True):
        assert seen.setdefault(image.tobytes(), label) == label


def test_same_seed_draws_the_same_images(small):
    images, labels = draw_dataset(SMALL, 32, seed=3)
    np.testing.assert_array_equal(images, small[0])
    np.testing.assert_array_equal(labels, small[1])


def test_different_seed_draws_different_images(small):
    images, _ = draw_dataset(SMALL, 32, seed=4)
    leaves = {image.tobytes() for image in small[0]} & {image.tobytes() for image in images}
    assert len(leaves) == 2  # the cartoons alone


def test_file_contains_float32_images_and_an_object_array_pickled_with_protocol_3(tmp_path, small):
    images, labels = small
    write_npz(tmp_path / "l.npz", images, [str(label) for label in labels])
    with np.load(tmp_path / "l.npz", allow_pickle=False) as file:
        assert file["data"].dtype == np.float32
        np.testing.assert_array_equal(file["data"], images)
    with zipfile.ZipFile(tmp_path / "l.npz") as file:
        raw = file.read("labels.npy")
    assert b"'descr': '|O'" in raw[:100]
    assert raw[128:130] == b"\x80\x03"


def test_file_has_a_fixed_date(tmp_path, small):
    write_npz(tmp_path / "l.npz", small[0], ["a"] * len(small[0]))
    with zipfile.ZipFile(tmp_path / "l.npz") as file:
        assert {entry.date_time for entry in file.infolist()} == {(1980, 1, 1, 0, 0, 0)}


def test_file_does_not_depend_on_the_python_release(tmp_path, small):
    images, labels = small
    write_npz(tmp_path / "leaves.npz", images, list(map(str, labels)))
    with zipfile.ZipFile(tmp_path / "leaves.npz") as file:
        assert {member.extract_version for member in file.infolist()} == {zipfile.DEFAULT_VERSION}
