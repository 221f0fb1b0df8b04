"""Test which synthetic images each balancing method plans."""

from typing import get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leaf.balance import interpolate, plan_images
from leaf.balance.smote import COLUMNS, Method
from leaf.errors import LeafError

CLASSES = ["healthy", "unhealthy"]
IMAGES = np.random.default_rng(3).integers(0, 256, (60, 4, 4, 3), np.uint8)


def plan(numbers, labels, method="smote", neighbors=5, seed=42):
    return plan_images(IMAGES, np.asarray(numbers), np.asarray(labels), method, CLASSES, neighbors, seed)


@pytest.mark.parametrize("method", ["smote", "oversample"])
def test_classes_are_balanced(method):
    table = plan(np.arange(50), [0] * 38 + [1] * 12, method)
    assert table["label"].tolist() == [1] * 26


def test_first_class_can_be_the_smaller_one():
    assert plan(np.arange(20), [0] * 7 + [1] * 13)["label"].tolist() == [0] * 6


@pytest.mark.parametrize("method", ["smote", "oversample"])
def test_synthetic_images_of_a_class_have_parents_of_that_class(method):
    labels = np.repeat([0, 1, 2, 3], [12, 20, 7, 20])
    table = plan_images(IMAGES, np.arange(59), labels, method, ["a", "b", "c", "d"], 5, 42)
    assert table["image"].tolist() == list(range(21))
    assert table["label"].tolist() == [0] * 8 + [2] * 13
    for role in ("parent", "neighbour"):
        assert (labels[table[role]] == table["label"]).all()


def test_error_lists_every_class_too_small_for_smote():
    labels = np.repeat([0, 1, 2, 3], [20, 5, 6, 2])
    with pytest.raises(LeafError, match="b has 5, d has 2"):
        plan_images(IMAGES, np.arange(33), labels, "smote", ["a", "b", "c", "d"], 5, 42)


@pytest.mark.parametrize("method", ["none", "class_weight"])
def test_none_and_class_weight_create_no_images(method):
    table = plan(np.arange(50), [0] * 38 + [1] * 12, method)
    assert table.columns.tolist() == COLUMNS
    assert len(table) == 0


def test_classes_of_equal_size_get_no_synthetic_images():
    assert len(plan(np.arange(8), [0, 1] * 4)) == 0


def test_oversampled_images_are_copies():
    table = plan(np.arange(50), [0] * 38 + [1] * 12, "oversample")
    made = np.empty((len(table), 4, 4, 3), np.uint8)
    interpolate(IMAGES, table, made)
    np.testing.assert_array_equal(made, IMAGES[table["parent"]])


def test_every_image_is_copied_before_one_is_copied_again():
    table = plan(np.arange(50), [0] * 38 + [1] * 12, "oversample")
    assert table["parent"].value_counts().between(2, 3).all()


def test_plan_does_not_depend_on_row_order():
    numbers, labels = np.arange(40), np.repeat([0, 1], [25, 15])
    shuffled = np.random.default_rng(0).permutation(40)
    assert plan(numbers[shuffled], labels[shuffled]).equals(plan(numbers, labels))


def test_class_too_small_for_smote_is_rejected_with_a_remedy():
    with pytest.raises(LeafError) as caught:
        plan(np.arange(20), [0] * 15 + [1] * 5)
    for part in ("balance: ", "smote_neighbors 5", "at least 6", "unhealthy has 5", "class_weight"):
        assert part in str(caught.value)


def test_class_too_large_for_smote_is_rejected_with_a_remedy(monkeypatch):
    monkeypatch.setattr("leaf.balance.smote._MOST", 6)
    with pytest.raises(LeafError) as caught:
        plan(np.arange(22), [0] * 15 + [1] * 7)
    for part in ("balance: ", "unhealthy has 7", "at most 6", "class_weight"):
        assert part in str(caught.value)
    assert len(plan(np.arange(21), [0] * 15 + [1] * 6)) == 9  # the largest class is not compared


def test_smote_requires_one_more_image_than_neighbors():
    assert len(plan(np.arange(21), [0] * 15 + [1] * 6)) == 9


def test_empty_class_is_rejected():
    with pytest.raises(LeafError, match=r"oversample.*unhealthy has 0"):
        plan(np.arange(20), [0] * 20, "oversample")


@settings(max_examples=40, deadline=None)
@given(
    method=st.sampled_from(get_args(Method)),
    train=st.sets(st.integers(0, 59), min_size=24, max_size=50),
    first=st.integers(6, 18),
    seed=st.integers(0, 2**31 - 1),
)
def test_every_parent_is_a_training_image_of_the_same_class(method, train, first, seed):
    numbers = np.array(sorted(train))
    labels = (np.arange(len(numbers)) >= first).astype(int)
    table = plan(numbers, labels, method, seed=seed)
    label_of = dict(zip(numbers, labels, strict=True))
    for role in ("parent", "neighbour"):
        assert [label_of.get(image) for image in table[role]] == table["label"].tolist()


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000))
def test_synthetic_images_depend_only_on_training_images(seed):
    """Validation and test images do not affect synthetic images."""
    numbers, labels = np.arange(0, 60, 2), np.repeat([0, 1], [20, 10])
    others = IMAGES.copy()
    others[1::2] = np.random.default_rng(seed).integers(0, 256, others[1::2].shape, np.uint8)
    made = []
    for images in (IMAGES, others):
        table = plan_images(images, numbers, labels, "smote", CLASSES, 5, 42)
        out = np.empty((len(table), 4, 4, 3), np.uint8)
        interpolate(images, table, out)
        made.append((table, out))
    assert made[0][0].equals(made[1][0])
    np.testing.assert_array_equal(made[0][1], made[1][1])
