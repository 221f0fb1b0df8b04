"""Every planted shortcut raises an alarm, and a data set without shortcuts raises none."""

import datetime

import numpy as np
import pytest
from PIL import Image

from leaf.audit.shortcuts import LEVEL, alter_images, file_facts, file_features, find_shortcuts, pixel_features, score

SIZE, COUNT = 32, 120
GROUPS = np.arange(COUNT) // 2


def discs(seed):
    """Return images of striped discs, uint8 (N, 32, 32, 3), and labels: 0 for horizontal stripes, else 1."""
    random = np.random.default_rng(seed)
    labels = np.repeat(random.permutation(np.arange(COUNT // 2) % 2), 2)
    down, right = np.mgrid[:SIZE, :SIZE]
    disc = np.hypot(down - SIZE / 2, right - SIZE / 2) < 10
    images = np.repeat(random.integers(40, 200, (COUNT, 1, 1, 3)), SIZE, 1).repeat(SIZE, 2)
    images += random.integers(-20, 20, images.shape)
    for image, label in zip(images, labels, strict=True):
        image[disc] = (60, 140, 60)
        image[disc & ((right if label else down) % 4 < 2)] = (90, 170, 80)
    return images.astype(np.uint8), labels


def ask(folder, images, labels, quality=lambda place: 90, name=str, date=None):
    """Save the images as JPEG files and search for shortcuts. Name, quality and date depend on the image's position."""
    names = [f"{name(place)}.jpg" for place in range(len(images))]
    for place, image in enumerate(images):
        exif = Image.Exif()
        if date:
            exif[0x0132] = date(place).strftime("%Y:%m:%d %H:%M:%S")
        Image.fromarray(image).save(folder / names[place], quality=quality(place), exif=exif)
    width = {"width": [SIZE] * len(images), "height": [SIZE] * len(images)}
    described = pixel_features(images, np.arange(len(images))) | file_features(file_facts(folder, names, width), names)
    return find_shortcuts(described, labels, GROUPS)


def alarms(found):
    return {name for name, one in found.items() if one.alarm}


@pytest.mark.parametrize("seed", range(10))
def test_data_set_without_a_shortcut_raises_no_alarm(seed, tmp_path):
    random = np.random.default_rng(seed)
    images, labels = discs(seed)
    when = [datetime.datetime(2021, 5, day, hour) for day, hour in random.integers(1, 24, (COUNT, 2)).tolist()]
    names = [f"{letter}_{place:04}" for letter, place in zip("abc" * 40, random.permutation(COUNT), strict=True)]
    found = ask(tmp_path, images, labels, name=names.__getitem__, date=when.__getitem__)
    tested = {"border_pixels", "frame", "colour", "sharpness", "file_size", "date", "order", "name"}
    assert found.keys() == tested | {"dimensions", "jpeg"}  # dimensions and JPEG quality are the same for all images
    assert found["dimensions"].score == found["jpeg"].score == score(labels == np.bincount(labels).argmax(), GROUPS)
    assert alarms(found) == set()


PLANTED = {
    "frame": {},
    "jpeg": {"quality": lambda label, place: int(75 + 20 * label)},
    "date": {"date": lambda label, place: datetime.datetime(2021, 5, 3 + 9 * int(label), 8 + place % 9)},
    "name": {"name": lambda label, place: f"{'DSC' if label else 'IMG'}{place}"},
}


@pytest.mark.parametrize("what", PLANTED)
def test_a_planted_shortcut_is_found(what, tmp_path):
    images, labels = discs(0)
    if what == "frame":
        images[labels == 1, :2] = (200, 40, 40)
    by_place = {key: lambda place, each=each: each(labels[place], place) for key, each in PLANTED[what].items()}
    found = ask(tmp_path, images, labels, **by_place)
    assert what in alarms(found)
    assert found[what].score.low > 0.8


def test_the_background_excludes_the_leaf():
    images, labels = discs(1)
    down, right = np.mgrid[:SIZE, :SIZE]
    ring = (np.hypot(down - SIZE / 2, right - SIZE / 2) > 13) & (np.hypot(down - SIZE / 2, right - SIZE / 2) < 15)
    leaf = np.repeat((np.hypot(down - SIZE / 2, right - SIZE / 2) < 10)[None], COUNT, 0)
    clean = find_shortcuts({"background": pixel_features(images, np.arange(COUNT), leaf)["background"]}, labels, GROUPS)
    images[np.ix_(labels == 1)] = np.where(ring[None, ..., None], 255, images[labels == 1])
    planted = find_shortcuts(
        {"background": pixel_features(images, np.arange(COUNT), leaf)["background"]}, labels, GROUPS
    )
    assert alarms(clean) == set()
    assert alarms(planted) == {"background"}


def test_an_image_without_a_mask_has_no_background():
    images, _ = discs(2)
    leaf = np.zeros((COUNT, SIZE, SIZE), bool)
    leaf[:50, 10:20, 10:20] = True
    found = pixel_features(images, np.arange(COUNT), leaf)["background"]
    assert np.isfinite(found[:50]).all()
    assert np.isnan(found[50:]).all()


def test_unknown_features_are_skipped():
    _images, labels = discs(3)
    names = [str(n) for n in range(COUNT)]
    found = find_shortcuts(file_features(file_facts(None, names, {}), names), labels, GROUPS)
    assert found.keys() == {"order"}


def test_damaged_and_missing_files_have_no_metadata(tmp_path):
    (tmp_path / "torn.jpg").write_bytes(b"\xff\xd8\xff")
    found = file_facts(tmp_path, ["torn.jpg", "gone.jpg"], {})
    assert np.isnan(found["bytes"]).all()
    assert found["camera"] == found["date"] == ["", ""]


def test_table_columns_take_precedence_over_exif(tmp_path):
    exif = Image.Exif()
    exif[0x010F], exif[0x0110], exif[0x0132] = "Canon", "R5", "2021:05:06 12:30:00"
    for name in ("a.jpg", "b.jpg"):
        Image.new("RGB", (8, 8)).save(tmp_path / name, exif=exif)
    found = file_facts(tmp_path, ["a.jpg", "b.jpg"], {"camera": ["phone", ""], "date": [np.nan, "2020-01-02"]})
    assert found["camera"] == ["phone", "Canon R5"]
    assert found["date"] == ["2021:05:06 12:30:00", "2020-01-02"]


def test_correlated_groups_widen_the_interval():
    right = np.repeat(np.random.default_rng(0).random(60) < 0.7, 4)
    apart, whole = score(right, np.arange(240)), score(right, np.arange(240) // 4)
    assert whole.accuracy == apart.accuracy
    assert whole.high - whole.low > 1.8 * (apart.high - apart.low)


def test_the_interval_of_all_correct_images_has_a_width():
    assert score(np.ones(40), np.arange(40) // 4).low == pytest.approx(
        0.661, abs=0.01
    )  # Wilson interval with a t quantile for ten groups


def test_the_false_alarm_rate_is_below_the_level():
    random = np.random.default_rng(0)
    rare = [
        find_shortcuts({"chance": random.normal(size=(60, 2))}, random.integers(0, 2, 60), np.arange(60))["chance"].p
        for _ in range(20)
    ]
    assert np.mean(np.array(rare) < 5 * LEVEL) <= 0.1


def test_altered_images_have_the_frame_or_center_of_another_class():
    images, labels = discs(4)
    images[labels == 1] = 255 - images[labels == 1] // 4
    changed = alter_images(images, labels)
    for name, inside in (("frame", False), ("centre", True)):
        rows, pictures = changed[name]
        assert rows.tolist() == list(range(COUNT))
        kept = pictures[:, 10:20, 10:20] if not inside else pictures[:, :3]
        assert (kept == (images[:, 10:20, 10:20] if not inside else images[:, :3])).all()
        other = pictures[:, :3] if not inside else pictures[:, 10:20, 10:20]
        assert ((other.mean(axis=(1, 2, 3)) > 190) == (labels == 0)).mean() > 0.95
    same = changed["frame_same"][1]
    assert (same[:, 10:20, 10:20] == images[:, 10:20, 10:20]).all()
    assert ((same[:, :3].mean(axis=(1, 2, 3)) > 190) == (labels == 1)).mean() > 0.95
    assert (same[:, :3] != images[:, :3]).any(axis=(1, 2, 3)).all()
    assert np.ptp(changed["colour"][1].astype(int), axis=-1).max() == 0
