"""Splits are stratified and stable, and keep groups together."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leaf.errors import LeafError
from leaf.split.stratified_split import check_splits, draw_keys, pinned_splits, shared_groups, split_images

CLASSES = ["healthy", "unhealthy"]


def split(images, validation=0.15, test=0.2, seed=42, classes=CLASSES):
    keyed = images.assign(key=draw_keys(images["group"], images["file_hash"], seed))
    return split_images(keyed, validation, test, classes)


def counts(splits, images):
    table = splits.merge(images[["image", "label"]], on="image")
    return {name: part["label"].value_counts().sort_index().tolist() for name, part in table.groupby("split")}


def test_split_of_the_course_report_is_exact_and_stratified(make_images):
    images = make_images(3101, 1903)
    assert counts(split(images, 500, 0), images) == {"train": [2791, 1713], "validation": [310, 190]}


def test_fractions_refer_to_all_kept_images(make_images):
    images = make_images(600, 400)
    assert counts(split(images, 0.15, 0.2), images) == {"test": [120, 80], "train": [390, 260], "validation": [90, 60]}


def test_sizes_are_exact_if_the_group_sizes_allow_it(make_images):
    images = make_images(613, 402)
    images["group"] = images["image"] - images["image"] % np.tile([2, 3, 5], 400)[images["image"] // 30]
    assert split(images, 150, 200)["split"].value_counts().to_dict() == {"train": 665, "test": 200, "validation": 150}


def test_sizes_are_as_close_as_the_group_sizes_allow(make_images):
    images = make_images(300, 300, group_size=10)
    assert counts(split(images, 124, 0), images)["validation"] == [60, 60]


def test_sizes_are_close_if_groups_contain_both_classes(make_images):
    images = make_images(600, 400)
    images["group"] = images["image"] % 100  # ten images each: six of one class, four of the other
    sizes = split(images, 150, 200)["split"].value_counts()
    assert abs(sizes["test"] - 200) <= 5
    assert abs(sizes["validation"] - 150) <= 5
    assert len(shared_groups(split(images, 150, 200), images)) == 0


def test_different_seed_gives_a_different_split(make_images):
    images = make_images(60, 40)
    assert not split(images, seed=1).equals(split(images, seed=2))


def test_split_does_not_depend_on_row_order(make_images):
    images = make_images(60, 40, group_size=3)
    pd.testing.assert_frame_equal(split(images.sample(frac=1, random_state=0)), split(images))


def test_renamed_and_reordered_files_keep_their_split(make_images):
    images = make_images(60, 40, group_size=3)
    renamed = images.sample(frac=1, random_state=0, ignore_index=True)
    renamed["image"] = renamed.index
    renamed["group"] = renamed["image"].groupby(renamed["group"]).transform("min")
    before = images.drop(columns="split").merge(split(images), on="image").set_index("file_hash")["split"]
    after = renamed.drop(columns="split").merge(split(renamed), on="image").set_index("file_hash")["split"]
    assert before.eq(after.reindex(before.index)).all()


def test_no_test_image_becomes_a_training_image_when_the_data_set_grows(make_images):
    before, after = make_images(600, 400), make_images(660, 440)
    kinds = [*range(600), *range(1000, 1060), *range(600, 1000), *range(1060, 1100)]
    after["file_hash"] = [f"file {number}" for number in kinds]  # the new images join each class
    after.loc[kinds.index(1000), "group"] = after.loc[0, "group"]  # one of them joins a group
    was = before.drop(columns="split").merge(split(before), on="image").set_index("file_hash")["split"]
    now = after.drop(columns="split").merge(split(after), on="image").set_index("file_hash")["split"]
    tested = now.reindex(was.index[was.eq("test")])
    assert set(tested) <= {"test", "validation"}
    assert tested.eq("test").mean() > 0.9


def test_pinned_images_keep_their_split_when_images_are_added_or_deleted(make_images):
    images = make_images(60, 40, group_size=2)
    was = images.drop(columns="split").merge(split(images), on="image").set_index("file_hash")["split"]
    pins = was.rename("split").reset_index()
    grown = make_images(90, 60, group_size=2)
    grown["file_hash"] = [
        f"file {number}" for number in [*range(40, 60), *range(200, 270), *range(60, 100), *range(300, 320)]
    ]
    grown["split"] = pinned_splits(grown, pins)
    now = grown.drop(columns="split").merge(split(grown, seed=7), on="image").set_index("file_hash")["split"]
    both = was.index.intersection(now.index)
    assert len(both) == 60
    assert was[both].eq(now[both]).all()
    assert now.value_counts()["test"] == 30


def test_class_with_one_pinned_image_fewer_than_its_quota_is_accepted(make_images):
    images = make_images(60, 40)
    images.loc[images["label"].eq(1), "split"] = ["test"] * 7 + ["validation"] * 7 + ["train"] * 26
    assert counts(split(images), images)["test"] == [12, 7]  # 20% of 40 is 8


def test_pin_of_a_removed_copy_applies_to_the_kept_copy(make_images):
    images = make_images(60, 40, group_size=2)
    images.loc[0, "kept"] = 0
    pins = pd.DataFrame({"file_hash": ["file 0", "file of another day"], "split": ["test", "train"]})
    assert pinned_splits(images, pins)[:3].tolist() == ["test", "test", ""]


def test_conflicting_pins_and_given_splits_of_a_group_are_rejected(make_images):
    images = make_images(60, 40, group_size=2)
    pins = pd.DataFrame({"file_hash": ["file 0", "file 1"], "split": ["test", "train"]})
    with pytest.raises(LeafError, match=r"^data/pinned\.csv.* image 0 \(test\) and image 1 \(train\)"):
        pinned_splits(images, pins)
    with pytest.raises(LeafError, match=r"a\.jpg \(test\) and b\.jpg \(train\)"):
        pinned_splits(images.assign(source=["a.jpg", "b.jpg"] * 50), pins)
    images.loc[0, "split"] = "validation"
    with pytest.raises(LeafError, match=r"image 0 \(validation\) and image 0 \(test\)"):
        pinned_splits(images, pins[:1])


@pytest.mark.parametrize(("own", "other"), [("test", "train"), ("train", "test")])
def test_class_in_only_one_given_split_is_rejected_with_a_remedy(make_images, own, other):
    images = make_images(60, 40)
    images["split"] = np.where(images["label"] == 1, own, np.where(images["image"] % 3 == 0, "test", "train"))
    with pytest.raises(LeafError, match=rf"unhealthy.*{own}.*{other}.*columns\.split=none"):
        split(images)


def test_new_images_move_few_others(make_images):
    before, after = make_images(600, 400), make_images(600, 410)
    both = split(before).merge(split(after), on="image", suffixes=("_before", "_after"))
    assert (both["split_before"] == both["split_after"]).mean() > 0.97


def test_larger_validation_split_keeps_the_test_split(make_images):
    images = make_images(600, 400)
    tests = [set(split(images, size, 0.2).query("split == 'test'")["image"]) for size in (0.1, 0.3)]
    assert tests[0] == tests[1]


def test_given_split_is_kept(make_images):
    images = make_images(60, 40)
    images.loc[[3, 70], "split"] = "test"
    images.loc[[5, 80], "split"] = "train"
    splits = split(images).set_index("image")["split"]
    assert splits[[3, 70, 5, 80]].tolist() == ["test", "test", "train", "train"]


def test_given_images_count_toward_the_sizes(make_images):
    images = make_images(60, 40)
    images.loc[[*range(10), *range(60, 65)], "split"] = "test"
    assert split(images)["split"].value_counts()["test"] == 20


def test_sizes_are_ignored_if_every_image_has_a_given_split(make_images):
    images = make_images(6, 6)
    images["split"] = ["train", "train", "train", "train", "validation", "test"] * 2
    assert split(images, 500, 500)["split"].tolist() == images["split"].tolist()


def test_missing_validation_split_is_drawn_from_given_training_images(make_images):
    images = make_images(60, 40)
    images["split"] = np.where(images["image"] % 5 == 0, "test", "train")
    result = split(images).set_index("image")["split"]
    assert result.value_counts().to_dict() == {"train": 65, "test": 20, "validation": 15}
    assert (result[images["split"].eq("test").to_numpy()] == "test").all()


def test_image_without_a_split_joins_the_split_of_its_group(make_images):
    images = make_images(60, 40, group_size=2)
    images.loc[0, "split"] = "test"
    assert split(images).set_index("image")["split"][1] == "test"


def test_error_names_the_images_of_a_group_with_two_given_splits(make_images):
    images = make_images(60, 40, group_size=2)
    images.loc[0, "split"], images.loc[1, "split"] = "train", "test"
    with pytest.raises(LeafError, match=r"image 0 \(train\) and image 1 \(test\)"):
        split(images)


def test_unknown_given_split_is_rejected(make_images):
    images = make_images(60, 40)
    images.loc[0, "split"] = "holdout"
    with pytest.raises(LeafError, match=r"'holdout'; valid: train, validation, test"):
        split(images)


def test_sizes_above_the_number_of_images_are_rejected(make_images):
    with pytest.raises(LeafError, match=r"60.*40.*100"):
        split(make_images(60, 40), 60, 40)


def test_validation_size_that_rounds_to_zero_is_rejected(make_images):
    with pytest.raises(LeafError, match=r"validation_size: .*100"):
        split(make_images(60, 40), 0.001, 0)


def test_class_with_fewer_groups_than_splits_is_rejected(make_images):
    images = make_images(60, 40)
    images.loc[images["label"].eq(1), "group"] = 1000
    with pytest.raises(LeafError, match=r"3 splits.*unhealthy has 1\b"):
        split(images)


def test_size_above_the_number_of_unassigned_images_is_rejected(make_images):
    images = make_images(60, 40)
    images.loc[images["image"] % 10 != 0, "split"] = "train"
    with pytest.raises(LeafError, match=r"test_size: .*\d+"):
        split(images, 1, 50)


def test_class_with_three_groups_has_one_group_in_each_split(make_images):
    for sizes in ([14, 15, 1], [28, 1, 1], [10, 10, 10]):
        images = make_images(90, 30)
        images.loc[90:119, "group"] = np.repeat([1000, 1001, 1002], sizes)
        splits = split(images, 4, 4)
        check_splits(splits, images)
        assert sorted(each[1] for each in counts(splits, images).values()) == sorted(sizes)


def test_error_names_the_class_that_is_absent_from_a_split(make_images):
    images = make_images(90, 30)
    images.loc[90:119, "group"] = np.repeat([0, 1, 2], [10, 10, 10])
    images.loc[80:89, "group"] = 2
    with pytest.raises(LeafError, match="no image of unhealthy in"):
        split(images, 4, 4)


@pytest.mark.parametrize("classes", [3, 9, 38])
def test_many_classes_keep_their_proportions_exactly(make_images, classes):
    sizes = [20 * (1 + number % 5) for number in range(classes)]
    images = make_images(*sizes)
    splits = split(images, classes=[f"class {number}" for number in range(classes)])
    parts = counts(splits, images)
    assert parts["test"] == [size // 5 for size in sizes]
    assert parts["validation"] == [size * 3 // 20 for size in sizes]


def test_error_lists_every_class_that_is_too_small(make_images):
    images = make_images(60, 2, 40, 1)
    with pytest.raises(LeafError, match=r"3 splits.*rust has 2, scab has 1\b"):
        split(images, classes=["healthy", "rust", "spots", "scab"])


@settings(max_examples=25, deadline=None)
@given(
    labels=st.lists(st.integers(0, 1), min_size=30, max_size=120),
    width=st.integers(1, 6),
    validation=st.floats(0.05, 0.4),
    test=st.one_of(st.just(0), st.floats(0.05, 0.4)),
    seed=st.integers(0, 1000),
)
def test_each_image_and_each_group_is_in_one_split(labels, width, validation, test, seed):
    numbers = np.arange(len(labels))
    images = pd.DataFrame({"image": numbers, "label": labels, "kept": 1, "group": numbers // width, "split": ""})
    images["file_hash"] = numbers.astype(str)
    try:
        splits = split(images, validation, test, seed)
    except LeafError:
        return
    check_splits(splits, images)
    assert splits["image"].tolist() == numbers.tolist()
